"""Wrappers that change observations.

In a `Dict` they change the entries that they support, and leave the other entries and the action mask unchanged.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import AT_LEAST_ZERO, check_number, check_size
from jaxrl.envs.wrappers._inner import (
    KEEP,
    OBSERVATION,
    carry_over_or_fresh,
    check_broadcast,
    choose_entries,
    entries,
    inner_time_limit,
    is_box,
    is_float_box,
    is_integer,
    keep_observation,
    map_entries,
    map_observations,
    one_hot_of,
    space_of,
)
from jaxrl.spaces import ACTION_MASK, num_choices, split_action_mask
from jaxrl.types import Box, Dict, Environment, EnvState, PyTree, Space

TIME_REMAINING = "time_remaining"


class FrameStack(NamedTuple):
    """State of `frame_stack`."""

    env: EnvState
    frames: PyTree  # the stacked observation


class NoiseParams(NamedTuple):
    """Parameters of `observation_noise`."""

    env: Any
    scale: Any  # standard deviation, [] or [*obs_shape]

    @property
    def max_steps_in_episode(self) -> Any:
        return inner_time_limit(self)


class TimeAware(NamedTuple):
    """State of `time_aware`."""

    env: EnvState
    time: jax.Array  # int32, steps since the episode began


def flatten(env: Environment) -> Environment:
    """Flatten observations to one vector `[n]`.

    Boxes are reshaped. Discrete and MultiDiscrete observations become one-hot. The entries of a `Dict` are concatenated in
    the order of their names, in their common dtype if they have one, otherwise as float32. An action mask stays a separate
    entry, so the observation becomes `{"action_mask": …, "observation": [n]}`.

    Raises:
      ValueError: if the observation has no entry except the action mask.

    >>> import jaxrl
    >>> flatten(jaxrl.make("Catch-bsuite")).observation_space.shape
    (50,)
    """
    rest, mask = split_action_mask(env.observation_space)
    tree = entries(rest)
    vectors = [_vector_space(space) for space in jax.tree.leaves(tree)]
    if not vectors:
        raise ValueError(f"flatten needs an entry besides the action mask, got {env.observation_space}: add one")
    dtypes = {space.dtype for space in vectors}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)
    low, high = (np.concatenate([np.asarray(getattr(v, name), dtype) for v in vectors]) for name in ("low", "high"))
    vector_space = Box(low, high, low.shape, dtype)

    def observe(obs):
        rest, mask = split_action_mask(obs)
        parts = jax.tree.leaves(jax.tree.map(_vector, tree, rest))
        vector = jnp.concatenate([part.astype(dtype) for part in parts])
        return vector if mask is None else {OBSERVATION: vector, ACTION_MASK: mask}

    space = vector_space if mask is None else Dict({OBSERVATION: vector_space, ACTION_MASK: mask})
    return map_observations(env, observe, space)


def _vector_space(space: Any) -> Box:
    if isinstance(space, Box):
        return Box(space.low.ravel(), space.high.ravel(), (space.low.size,), space.dtype)
    return Box(0, 1, (num_choices(space),))


def _vector(space: Space, obs: jax.Array) -> jax.Array:
    return obs.reshape(-1) if isinstance(space, Box) else one_hot_of(space, obs)


def one_hot(env: Environment) -> Environment:
    """Encode Discrete(n) observations as one-hot vectors, float32 `[n]`.

    MultiDiscrete observations become concatenated one-hot vectors, `[sum(nvec)]`. In a `Dict`, all such entries change.

    Raises:
      ValueError: if no observation is Discrete or MultiDiscrete.
    """
    fix = "do not use it here"
    chosen = choose_entries("one_hot", env, is_integer, "Discrete or MultiDiscrete observations", fix)
    space = map_entries(lambda space, _: Box(0, 1, (num_choices(space),)), chosen, entries(env.observation_space))
    return map_observations(env, lambda obs: map_entries(one_hot_of, chosen, obs), space_of(space))


def partial_observation(env: Environment, visible: Any) -> Environment:
    """Hide components of observations: where `visible` is False, they are 0. Shapes and dtypes do not change.

    For example, `[True, False, True, False]` hides CartPole's velocities, so that the task requires memory (Morad et al. 2023).

    Args:
      env: with observations in a Box, or a `Dict` with at least one.
      visible: bool, broadcast to `[*obs_shape]`. For a `Dict`, a dict with such a mask for each entry to hide components of,
        e.g. `{"goal": False}`; each entry must be a Box.

    Raises:
      ValueError: if the observations are not in a Box, a mask does not broadcast to them, or a name is not that of a Box.
      TypeError: if a mask is not boolean.
    """
    space = env.observation_space
    if not isinstance(space, Dict):
        choose_entries("partial_observation", env, is_box, "observations in a Box", "wrap the environment in one_hot first")
        mask, hidden = _visible("visible", visible, space)
        return map_observations(env, lambda obs: jnp.where(mask, obs, jnp.zeros_like(obs)), hidden)
    boxes = [name for name, entry in space.items() if is_box(entry) and name != ACTION_MASK]
    if not isinstance(visible, Mapping) or not set(visible) <= set(boxes):
        raise ValueError(
            f"partial_observation: visible must be a dict with some of the keys {', '.join(boxes)}, which are the entries of "
            f"{space} in a Box; got {visible!r}"
        )
    masks = {name: _visible(f"visible[{name!r}]", mask, space[name]) for name, mask in visible.items()}

    def hide(obs):
        return obs | {name: jnp.where(mask, obs[name], jnp.zeros_like(obs[name])) for name, (mask, _) in masks.items()}

    return map_observations(env, hide, Dict({**space} | {name: hidden for name, (_, hidden) in masks.items()}))


def _visible(name: str, visible: Any, space: Any) -> tuple[np.ndarray, Box]:
    """The mask as bool `[*obs_shape]`, and the space in which the hidden components are 0."""
    mask = np.asarray(visible)
    if mask.dtype != np.bool_:
        raise TypeError(f"partial_observation: {name} must be booleans, one for each component of {space}; got {visible!r}")
    check_broadcast(f"partial_observation: {name}", mask.shape, space)
    mask = np.broadcast_to(mask, space.shape)
    low, high = (np.where(mask, bound, np.zeros((), space.dtype)) for bound in (space.low, space.high))
    return mask, Box(low, high, space.shape, space.dtype)


def frame_stack(env: Environment, num_frames: int) -> Environment:
    """Concatenate the last N observations along their last axis, oldest first: `[..., C]` becomes `[..., N * C]`.

    Vectors stay vectors, images `[H, W, C]` stay images, and scalars become vectors (Mnih et al. 2015). At the start of an
    episode the stack holds N copies of the first observation, so it never contains a frame of another episode. In a `Dict`,
    every Box is stacked.

    Raises:
      ValueError: if no observation is in a Box, or `num_frames` is below 1.
      TypeError: if `num_frames` is not an int.
    """
    fix = "wrap the environment in one_hot first"
    chosen = choose_entries("frame_stack", env, is_box, "observations in a Box", fix)
    num_frames = check_size("num_frames", num_frames)

    def stack(obs):
        return map_entries(lambda _, x: jnp.concatenate([jnp.atleast_1d(x)] * num_frames, axis=-1), chosen, obs)

    def push(space, x, frames):
        return jnp.concatenate([frames[..., _channels(space) :], jnp.atleast_1d(x)], axis=-1)

    def reset(key, params):
        state, obs = env.reset(key, params)
        frames = stack(obs)
        return FrameStack(state, frames), frames

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params)
        frames = map_entries(push, chosen, after.obs, state.frames)
        return FrameStack(inside, frames), after._replace(obs=frames)

    def carry_over(old, fresh, frames):
        last = map_entries(lambda space, x: x[..., -_channels(space) :].reshape(space.shape), chosen, frames)
        state, obs = carry_over_or_fresh(env)(old.env, fresh.env, last)
        frames = stack(obs)
        return FrameStack(state, frames), frames

    def stacked(space, _):
        low, high = (np.concatenate([np.atleast_1d(bound)] * num_frames, axis=-1) for bound in (space.low, space.high))
        return Box(low, high, low.shape, space.dtype)

    return env._replace(
        reset=reset,
        step=step,
        observation_space=space_of(map_entries(stacked, chosen, entries(env.observation_space))),
        carry_over=None if env.carry_over is None else carry_over,
    )


def _channels(space: Box) -> int:
    return space.shape[-1] if space.shape else 1


def observation_noise(env: Environment, scale: Any) -> Environment:
    """Add independent N(0, scale²) noise to all observations; the state is not changed.

    The result has no bounds. The noise is drawn once for each observation, so the successor of a step equals the observation
    that the agent acts on next. In a `Dict`, noise is added to every Box of floats; apply `flatten` first to use a different
    scale for each.

    Args:
      env: with observations in a Box of floats, or a `Dict` with at least one.
      scale: standard deviation, broadcast to `[*obs_shape]`, or for a `Dict` to every entry. Becomes a field of `params`, and
        may be traced.

    Raises:
      ValueError: if no observation is in a Box of floats, or a scale is negative or does not broadcast.
    """
    fix = "wrap the environment in one_hot (Discrete) or normalize_observations (integers) first"
    chosen = choose_entries("observation_noise", env, is_float_box, "observations of floats", fix)
    scale = check_number("scale", scale, *AT_LEAST_ZERO)
    boxes = [space for space in jax.tree.leaves(chosen) if space is not KEEP]
    for space in boxes:
        check_broadcast("observation_noise: scale", scale.shape, space)
    ends = np.cumsum([space.low.size for space in boxes])
    inner = keep_observation(env)

    def add_noise(key, obs, params):
        noise = iter(jnp.split(jax.random.normal(key, (int(ends[-1]),), jnp.float32), ends[:-1]))

        def add(space, x):
            scaled = jnp.broadcast_to(params.scale, space.shape) * next(noise).reshape(space.shape)
            return x + scaled.astype(space.dtype)

        return map_entries(add, chosen, obs)

    def reset(key, params):
        key, noise_key = jax.random.split(key)
        state, obs = inner.reset(key, params.env)
        return state, add_noise(noise_key, obs, params)

    def step(key, state, action, params):
        key, noise_key = jax.random.split(key)
        state, after = inner.step(key, state, action, params.env)
        return state, after._replace(obs=add_noise(noise_key, after.obs, params))

    def carry_over(old, fresh, noisy):
        state, obs = carry_over_or_fresh(inner)(old, fresh, noisy)
        return state, map_entries(lambda _, x, noisy, plain: x + (noisy - plain), chosen, obs, noisy, fresh.obs)

    unbounded = map_entries(
        lambda space, _: Box(-np.inf, np.inf, space.shape, space.dtype), chosen, entries(env.observation_space)
    )
    return env._replace(
        reset=reset,
        step=step,
        params=NoiseParams(env.params, scale),
        observation_space=space_of(unbounded),
        carry_over=None if env.carry_over is None else carry_over,
    )


def time_aware(env: Environment) -> Environment:
    """Add the remaining share of the time limit to observations, from 1 to 0: vectors `[n]` become `[n + 1]`.

    A `Dict` gets the entry `"time_remaining"`, float32 `[1]`.

    If a time limit is part of the task, so that nothing can be earned after it, the value depends on the remaining time
    (Pardo et al. 2018, "time-awareness"). The flags do not change: the limit still truncates. If each episode draws its own
    limit, put this wrapper inside `randomize_params`.

    Raises:
      ValueError: if the observations are neither a vector of floats nor a `Dict`, the `Dict` already has such an entry, or
        the environment has no time limit.
    """
    space: Any = env.observation_space
    if isinstance(space, Dict):
        if TIME_REMAINING in space:
            raise ValueError(f"time_aware: the observations of {env.name} have an entry {TIME_REMAINING!r} already")
    elif not is_float_box(space) or len(space.shape) != 1:
        raise ValueError(f"time_aware needs a vector of floats, or a Dict, got {space}: wrap the environment in flatten first")
    if getattr(env.params, "max_steps_in_episode", None) is None:
        raise ValueError(f"time_aware: {env.name} has no params.max_steps_in_episode: wrap it in time_limit first")

    def join(obs, remaining):
        return obs | {TIME_REMAINING: remaining} if isinstance(obs, dict) else jnp.append(obs, remaining.astype(obs.dtype))

    def split(obs):
        if isinstance(obs, dict):
            return {name: obs[name] for name in space}, obs[TIME_REMAINING]
        return obs[:-1], obs[-1:]

    def remaining(time, params):
        passed = time.astype(jnp.float32) / jnp.asarray(params.max_steps_in_episode, jnp.float32)
        return jnp.maximum(1.0 - passed, 0.0)[None]

    def reset(key, params):
        state, obs = env.reset(key, params)
        return TimeAware(state, jnp.int32(0)), join(obs, remaining(jnp.int32(0), params))

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params)
        time = state.time + 1
        return TimeAware(inside, time), after._replace(obs=join(after.obs, remaining(time, params)))

    def carry_over(old, fresh, obs):
        fresh_obs, time = split(obs)
        state, inside = carry_over_or_fresh(env)(old.env, fresh.env, fresh_obs)
        return fresh._replace(env=state), join(inside, time)

    return env._replace(
        reset=reset,
        step=step,
        observation_space=_with_time(space),
        carry_over=None if env.carry_over is None else carry_over,
    )


def _with_time(space: Any) -> Space:
    if isinstance(space, Dict):
        return Dict({**space, TIME_REMAINING: Box(0, 1, (1,))})
    low, high = np.append(space.low, 0), np.append(space.high, 1)
    return Box(low, high, low.shape, space.dtype)
