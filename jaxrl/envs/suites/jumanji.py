"""Jumanji's combinatorial problems and games. Extra: `jaxrl[jumanji]`."""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jumanji
import numpy as np
from jumanji import specs

from jaxrl.envs.suites.adapter import adapt, check_name, lenient, unbounded
from jaxrl.types import Box, Discrete, Environment

_NEVER = jnp.iinfo(jnp.int32).max
_UNAVAILABLE = {
    "Sokoban-v0": "it downloads its levels",
    "Connector-v3": "it rewards each of its agents by itself",
    "LevelBasedForaging-v0": "it rewards each of its agents by itself",
    "SearchAndRescue-v0": "it rewards each of its agents by itself",
    "JobShop-v0": "its machines act together, in more ways than an int32 can number",
}


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(sorted(jumanji.registered_environments() - set(_UNAVAILABLE)))


def make(
    name: str, *, fields: Sequence[str] | None = None, max_steps_in_episode: int | None = None, **kwargs: Any
) -> Environment:
    """Jumanji's environment of that name.

    Args:
      name: e.g. "Snake-v1".
      fields: as for `from_jumanji`.
      max_steps_in_episode: what Jumanji calls time_limit, by default its own, if it has one.
      kwargs: of the environment's constructor, e.g. `num_rows=6`.

    Raises:
      ValueError: for an unknown name (with the nearest ones), one that cannot work (with the reason), and as
        `from_jumanji`.
    """
    if name in _UNAVAILABLE:
        raise ValueError(f"jumanji/{name} cannot be used: {_UNAVAILABLE[name]}")
    check_name(name, names(), "jumanji")
    with lenient():
        env = jumanji.make(name, **kwargs)
        if max_steps_in_episode is not None and hasattr(env, "time_limit"):  # some sizes and bounds follow it
            env = jumanji.make(name, **kwargs, time_limit=max_steps_in_episode)
    env = from_jumanji(env, fields=fields, max_steps_in_episode=max_steps_in_episode)
    return env._replace(name=f"jumanji/{name}")


def from_jumanji(env: Any, *, fields: Sequence[str] | None = None, max_steps_in_episode: int | None = None) -> Environment:
    """Wrap a bare Jumanji environment.

    Its observations are records. One field gives its array as it is; several are joined into one float32
    vector, in the order of the record, action mask and all. Actions of several parts become one Discrete
    number, as `numpy.ravel_multi_index` counts. Jumanji says that an episode terminates at its time limit;
    here that is a truncation, and `terminated` is what the game ended by itself.

    Args:
      env: with one reward a step.
      fields: of the observation, by default all.
      max_steps_in_episode: by default its own `time_limit`, if it has one.

    Raises:
      ValueError: for fields it does not have (with the list), rewards of several agents, actions that are
        no integers or that an int32 cannot number.
    """
    limit = getattr(env, "time_limit", None) if max_steps_in_episode is None else max_steps_in_episode
    with lenient():
        example = jax.eval_shape(env.reset, jax.random.key(0))[1]
        space = _space(_leaves(example.observation, env.observation_spec, _check_fields(example.observation, fields)))
        sizes = _action_sizes(env.action_spec)
    if example.reward.shape != ():
        raise ValueError(
            f"{type(env).__name__} gives rewards {list(example.reward.shape)}, one for each agent; jaxrl has one agent"
        )
    if hasattr(env, "time_limit"):
        env = copy.copy(env)
        env.time_limit = _NEVER

    counts = tuple(sizes.ravel().tolist())

    def parts(action):
        return jnp.stack(jnp.unravel_index(action, counts)).reshape(sizes.shape).astype(env.action_spec.dtype)

    def observe(timestep):
        leaves = [leaf for leaf, _ in _leaves(timestep.observation, env.observation_spec, fields)]
        if len(leaves) == 1:
            return leaves[0]
        return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in leaves])

    def reset(key, params):
        state, timestep = env.reset(key)
        return state, observe(timestep)

    def step(key, state, action, params):
        state, timestep = env.step(state, parts(action))
        return state, observe(timestep), timestep.reward, timestep.last() & (timestep.discount == 0)

    return adapt(type(env).__name__, reset, step, space, Discrete(math.prod(counts)), max_steps_in_episode=limit)


def _leaves(tree: Any, spec: Any, fields: Sequence[str] | None = None) -> list[tuple[Any, Any]]:
    """The arrays of an observation with what is specified of each, field by field."""
    if isinstance(spec, specs.Array):
        return [(tree, spec)]
    return [pair for name in fields or _field_names(tree) for pair in _leaves(getattr(tree, name), spec[name])]


def _field_names(record: Any) -> tuple[str, ...]:
    return getattr(record, "_fields", None) or tuple(f.name for f in dataclasses.fields(record))


def _check_fields(observation: Any, fields: Sequence[str] | None) -> Sequence[str] | None:
    known = _field_names(observation)
    if fields is not None and (isinstance(fields, str) or not fields or set(fields) - set(known)):
        raise ValueError(f"fields must be some of {known}, got {fields!r}")
    return fields


def _space(described: list[tuple[Any, Any]]) -> Box:
    """Of one array as it is, or of several joined into one float32 vector."""
    bounds = [_bounds(leaf, spec) for leaf, spec in described]
    if len(described) == 1:
        leaf = described[0][0]
        return Box(*bounds[0], leaf.shape, leaf.dtype)
    low, high = (np.concatenate([np.ravel(side).astype(np.float32) for side in sides]) for sides in zip(*bounds, strict=True))
    return Box(low, high, low.shape)


def _bounds(leaf: Any, spec: Any) -> tuple[np.ndarray, np.ndarray]:
    everything = unbounded(leaf.shape, leaf.dtype)
    low, high = getattr(spec, "minimum", everything.low), getattr(spec, "maximum", everything.high)
    if isinstance(spec, specs.DiscreteArray):  # leaves out what occurs: an index of -1 for "none yet", a count of n at the end
        low, high = low - 1, high + 1
    return np.broadcast_to(np.asarray(low), leaf.shape), np.broadcast_to(np.asarray(high), leaf.shape)


def _action_sizes(spec: Any) -> np.ndarray:
    """How many values each part of an action has; no axes for an action of one number."""
    if not isinstance(spec, specs.BoundedArray) or not np.issubdtype(spec.dtype, np.integer) or np.any(spec.minimum != 0):
        raise ValueError(f"jaxrl numbers the actions of a Jumanji environment, and cannot number {spec}")
    sizes = np.broadcast_to(np.asarray(spec.maximum, np.int64) + 1, spec.shape)
    if math.prod(sizes.ravel().tolist()) > _NEVER:
        raise ValueError(f"an int32 cannot number all combinations of the actions {spec}")
    return sizes
