"""Probes: tiny environments with known answers that show where an agent is wrong.

`PROBES` are ordered: each requires one more thing than the previous ones, and the first probe that an agent fails names the
bug. `SPACE_PROBES` test action masks, observations in a Dict and MultiDiscrete actions. Train with the probe's discount, and
compare action values with `q` at `obs`, or a state value with `max_a q`. Linear networks can represent every answer except
that of "memory", which needs a recurrent policy.

>>> probe = PROBES["discounting"]()
>>> probe.discount, probe.obs.tolist(), probe.q.tolist()
(0.5, [[0.0], [1.0]], [[0.5], [1.0]])
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.envs.problems.tabular import tabular, tabular_mdp
from jaxrl.envs.wrappers._inner import map_observations
from jaxrl.types import Box, Dict, Environment, MultiDiscrete, PyTree, Space


class Probe(NamedTuple):
    """An environment, and what an agent must learn in it. The optimal actions are those with the largest q."""

    env: Environment
    discount: float
    obs: PyTree  # the N observations that determine what follows, leaves [N, ...]
    q: np.ndarray  # the optimal values of the actions there, [N, A]; -inf where an action is illegal


def constant_value() -> Probe:
    """One step, one action, reward 1: the value is 1. Fails if the loss, the optimizer or the head is wrong."""
    env = _one_step(rewards=[[1]], features=[[1]])
    return _probe("constant value", env, 0.5, obs=[[1]], q=[[1]])


def value_of_observation() -> Probe:
    """One step, one action, the reward is the observation, ±1. Fails if the value does not depend on the observation."""
    env = _one_step(rewards=[[1], [-1]], features=[[1], [-1]])
    return _probe("value of the observation", env, 0.5, obs=[[1], [-1]], q=[[1], [-1]])


def discounting() -> Probe:
    """Two steps, reward 1 on the second: values γ and 1. Fails if the successor's value or its discount is wrong."""
    moves = {(0, 0): 1, (1, 0): 2}
    env = _deterministic(moves, rewards=[[0], [1], [0]], features=[[0], [1], [-1]], terminal=[2], max_steps=2)
    return _probe("discounting", env, 0.5, obs=[[0], [1]], q=[[0.5], [1]])


def action() -> Probe:
    """One step, two actions of reward ∓1. Fails if values or advantages are credited to the wrong action."""
    env = _one_step(rewards=[[-1, 1]], features=[[1]])
    return _probe("action", env, 0.5, obs=[[1]], q=[[-1, 1]])


def action_and_observation() -> Probe:
    """One step, two actions; the observation, ±1, says which of them pays 1 and which −1.

    Fails if the policy does not depend on the observation, or action values are not those of this observation.
    """
    env = _one_step(rewards=[[1, -1], [-1, 1]], features=[[1], [-1]])
    return _probe("action and observation", env, 0.5, obs=[[1], [-1]], q=[[1, -1], [-1, 1]])


def reset_leakage() -> Probe:
    """Reward 1 on the first step, then 0; the time limit truncates after the second. Values 1 and 0.

    Fails if a value is bootstrapped from the first observation of the next episode: the second would be γ / (1 − γ²) = ⅔.
    """
    moves = {(0, 0): 1, (1, 0): 1}
    env = _deterministic(moves, rewards=[[1], [0]], features=[[1, 0], [0, 1]], max_steps=2)
    return _probe("reset leakage", env, 0.5, obs=[[1, 0], [0, 1]], q=[[1], [0]])


def truncation() -> Probe:
    """One step of reward 1. The observation shows how it ends: [1, 0] terminates, [0, 1] is truncated by the time limit.

    Without the limit the state would stay at [0, 1], so its value is 1 / (1 − γ) = 2, and the other's is 1. Fails if
    the flags are confused: both are 1 if each stops the bootstrapping, both 2 if neither does.
    """
    moves = {(0, 0): 2, (1, 0): 1}
    features = [[1, 0], [0, 1], [1, 0]]
    env = _deterministic(moves, rewards=[[1], [1], [0]], features=features, terminal=[2], max_steps=1, start=[0.5, 0.5, 0])
    return _probe("truncation", env, 0.5, obs=[[1, 0], [0, 1]], q=[[1], [2]])


def memory(delay: int = 2) -> Probe:
    """The first observation is a cue, ±1; after `delay` observations of 0, the action named by the cue pays 1, the other −1.

    The value at the cue is γ^delay for an agent that remembers; one that does not gets 0 on average. Fails if the recurrent
    state of a policy is lost, mixed up between environments, or kept after a reset.
    """
    end = 2 * (delay + 1)  # states 2 t + cue, then the end
    moves = {(state, a): min(state + 2, end) for state in range(end) for a in (0, 1)}
    rewards = np.zeros((end + 1, 2))
    rewards[end - 2 : end] = [[1, -1], [-1, 1]]
    features = np.zeros((end + 1, 1))
    features[:2] = [[1], [-1]]
    start = np.arange(end + 1) < 2
    env = _deterministic(moves, rewards, features, terminal=[end], max_steps=delay + 1, start=start / 2)
    return _probe("memory", env, 0.5, obs=[[1], [-1]], q=np.full((2, 2), 0.5**delay))


PROBES: dict[str, Callable[[], Probe]] = {
    "constant value": constant_value,
    "value of the observation": value_of_observation,
    "discounting": discounting,
    "action": action,
    "action and observation": action_and_observation,
    "reset leakage": reset_leakage,
    "truncation": truncation,
    "memory": memory,
}


