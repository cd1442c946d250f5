"""Tabular problems of the literature other than grids: the chain, random MDPs, Baird's counterexample."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import FRACTION, check_key, check_scalar, check_size
from jaxrl.envs.problems.tabular import TabularMDP, tabular, tabular_mdp
from jaxrl.types import Environment


def chain(
    num_states: int = 5, *, slip: float = 0.2, near_reward: float = 2.0, far_reward: float = 10.0, max_steps_in_episode: int = 100
) -> Environment:
    """The chain (Dearden et al. 1998; Strens 2000): a small reward nearby, a large one at the far end.

    Action 0 moves one state forward and pays 0; in the last state it stays and pays `far_reward`. Action 1 returns to the
    first state and pays `near_reward`. With probability `slip` the other action is executed. Episodes never terminate.

    Args:
      num_states: at least 2.
      slip: probability in [0, 1].
      near_reward, far_reward: any numbers.
      max_steps_in_episode: time limit in steps.

    Raises:
      ValueError: if `num_states` is below 2 or `slip` not in [0, 1]; as `tabular`.
      TypeError: if a size is not an int.

    >>> chain().params.mdp.transition[0].tolist()
    [[0.20000000298023224, 0.800000011920929, 0.0, 0.0, 0.0], [0.800000011920929, 0.20000000298023224, 0.0, 0.0, 0.0]]
    """
    num_states = check_size("num_states", num_states, minimum=2)
    check_scalar("slip", slip, *FRACTION)
    last = num_states - 1
    transition, reward = np.zeros((num_states, 2, num_states)), np.zeros((num_states, 2, num_states))
    for action, prob in ((0, 1 - slip), (1, slip)):  # of going forward
        transition[np.arange(num_states), action, np.minimum(np.arange(num_states) + 1, last)] = prob
        transition[:, action, 0] = 1 - prob
    reward[:, :, 0] = near_reward
    reward[last, :, last] = far_reward
    return tabular(tabular_mdp(transition, reward), max_steps_in_episode=max_steps_in_episode, name="Chain")


def garnet_mdp(key: jax.Array, num_states: int = 20, num_actions: int = 4, branching: int = 3) -> TabularMDP:
    """A random MDP (Archibald et al. 1995; Bhatnagar et al. 2009). Pure: `vmap` it over keys.

    Every state and action leads to `branching` different states, drawn uniformly. Their probabilities are the lengths of the
    intervals into which uniform points divide the unit interval; r(s, a) ~ N(0, 1). Episodes start in a uniformly random
    state and never terminate.

    Args:
      key: consumed.
      num_states, num_actions: sizes.
      branching: at most `num_states`.

    Raises:
      ValueError: if a size is out of range.
      TypeError: if `key` is not a typed PRNG key, or a size not an int.

    >>> import jax
    >>> garnet_mdp(jax.random.key(0)).transition.shape
    (20, 4, 20)
    """
    check_key(key)
    num_states, num_actions = check_size("num_states", num_states), check_size("num_actions", num_actions)
    branching = check_size("branching", branching, maximum=num_states)
    place_key, share_key, reward_key = jax.random.split(key, 3)
    pairs = (num_states, num_actions)
    _, places = jax.lax.top_k(jax.random.uniform(place_key, (*pairs, num_states), jnp.float32), branching)
    shares = jax.random.exponential(share_key, (*pairs, branching), jnp.float32)
    probs = shares / jnp.sum(shares, axis=-1, keepdims=True)  # Dirichlet(1, …, 1), as of uniform points
    transition = jnp.sum(jax.nn.one_hot(places, num_states, dtype=jnp.float32) * probs[..., None], axis=-2)
    reward = jax.random.normal(reward_key, pairs, jnp.float32)
    return tabular_mdp(transition, reward, start=np.full(num_states, 1 / num_states))


def garnet(
    seed: int = 0, *, num_states: int = 20, num_actions: int = 4, branching: int = 3, max_steps_in_episode: int = 100
) -> Environment:
    """The environment of `garnet_mdp(jax.random.key(seed), ...)`.

    Args:
      seed: an int of at least 0 that selects the MDP.
      num_states, num_actions, branching: as for `garnet_mdp`.
      max_steps_in_episode: time limit in steps.

    Raises:
      ValueError, TypeError: as `garnet_mdp` and `tabular`.

    >>> garnet().observation_space.shape
    (20,)
    """
    key = jax.random.key(check_size("seed", seed, minimum=0))
    mdp = garnet_mdp(key, num_states, num_actions, branching)
    return tabular(mdp, max_steps_in_episode=max_steps_in_episode, name="Garnet")


def baird(*, max_steps_in_episode: int = 100) -> Environment:
    """Baird's counterexample with its features `[7, 8]` (Baird 1995; Sutton & Barto 2018, figure 11.1).

    Action 0 ("dashed") leads to one of the states 0 … 5, action 1 ("solid") to state 6; all rewards are 0, so every
    value is 0, which weights w = 0 represent: v(i) = 2 w_i + w_7 for i < 6, v(6) = w_6 + 2 w_7. Yet off-policy
    semi-gradient TD(0) diverges: target policy action 1, behaviour action 0 with 6/7, γ = 0.99, from
    w = (1, 1, 1, 1, 1, 1, 10, 1).

    Args:
      max_steps_in_episode: time limit in steps; the start is uniform.

    Raises:
      ValueError: if the limit is below 1.
      TypeError: if it is not an int.

    >>> baird().params.features[6].tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]
    """
    transition = np.zeros((7, 2, 7))
    transition[:, 0, :6] = 1 / 6
    transition[:, 1, 6] = 1
    mdp = tabular_mdp(transition, np.zeros((7, 2)), start=np.full(7, 1 / 7))
    features = np.c_[np.diag([2] * 6 + [1]), [1] * 6 + [2]]
    return tabular(mdp, max_steps_in_episode=max_steps_in_episode, features=features, name="Baird")
