"""Jumanji's combinatorial problems and games. Extra: `jaxrl[jumanji]`."""

import copy
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jumanji
import numpy as np
from jumanji import specs

from jaxrl.envs.suites.adapter import adapt, check_name, lenient, unbounded
from jaxrl.spaces import ACTION_MASK, Box, Dict, Discrete, MultiDiscrete, Space
from jaxrl.types import Environment

_NEVER = jnp.iinfo(jnp.int32).max
_UNAVAILABLE = {
    "Sokoban-v0": "it downloads its levels",
    "Connector-v3": "it has a reward for each of its agents",
    "LevelBasedForaging-v0": "it has a reward for each of its agents",
    "SearchAndRescue-v0": "it has a reward for each of its agents",
}


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(sorted(jumanji.registered_environments() - set(_UNAVAILABLE)))


def make(
    name: str, *, fields: Sequence[str] | None = None, max_steps_in_episode: int | None = None, **kwargs: Any
) -> Environment:
    """The Jumanji environment of that name.

    Args:
      name: e.g. "Snake-v1".
      fields: as for `from_jumanji`.
      max_steps_in_episode: Jumanji's `time_limit`, by default its own if it has one.
      kwargs: arguments of the environment's constructor, e.g. `num_rows=6`.

    Raises:
      ValueError: for an unknown name (with similar names), an environment that cannot work (with the reason), and as
        `from_jumanji`.
    """
    if name in _UNAVAILABLE:
        raise ValueError(f"jumanji/{name} cannot be used: {_UNAVAILABLE[name]}")
    check_name(name, names(), "jumanji")
    with lenient():
        env = jumanji.make(name, **kwargs)
        if max_steps_in_episode is not None and hasattr(env, "time_limit"):  # some sizes and bounds depend on it
            env = jumanji.make(name, **kwargs, time_limit=max_steps_in_episode)
    env = from_jumanji(env, fields=fields, max_steps_in_episode=max_steps_in_episode)
    return env._replace(name=f"jumanji/{name}")


def from_jumanji(env: Any, *, fields: Sequence[str] | None = None, max_steps_in_episode: int | None = None) -> Environment:
    """Wrap a bare Jumanji environment.

    Observations are dicts of the fields of Jumanji's record, nested like it. The field `action_mask` becomes the entry
    "action_mask", flattened to one axis; where no action is legal, as at the end of some games, all are marked as legal,
    so that there is always an action to choose.

    Actions of one number are Discrete. An action of several parts becomes

    - Discrete, numbered as by `numpy.ravel_multi_index`, if the mask is one of joint actions, `[n_1, ..., n_m]`;
    - MultiDiscrete if each component has its own mask, `[m, n]`;
    - without a mask, Discrete, or MultiDiscrete if an int32 cannot number all joint actions.

    Jumanji terminates an episode at its time limit; here that is a truncation, and `terminated` is set by the task only.

    Args:
      env: an environment with one reward a step.
      fields: the fields to observe, by default all. A single field is observed directly, not as a dict.
      max_steps_in_episode: by default the environment's own `time_limit`, if it has one.

    Raises:
      ValueError: for unknown fields (with the list), rewards of several agents, actions that are not integers from 0 on,
        and an action mask of another shape.
    """
    limit = getattr(env, "time_limit", None) if max_steps_in_episode is None else max_steps_in_episode
    with lenient():
        example = jax.eval_shape(env.reset, jax.random.key(0))[1]
        fields = _check_fields(example.observation, fields)
        action_space, to_parts = _actions(env.action_spec, getattr(example.observation, ACTION_MASK, None))
        space = _observation_space(example.observation, env.observation_spec, fields)
    if example.reward.shape != ():
        raise ValueError(
            f"{type(env).__name__} has rewards {list(example.reward.shape)}, one for each agent; jaxrl has one agent"
        )
    if hasattr(env, "time_limit"):
        env = copy.copy(env)
        env.time_limit = _NEVER
    joint = isinstance(action_space, Discrete)

    def observe(timestep):
        obs = _entries(timestep.observation, env.observation_spec, fields)
        if ACTION_MASK in obs:
            obs[ACTION_MASK] = _flat_mask(obs[ACTION_MASK], joint)
        return obs[fields[0]] if len(fields) == 1 else obs

    def reset(key, params):
        state, timestep = env.reset(key)
        return state, observe(timestep)

    def step(key, state, action, params):
        state, timestep = env.step(state, to_parts(action))
        return state, observe(timestep), timestep.reward, timestep.last() & (timestep.discount == 0)

    return adapt(type(env).__name__, reset, step, space, action_space, max_steps_in_episode=limit)