def action_mask() -> Probe:
    """Two steps, three actions: 0 and 1 are legal in the first, 1 and 2 in the second. An illegal action pays −10 and ends.

    The vector is [1, t] at step t. Only action 0 in the first step pays, 1, and only action 2 in the second, 0.5. So every
    negative reward shows that an agent took an illegal action. One that bootstraps from illegal actions too takes the
    value of action 0 from the first step for the second, and learns about 1 / (1 − γ) = 2 in place of 1.25.
    """
    legal = np.array([[True, True, False], [False, True, True]])
    rewards = np.where(legal, [[1.0, 0.0, 0.0], [0.0, 0.0, 0.5]], -10.0)
    moves = {(0, 0): 1, (0, 1): 1, (0, 2): 2} | {(1, a): 2 for a in range(3)}
    env = _deterministic(moves, np.r_[rewards, np.zeros((1, 3))], np.eye(3, 2), terminal=[2], max_steps=2)
    obs = {"vector": np.array([[1, 0], [1, 1]], np.float32), "action_mask": legal}
    space = Dict({"vector": Box(0, 1, (2,)), "action_mask": Box(False, True, (3,), np.bool_)})
    q = np.where(legal, [[1.25, 0.25, 0], [0, 0, 0.5]], -np.inf)
    return _probe_of("action mask", _observe(env, obs, space), obs, q)


def dict_observation() -> Probe:
    """One step, two actions. Action 0 pays what the image shows, ±1, plus the vector, ±1; action 1 pays 1.

    The image, uint8 `[4, 4, 1]`, is 255 in its upper half for 1 and in its lower half for −1. Only where both are 1 is action 0
    the better one: the best return is 1.25 on average, and 1 for a policy that ignores the image or the vector.
    """
    shown, vector = np.array([[1, 1, -1, -1], [1, -1, 1, -1]], np.float32)
    q = np.stack([shown + vector, np.ones(4)], axis=1)
    upper = np.arange(4)[:, None, None] < 2
    image = np.where(upper == (shown > 0).reshape(4, 1, 1, 1), 255, 0) * np.ones((4, 1), int)
    obs = {"image": image.astype(np.uint8), "vector": vector[:, None]}
    space = Dict({"image": Box(0, 255, (4, 4, 1), np.uint8), "vector": Box(-1, 1, (1,))})
    return _probe_of("Dict observation", _observe(_one_step(q, np.eye(4)), obs, space), obs, q)


def multi_discrete_action() -> Probe:
    """One step, actions in MultiDiscrete(2, 3). The reward is the observation, ±1, times `[0, 1][a₀] + [0, 0.5, −1][a₁]`.

    The best actions are (1, 1) at 1, which pays 1.5, and (0, 2) at −1, which pays 1. `q` has a column for each combination,
    a₁ varying fastest. Fails if the components of an action are confused.
    """
    pays = (np.array([0, 1])[:, None] + np.array([0, 0.5, -1])).ravel()
    q = np.stack([pays, -pays])
    env = _one_step(q, features=[[1], [-1]])

    def step(key, state, action, params):
        return env.step(key, state, 3 * action[0] + action[1], params)

    probe = _probe("MultiDiscrete action", env, 0.5, obs=[[1], [-1]], q=q)
    return probe._replace(env=probe.env._replace(step=step, action_space=MultiDiscrete((2, 3))))


SPACE_PROBES: dict[str, Callable[[], Probe]] = {
    "action mask": action_mask,
    "Dict observation": dict_observation,
    "MultiDiscrete action": multi_discrete_action,
}


def _observe(env: Environment, obs: PyTree, space: Space) -> Environment:
    """Replace the one-hot observations of an environment by `obs`, leaves `[S, ...]`.

    The terminal state, whose features are 0, shows the first one: no action is taken there, and no value bootstrapped from it.
    """

    def observe(one_hot):
        state = jnp.argmax(one_hot)
        return jax.tree.map(lambda x: jnp.asarray(x)[state], obs)

    return map_observations(env, observe, space)


def _probe_of(name: str, env: Environment, obs: PyTree, q: Any) -> Probe:
    return Probe(env._replace(name=f"probe: {name}"), 0.5, obs, np.asarray(q, np.float32))


def _one_step(rewards, features) -> Environment:
    """Episodes of one step from a random state, with `rewards` `[S, A]` and `features` `[S, K]`; those of the end are 0."""
    num_states, num_actions = np.shape(rewards)
    moves = {(s, a): num_states for s in range(num_states) for a in range(num_actions)}
    end = np.zeros((1, num_actions)), np.zeros((1, np.shape(features)[1]))
    start = np.arange(num_states + 1) < num_states
    return _deterministic(
        moves,
        rewards=np.r_[rewards, end[0]],
        features=np.r_[features, end[1]],
        terminal=[num_states],
        max_steps=1,
        start=start / num_states,
    )


def _deterministic(moves, rewards, features, *, max_steps: int, terminal=(), start=None) -> Environment:
    """Action a leads from s to `moves[s, a]`; `rewards` `[S, A]`, `features` `[S, K]`."""
    num_states, num_actions = np.shape(rewards)
    transition = np.zeros((num_states, num_actions, num_states))
    for (s, a), entered in moves.items():
        transition[s, a, entered] = 1
    mdp = tabular_mdp(transition, rewards, start, np.isin(np.arange(num_states), terminal))
    return tabular(mdp, max_steps_in_episode=max_steps, features=features)


def _probe(name: str, env: Environment, discount: float, obs, q) -> Probe:
    return Probe(env._replace(name=f"probe: {name}"), discount, np.asarray(obs, np.float32), np.asarray(q, np.float32))
