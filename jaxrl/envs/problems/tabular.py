"""Finite Markov decision processes as arrays and as environments.

The arrays are the environment's parameters: `env.params.mdp` is what `jaxrl.dynamic_programming` solves exactly.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.types import Box, Discrete, Environment, Step


class TabularMDP(NamedTuple):
    """S states and A actions. The entries for terminal states in `transition` and `reward` are not used.

    If the reward depends on the successor, the environment pays that reward. The solvers use its expectation,
    r(s, a) = Σ_s' P(s'|s, a) r(s, a, s'), since values and optimal policies depend on nothing else.
    """

    transition: jax.Array  # P(s'|s, a), [S, A, S]
    reward: jax.Array  # r(s, a), [S, A]; or r(s, a, s'), [S, A, S]
    start: jax.Array  # distribution of the first state, [S]
    terminal: jax.Array  # bool [S]: reaching it ends the episode, and its value is 0


class Params(NamedTuple):
    """The fields are arrays and may be traced."""

    mdp: TabularMDP
    features: Any  # the observation of each state, [S, K]; None: one-hot
    max_steps_in_episode: Any


class State(NamedTuple):
    state: jax.Array  # int32
    time: jax.Array  # int32


def tabular_mdp(transition, reward, start=None, terminal=None) -> TabularMDP:
    """Checked arrays, as float32 (float64 where JAX is set to it).

    Args:
      transition: P(s'|s, a), `[S, A, S]`; `transition[s, a]` sums to 1, except for terminal states.
      reward: r(s, a), `[S, A]`, or r(s, a, s'), `[S, A, S]`; finite.
      start: distribution of the first state, `[S]`, 0 for terminal states; by default state 0.
      terminal: bool `[S]`; by default none is.

    Raises:
      ValueError: if a shape is wrong, a number not finite, or probabilities do not sum to 1. The values of tracers are not
        checked.

    >>> import numpy as np
    >>> mdp = tabular_mdp(transition=np.full((3, 2, 3), 1 / 3), reward=np.zeros((3, 2)))
    >>> mdp.start.tolist()
    [1.0, 0.0, 0.0]
    """
    shape = np.shape(transition)
    if len(shape) != 3 or shape[0] != shape[2] or 0 in shape:
        raise ValueError(f"transition must be P(s'|s, a), [S, A, S] with at least one of each; got {list(shape)}")
    num_states, num_actions, _ = shape
    start = np.eye(num_states)[0] if start is None else start
    terminal = np.zeros(num_states, bool) if terminal is None else terminal
    for name, value in (("start", start), ("terminal", terminal)):
        if np.shape(value) != (num_states,):
            raise ValueError(f"{name} must be [{num_states}], one entry for each state; got {list(np.shape(value))}")
    if np.shape(reward) not in ((num_states, num_actions), shape):
        raise ValueError(
            f"reward must be r(s, a), {[num_states, num_actions]}, or r(s, a, s'), {list(shape)}; got {list(np.shape(reward))}"
        )
    transition, reward, start = (jnp.asarray(x, float) for x in (transition, reward, start))
    mdp = TabularMDP(transition, reward, start, jnp.asarray(terminal, bool))
    if not any(isinstance(x, jax.core.Tracer) for x in mdp):
        _check_values(*(np.asarray(x) for x in mdp))
    return mdp


def _check_values(transition: np.ndarray, reward: np.ndarray, start: np.ndarray, terminal: np.ndarray) -> None:
    for name, values in (("transition", transition), ("reward", reward)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite; {name}{np.argwhere(~np.isfinite(values)).tolist()[0]} is not")
    wrong = (transition < 0).any(axis=-1) | ~np.isclose(transition.sum(axis=-1), 1, rtol=0, atol=1e-5)
    wrong &= ~terminal[:, None]
    if wrong.any():
        s, a = np.argwhere(wrong)[0]
        raise ValueError(
            f"transition[{s}, {a}] must be probabilities that sum to 1; they are between {transition[s, a].min():g} and "
            f"{transition[s, a].max():g} and sum to {transition[s, a].sum():g}"
        )
    if (start < 0).any() or not np.isclose(start.sum(), 1, rtol=0, atol=1e-5):
        raise ValueError(f"start must be probabilities that sum to 1; got a sum of {start.sum():g}")
    if (start[terminal] > 0).any():
        raise ValueError(f"start must be 0 for terminal states; state {np.argmax((start > 0) & terminal)} is one")


def tabular(mdp: TabularMDP, *, max_steps_in_episode: int = 100, features=None, name: str = "Tabular") -> Environment:
    """A tabular MDP as an environment: entering a terminal state terminates, the time limit truncates.

    Observations are one-hot float32, so that a linear network is a table. Its `params` are a record of arrays,
    `(mdp, features, max_steps_in_episode)`: replace and `vmap` them.

    Args:
      mdp: from `tabular_mdp`, or your own arrays, which are checked in the same way.
      max_steps_in_episode: time limit in steps.
      features: observations in place of one-hot ones, float `[S, K]`; states with equal features look the same.
      name: name of the environment.

    Raises:
      ValueError: as `tabular_mdp`; if the features have another shape, or the limit is below 1.
      TypeError: if the limit is not an int.

    >>> import jax, numpy as np
    >>> env = tabular(tabular_mdp(transition=np.eye(3)[[[1, 0], [2, 0], [2, 2]]], reward=np.ones((3, 2))))
    >>> state, obs = env.reset(jax.random.key(0), env.params)
    >>> env.step(jax.random.key(1), state, 0, env.params)[1].obs.tolist()
    [0.0, 1.0, 0.0]
    """
    mdp = tabular_mdp(*mdp)
    check_size("max_steps_in_episode", max_steps_in_episode)
    num_states, num_actions, _ = mdp.transition.shape
    space = Box(0.0, 1.0, (num_states,))
    if features is not None:
        if np.ndim(features) != 2 or len(features) != num_states:
            raise ValueError(f"features must be [{num_states}, K], one row for each state; got {list(np.shape(features))}")
        features = np.asarray(features, np.float32)
        space = Box(features.min(axis=0), features.max(axis=0), features.shape[1:])
        features = jnp.asarray(features)
    params = Params(mdp, features, max_steps_in_episode)
    return Environment(_reset, _step, params, space, Discrete(num_actions), name)


def _reset(key: jax.Array, params: Params) -> tuple[State, jax.Array]:
    state = State(_draw(key, params.mdp.start), jnp.int32(0))
    return state, _observe(state.state, params)


def _step(key: jax.Array, state: State, action: jax.Array, params: Params) -> tuple[State, Step]:
    mdp = params.mdp
    entered = _draw(key, mdp.transition[state.state, action])
    reward = mdp.reward[state.state, action]
    reward = reward[entered] if reward.ndim else reward
    terminated, time = mdp.terminal[entered], state.time + 1
    truncated = (time >= params.max_steps_in_episode) & ~terminated
    return State(entered, time), Step(_observe(entered, params), reward.astype(jnp.float32), terminated, truncated)


def _observe(state: jax.Array, params: Params) -> jax.Array:
    if params.features is None:
        return jax.nn.one_hot(state, params.mdp.start.shape[0], dtype=jnp.float32)
    return params.features[state]


def _draw(key: jax.Array, probs: jax.Array) -> jax.Array:
    """Draw an int32 index with the probabilities `probs` `[S]`, from one uniform number and the cumulative distribution.

    It is scaled by the sum of `probs`, which may round to less than 1, so that no index of probability 0 is drawn.
    """
    cumulative = jnp.cumsum(probs)
    uniform = jax.random.uniform(key, dtype=probs.dtype)
    return jnp.sum(cumulative <= uniform * cumulative[-1], dtype=jnp.int32)
