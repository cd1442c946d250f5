"""Wrappers that change what is observed."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import AT_LEAST_ZERO, check_number, check_size
from jaxrl.envs.wrappers._inner import check_broadcast, limit_inside, map_observations, observed_box, recall, renewal
from jaxrl.types import Box, Discrete, Environment, EnvState


class FrameStack(NamedTuple):
    """State of `frame_stack`."""

    env: EnvState
    frames: jax.Array  # the stacked observation


class NoiseParams(NamedTuple):
    """Parameters of `observation_noise`."""

    env: Any
    scale: Any  # standard deviation, [] or [*obs_shape]

    @property
    def max_steps_in_episode(self) -> Any:
        return limit_inside(self)


class TimeAware(NamedTuple):
    """State of `time_aware`."""

    env: EnvState
    time: jax.Array  # int32, steps since the episode began


def flatten(env: Environment) -> Environment:
    """Observations `[*obs_shape]` of a Box as one axis `[prod(obs_shape)]`; everything else as it was.

    Raises:
      ValueError: where the observations are not a Box.

    >>> import jaxrl
    >>> flatten(jaxrl.make("Catch-bsuite")).observation_space.shape
    (50,)
    """
    space = observed_box("flatten", env)
    size = math.prod(space.shape)
    low, high = (np.reshape(bound, size) for bound in (space.low, space.high))
    return map_observations(env, lambda obs: obs.reshape(size), Box(low, high, (size,), space.dtype))


def one_hot(env: Environment) -> Environment:
    """Observations of Discrete(n) as float32 `[n]`, 1 at the number observed and 0 elsewhere.

    Raises:
      ValueError: where the observations are not Discrete.
    """
    space = env.observation_space
    if not isinstance(space, Discrete):
        raise ValueError(f"one_hot needs Discrete observations, got {space}: leave it out")
    return map_observations(env, lambda obs: jax.nn.one_hot(obs, space.n, dtype=jnp.float32), Box(0, 1, (space.n,)))


def partial_observation(env: Environment, visible: Any) -> Environment:
    """Hide components: where `visible` is False, the observation reads 0. Shape and dtype stay.

    CartPole without its velocities, which asks for memory (Morad et al. 2023), is `[True, False, True, False]`.

    Args:
      env: with observations in a Box.
      visible: bool, broadcast to `[*obs_shape]`.

    Raises:
      ValueError: where the observations are not a Box, or the mask does not broadcast to them.
      TypeError: where the mask is not of bools.
    """
    space = observed_box("partial_observation", env)
    mask = np.asarray(visible)
    if mask.dtype != np.bool_:
        raise TypeError(f"partial_observation: visible must be booleans, one for each component of {space}; got {visible!r}")
    check_broadcast("partial_observation: visible", mask.shape, space)
    mask = np.broadcast_to(mask, space.shape)
    low, high = (np.where(mask, bound, np.zeros((), space.dtype)) for bound in (space.low, space.high))
    return map_observations(env, lambda obs: jnp.where(mask, obs, jnp.zeros_like(obs)), Box(low, high, space.shape, space.dtype))


def frame_stack(env: Environment, num_frames: int) -> Environment:
    """The last observations, oldest first, joined along their last axis (Mnih et al. 2015): `[..., C]` becomes `[..., N * C]`.

    So vectors stay vectors, images `[H, W, C]` stay images, and a scalar becomes a vector. An episode begins with its first
    observation in every place: there is no frame of another episode in any stack.

    Raises:
      ValueError, TypeError: where the observations are not a Box, or `num_frames` is not a positive int.
    """
    space = observed_box("frame_stack", env)
    num_frames = check_size("num_frames", num_frames)
    channels = space.shape[-1] if space.shape else 1

    def stack(obs):
        return jnp.concatenate([jnp.atleast_1d(obs)] * num_frames, axis=-1)

    def reset(key, params):
        state, obs = env.reset(key, params)
        frames = stack(obs)
        return FrameStack(state, frames), frames

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params)
        frames = jnp.concatenate([state.frames[..., channels:], jnp.atleast_1d(after.obs)], axis=-1)
        return FrameStack(inside, frames), after._replace(obs=frames)

    def carry_over(old, fresh, frames):
        state, obs = renewal(env)(old.env, fresh.env, frames[..., -channels:].reshape(space.shape))
        frames = stack(obs)
        return FrameStack(state, frames), frames

    low, high = (np.concatenate([np.atleast_1d(bound)] * num_frames, axis=-1) for bound in (space.low, space.high))
    stacked = Box(low, high, low.shape, space.dtype)
    return env._replace(
        reset=reset, step=step, observation_space=stacked, carry_over=None if env.carry_over is None else carry_over
    )


def observation_noise(env: Environment, scale: Any) -> Environment:
    """Observations plus independent N(0, scale²), from the first of an episode on; what happens inside is untouched.

    The noise leaves every bound, so the space has none. It is drawn once for an observation: the successor of a step is
    the observation acted on next.

    Args:
      env: with observations in a Box of floats.
      scale: standard deviation, broadcast to `[*obs_shape]`; a field of `params`, traced.

    Raises:
      ValueError: where the observations are no Box of floats, or a scale is negative or does not broadcast.
    """
    space = observed_box("observation_noise", env, floats=True)
    scale = check_number("scale", scale, *AT_LEAST_ZERO)
    check_broadcast("observation_noise: scale", scale.shape, space)
    inner = recall(env)

    def blur(key, obs, params):
        noise = jnp.broadcast_to(params.scale, space.shape) * jax.random.normal(key, space.shape)
        return obs + noise.astype(space.dtype)

    def reset(key, params):
        key, noise_key = jax.random.split(key)
        state, obs = inner.reset(key, params.env)
        return state, blur(noise_key, obs, params)

    def step(key, state, action, params):
        key, noise_key = jax.random.split(key)
        state, after = inner.step(key, state, action, params.env)
        return state, after._replace(obs=blur(noise_key, after.obs, params))

    def carry_over(old, fresh, noisy):
        state, obs = renewal(inner)(old, fresh, noisy)
        return state, obs + (noisy - fresh.obs)

    return env._replace(
        reset=reset,
        step=step,
        params=NoiseParams(env.params, scale),
        observation_space=Box(-np.inf, np.inf, space.shape, space.dtype),
        carry_over=None if env.carry_over is None else carry_over,
    )


def time_aware(env: Environment) -> Environment:
    """Observations `[n]` with the share of the time limit that remains, from 1 to 0, as one number more: `[n + 1]`.

    Where a time limit is a part of the task, and its end is worth nothing, the value depends on the time that remains
    (Pardo et al. 2018, "time-awareness"). The flags stay as they are: the limit still truncates. Where each episode draws
    its own limit, put this inside `randomize_params`.

    Raises:
      ValueError: where the observations are no vector of floats, or the environment has no time limit.
    """
    space = observed_box("time_aware", env, floats=True)
    if len(space.shape) != 1:
        raise ValueError(f"time_aware needs observations of one axis, got {space}: wrap the environment in flatten first")
    if getattr(env.params, "max_steps_in_episode", None) is None:
        raise ValueError(f"time_aware: {env.name} has no params.max_steps_in_episode: wrap it in time_limit first")

    def observe(obs, time, params):
        passed = time.astype(jnp.float32) / jnp.asarray(params.max_steps_in_episode, jnp.float32)
        return jnp.append(obs, jnp.maximum(1.0 - passed, 0.0).astype(space.dtype))

    def reset(key, params):
        state, obs = env.reset(key, params)
        return TimeAware(state, jnp.int32(0)), observe(obs, jnp.int32(0), params)

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params)
        time = state.time + 1
        return TimeAware(inside, time), after._replace(obs=observe(after.obs, time, params))

    def carry_over(old, fresh, obs):
        state, inside = renewal(env)(old.env, fresh.env, obs[:-1])
        return fresh._replace(env=state), jnp.append(inside, obs[-1])

    low, high = np.append(space.low, 0), np.append(space.high, 1)
    return env._replace(
        reset=reset,
        step=step,
        observation_space=Box(low, high, low.shape, space.dtype),
        carry_over=None if env.carry_over is None else carry_over,
    )
