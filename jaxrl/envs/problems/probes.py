"""Probes: tiny environments with known answers, in an order that tells where an agent is wrong.

Each asks for one thing more than those before it: the first whose answer an agent does not learn names the bug. Train
with the probe's discount; compare action values with `q` at `obs`, a state value with `max_a q`. Linear networks
can represent every answer but the last, which takes a policy that remembers.

>>> probe = PROBES["discounting"]()
>>> probe.discount, probe.obs.tolist(), probe.q.tolist()
(0.5, [[0.0], [1.0]], [[0.5], [1.0]])
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxrl.envs.problems.tabular import tabular, tabular_mdp
from jaxrl.types import Environment


class Probe(NamedTuple):
    """An environment and what is to be learned in it. Every optimal action has the largest q of its row."""

    env: Environment
    discount: float
    obs: np.ndarray  # the observations that determine what follows, [N, K]
    q: np.ndarray  # the optimal values of the actions there, [N, A]


def constant_value() -> Probe:
    """One step, one action, reward 1: the value is 1. Fails where the loss, the optimizer or the head is wrong."""
    env = _one_step(rewards=[[1]], features=[[1]])
    return _probe("constant value", env, 0.5, obs=[[1]], q=[[1]])


def value_of_observation() -> Probe:
    """One step, one action, the reward is the observation, ±1. Fails where the observation does not reach the value."""
    env = _one_step(rewards=[[1], [-1]], features=[[1], [-1]])
    return _probe("value of the observation", env, 0.5, obs=[[1], [-1]], q=[[1], [-1]])


def discounting() -> Probe:
    """Two steps, reward 1 on the second: values γ and 1. Fails where the successor's value or its discount is wrong."""
    moves = {(0, 0): 1, (1, 0): 2}
    env = _deterministic(moves, rewards=[[0], [1], [0]], features=[[0], [1], [-1]], terminal=[2], max_steps=2)
    return _probe("discounting", env, 0.5, obs=[[0], [1]], q=[[0.5], [1]])


def action() -> Probe:
    """One step, two actions of reward ∓1. Fails where values or advantages go to the wrong action."""
    env = _one_step(rewards=[[-1, 1]], features=[[1]])
    return _probe("action", env, 0.5, obs=[[1]], q=[[-1, 1]])


def action_and_observation() -> Probe:
    """One step, two actions; the observation, ±1, says which of them pays 1 and which −1.

    Fails where the policy does not see what the value sees, or values of actions are not of this observation.
    """
    env = _one_step(rewards=[[1, -1], [-1, 1]], features=[[1], [-1]])
    return _probe("action and observation", env, 0.5, obs=[[1], [-1]], q=[[1, -1], [-1, 1]])


def reset_leakage() -> Probe:
    """Reward 1 on the first step; then nothing, cut by the clock after the second. Values 1 and 0.

    Fails where a value is bootstrapped from the observation of the next episode: the second would be γ / (1 − γ²) = ⅔.
    """
    moves = {(0, 0): 1, (1, 0): 1}
    env = _deterministic(moves, rewards=[[1], [0]], features=[[1, 0], [0, 1]], max_steps=2)
    return _probe("reset leakage", env, 0.5, obs=[[1, 0], [0, 1]], q=[[1], [0]])


def truncation() -> Probe:
    """One step of reward 1, and the observation says what ends it: at [1, 0] the task, at [0, 1] the clock.

    Without the clock one would stay at [0, 1], so its value is 1 / (1 − γ) = 2, and the other's is 1. Fails where
    the flags are mixed up: both are 1 if each stops the bootstrapping, both 2 if neither does.
    """
    moves = {(0, 0): 2, (1, 0): 1}
    features = [[1, 0], [0, 1], [1, 0]]
    env = _deterministic(moves, rewards=[[1], [1], [0]], features=features, terminal=[2], max_steps=1, start=[0.5, 0.5, 0])
    return _probe("truncation", env, 0.5, obs=[[1, 0], [0, 1]], q=[[1], [2]])


def memory(delay: int = 2) -> Probe:
    """The first observation is a cue, ±1; after `delay` blank ones, the action that it named pays 1, the other −1.

    What was named is known at the start, so the value there is γ^delay for an agent that remembers; one that does not
    gets 0 on average. Fails where what a policy carries is lost, mixed between environments, or kept after a reset.
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


def _one_step(rewards, features) -> Environment:
    """A state of `rewards` `[S, A]` and `features` `[S, K]`, drawn uniformly, is left for the end."""
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
