"""Observations for recurrent agents."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl.envs.wrappers._inner import OBSERVATION, carry_over_or_fresh, is_integer, keep_observation, one_hot_of
from jaxrl.spaces import num_choices
from jaxrl.types import Box, Dict, Environment, Space

PREVIOUS_ACTION, PREVIOUS_REWARD = "previous_action", "previous_reward"


def previous_action_and_reward(env: Environment) -> Environment:
    """Add the last action and reward to observations; both are zero at the start of an episode.

    Recurrent agents often take them as inputs (Mirowski et al. 2017; Duan et al. 2016; Kapturowski et al. 2019). The action is
    one-hot for Discrete and MultiDiscrete spaces, `[sum(nvec)]`, and a float32 vector for a Box. It is the action that this
    wrapper receives: put `sticky_actions` outside to observe the executed one. The reward is that of the inner environment: put
    wrappers such as `clip_rewards` inside to observe the changed reward.

    A float32 vector `[n]` becomes `[n + A + 1]`: observation, action, reward. A `Dict` gets the entries
    `"previous_action"` `[A]` and `"previous_reward"` `[1]`. Any other observation becomes the entry `"observation"` of such
    a `Dict`.

    Raises:
      ValueError: if a `Dict` already has one of these entries.
    """
    space, action_space = env.observation_space, env.action_space
    if isinstance(space, Dict) and (taken := {PREVIOUS_ACTION, PREVIOUS_REWARD} & set(space)):
        names = ", ".join(map(repr, sorted(taken)))
        raise ValueError(f"previous_action_and_reward: the observations of {env.name} have an entry {names} already")
    action_box, reward_box = _action_box(action_space), Box(-np.inf, np.inf, (1,))
    env = keep_observation(env)

    def join(obs, action, reward):
        if isinstance(space, Box) and space.dtype == np.float32 and len(space.shape) == 1:
            return jnp.concatenate([obs, action, reward])
        obs = obs if isinstance(space, Dict) else {OBSERVATION: obs}
        return obs | {PREVIOUS_ACTION: action, PREVIOUS_REWARD: reward}

    def start(obs):
        return join(obs, jnp.zeros(action_box.shape, jnp.float32), jnp.zeros(1, jnp.float32))

    def reset(key, params):
        state, obs = env.reset(key, params)
        return state, start(obs)

    def step(key, state, action, params):
        state, after = env.step(key, state, action, params)
        shown = one_hot_of(action_space, action) if is_integer(action_space) else jnp.ravel(action).astype(jnp.float32)
        return state, after._replace(obs=join(after.obs, shown, after.reward[None]))

    def carry_over(old, fresh, obs):
        state, obs = carry_over_or_fresh(env)(old, fresh, obs)
        return state, start(obs)

    return env._replace(
        reset=reset,
        step=step,
        observation_space=_joined_space(space, action_box, reward_box),
        carry_over=None if env.carry_over is None else carry_over,
    )


def _action_box(space: Any) -> Box:
    """The space of the previous action, extended to contain 0, which means that there is none."""
    if is_integer(space):
        return Box(0, 1, (num_choices(space),))
    low, high = np.minimum(space.low, 0).ravel(), np.maximum(space.high, 0).ravel()
    return Box(low, high, low.shape)


def _joined_space(space: Space, action: Box, reward: Box) -> Space:
    if isinstance(space, Box) and space.dtype == np.float32 and len(space.shape) == 1:
        low, high = (np.concatenate([getattr(box, name) for box in (space, action, reward)]) for name in ("low", "high"))
        return Box(low, high, low.shape)
    rest = {**space} if isinstance(space, Dict) else {OBSERVATION: space}
    return Dict(rest | {PREVIOUS_ACTION: action, PREVIOUS_REWARD: reward})
