"""gymnax's environments, bare: exact flags, true final observations, stable dtypes."""

from contextlib import contextmanager
from functools import cache
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from gymnax.environments.environment import Environment as GymnaxEnvironment

from jaxrl.types import Box, Discrete, Environment, Space, Step

_UNAVAILABLE = {"MNISTBandit-bsuite": "it downloads its data set"}


@cache
def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(name for name in gymnax.registered_envs if name not in _UNAVAILABLE)


def make(name: str, **overrides) -> Environment:
    """gymnax's environment of that name; `overrides` are fields of its parameters.

    Raises:
      ValueError: for a parameter it does not have, with the list of those it has.
    """
    with _lenient():
        env, params = gymnax.make(name)
    return from_gymnax(env, _override(name, params, overrides))._replace(name=name)


def from_gymnax(env: Any, params: Any = None) -> Environment:
    """Wrap a gymnax environment: its `step_env`, which does not reset, and its `is_truncated`.

    Args:
      env: a bare gymnax environment.
      params: by default `env.default_params`.

    Raises:
      TypeError: for a gymnax wrapper. Below its `step` the environment has no reset, but a wrapper's
        `step_env` reaches past the wrapper, so it would silently do nothing. Wrap on this side instead.
    """
    if not isinstance(env, GymnaxEnvironment):
        raise TypeError(
            f"from_gymnax takes a bare gymnax environment, got {type(env).__name__}: its step_env would reach past the "
            f"wrapper. Pass the environment inside it and wrap the result: jaxrl.envs.wrappers.flatten does what "
            f"FlattenObservationWrapper does; LogWrapper needs nothing, for the metrics hold the episode returns"
        )
    params = env.default_params if params is None else params
    state_spec, obs_spec = _specs(env, params)
    action_space = _space(env.action_space(params))

    def reset(key, params):
        with _lenient():
            obs, state = env.reset_env(key, params)
        return _cast(state, state_spec), _cast(obs, obs_spec)

    def step(key, state, action, params):
        with _lenient():
            obs, state, reward, terminated, _ = env.step_env(key, state, action, params)
            truncated = env.is_truncated(state, params)
        flags = (jnp.asarray(flag, jnp.bool_).reshape(()) for flag in (terminated, truncated))
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return _cast(state, state_spec), Step(_cast(obs, obs_spec), reward, *flags)

    return Environment(reset, step, params, _space(env.observation_space(params), obs_spec), action_space, env.name)


@contextmanager
def _lenient():
    """gymnax mixes dtypes and ranks freely; that shall not keep anyone from strict promotion around it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def _specs(env: Any, params: Any) -> tuple[Any, Any]:
    """Shapes and dtypes of state and observation, without the weak types of gymnax's Python zeros."""
    with _lenient():
        obs, state = jax.eval_shape(env.reset_env, jax.random.key(0), params)
    return state, obs


def _cast(tree: Any, spec: Any) -> Any:
    """As `spec`, strongly typed: a scan's carry must not change its type from step to step."""
    return jax.tree.map(lambda x, s: jax.lax.convert_element_type(x, s.dtype).reshape(s.shape), tree, spec)


def _space(space: Any, spec: Any = None) -> Space:
    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box):
        shape, dtype = (tuple(space.shape), space.dtype) if spec is None else (spec.shape, spec.dtype)
        low, high = (np.asarray(bound) for bound in (space.low, space.high))
        return Box(low, high, shape, np.dtype(dtype))
    raise TypeError(f"jaxrl has Discrete and Box spaces; gymnax's {space} is neither")


def _override(name: str, params: Any, overrides: dict[str, Any]) -> Any:
    unknown = sorted(set(overrides) - set(params.__dataclass_fields__))
    if unknown:
        raise ValueError(f"{name} has no parameter {', '.join(unknown)}; it has {', '.join(params.__dataclass_fields__)}")
    return params.replace(**overrides)