def _actions(spec: Any, mask: Any) -> tuple[Discrete | MultiDiscrete, Callable[[jax.Array], jax.Array]]:
    """The action space, and the function from its actions to Jumanji's."""
    if not isinstance(spec, specs.BoundedArray) or not np.issubdtype(spec.dtype, np.integer) or np.any(spec.minimum != 0):
        raise ValueError(f"actions must be integers from 0 on, got {spec}")
    sizes = tuple((np.broadcast_to(np.asarray(spec.maximum, np.int64), spec.shape) + 1).ravel().tolist())

    def shaped(parts):
        return parts.reshape(spec.shape).astype(spec.dtype)

    if mask is not None and mask.shape != sizes:
        if not spec.shape or mask.shape[:-1] != spec.shape:
            raise ValueError(f"an action mask {list(mask.shape)} does not fit the actions {spec}")
        return MultiDiscrete((mask.shape[-1],) * len(sizes)), shaped  # MultiCVRP's spec counts one action too many
    if mask is None and math.prod(sizes) > _NEVER:
        return MultiDiscrete(sizes), shaped
    return Discrete(math.prod(sizes)), lambda action: shaped(jnp.stack(jnp.unravel_index(action, sizes)))


def _flat_mask(mask: jax.Array, joint: bool) -> jax.Array:
    """The mask on one axis. Where no action is legal, or in one of the parts `[m, n]` of an action, all are marked as legal."""
    choices = mask.ravel() if joint else mask
    return (choices | ~choices.any(axis=-1, keepdims=True)).ravel()


def _field_names(record: Any) -> tuple[str, ...]:
    return getattr(record, "_fields", None) or tuple(f.name for f in dataclasses.fields(record))


def _check_fields(observation: Any, fields: Sequence[str] | None) -> Sequence[str]:
    known = _field_names(observation)
    if fields is not None and (isinstance(fields, str) or not fields or set(fields) - set(known)):
        raise ValueError(f"fields must be some of {known}, got {fields!r}")
    return known if fields is None else fields


def _entries(tree: Any, spec: Any, names: Sequence[str] | None = None) -> Any:
    """Convert a record, including nested records, to a dict of its fields; an array is returned unchanged."""
    if isinstance(spec, specs.Array):
        return tree
    return {name: _entries(getattr(tree, name), spec[name]) for name in names or _field_names(tree)}


def _observation_space(observation: Any, spec: Any, fields: Sequence[str]) -> Space:
    space: Any = _space(observation, spec, fields)
    if ACTION_MASK in space:
        space = Dict({**space, ACTION_MASK: Box(False, True, (math.prod(space[ACTION_MASK].shape),), np.bool_)})
    return space[fields[0]] if len(fields) == 1 else space


def _space(tree: Any, spec: Any, names: Sequence[str] | None = None) -> Any:
    if isinstance(spec, specs.Array):
        return _box(tree, spec)
    return Dict({name: _space(getattr(tree, name), spec[name]) for name in names or _field_names(tree)})


def _box(leaf: Any, spec: Any) -> Space:
    low, high = getattr(spec, "minimum", None), getattr(spec, "maximum", None)
    if low is None or high is None:
        return unbounded(leaf)
    if isinstance(spec, specs.DiscreteArray):  # omits values that occur: an index of -1 for "none yet", a count of n at the end
        low, high = low - 1, high + 1
    return Box(low, high, leaf.shape, leaf.dtype)
