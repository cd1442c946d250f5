"""What the adapters of other suites share: strong types around their code, and a clock that truncates."""

import difflib
import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.types import Box, Environment, Space, Step


class Params(NamedTuple):
    max_steps_in_episode: Any  # None: no time limit


class State(NamedTuple):
    inner: Any  # the suite's own
    time: jax.Array  # int32, steps since the reset


def adapt(
    name: str,
    reset: Callable[..., tuple[Any, jax.Array]],
    step: Callable[..., tuple[Any, jax.Array, Any, Any]],
    observation_space: Space,
    action_space: Space,
    *,
    max_steps_in_episode: int | None,
) -> Environment:
    """An environment from a suite's own functions, below whatever resets it and whatever ends it by a clock.

    Args:
      name: as `jaxrl.make` takes it.
      reset: `(key, params) -> (state, obs)`.
      step: `(key, state, action, params) -> (state, obs, reward, terminated)`; it must not reset, and what it
        says has ended must have ended by the task itself.
      observation_space, action_space: of the result.
      max_steps_in_episode: after how many steps an episode is truncated; None: never.

    Returns:
      An environment whose state and observation keep the types that `reset` gives them, with float32 rewards
      and bool flags. `params.max_steps_in_episode` is its only parameter.
    """
    if max_steps_in_episode is not None:
        max_steps_in_episode = check_size("max_steps_in_episode", max_steps_in_episode)
    params = Params(max_steps_in_episode)
    with lenient():
        spec = jax.eval_shape(lambda key: reset(key, params), jax.random.key(0))

    def reset_timed(key, params):
        with lenient():
            inner, obs = cast(reset(key, params), spec)
        return State(inner, jnp.int32(0)), obs

    def step_timed(key, state, action, params):
        with lenient():
            inner, obs, reward, terminated = step(key, state.inner, action, params)
            inner, obs = cast((inner, obs), spec)
        time = state.time + 1
        limit = params.max_steps_in_episode
        truncated = jnp.bool_(False) if limit is None else time >= limit
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return State(inner, time), Step(obs, reward, jnp.asarray(terminated, jnp.bool_).reshape(()), truncated)

    return Environment(reset_timed, step_timed, params, observation_space, action_space, name)


@contextmanager
def lenient():
    """Other people's code mixes dtypes and ranks and warns of its dependencies; nobody's strict settings shall stop it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cast(tree: Any, spec: Any) -> Any:
    """As `spec`, strongly typed: a scan's carry must not change its type from step to step."""

    def one(x, s):
        return x if jnp.issubdtype(s.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(x, s.dtype).reshape(s.shape)

    return jax.tree.map(one, tree, spec)


def obs_shape(reset: Callable[..., Any], *args: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the observation that `reset(key, *args) -> (state, obs)` gives, without computing it.

    Raises:
      TypeError: where it is not one array.
    """
    with lenient():
        obs = jax.eval_shape(lambda key: reset(key, *args)[1], jax.random.key(0))
    if not isinstance(obs, jax.ShapeDtypeStruct):
        raise TypeError(f"an observation must be one array, got {obs}")
    return obs


def unbounded(shape: tuple[int, ...], dtype: Any) -> Box:
    """The Box of everything that the dtype can hold."""
    dtype = np.dtype(dtype)
    if dtype == np.bool_:
        return Box(False, True, shape, dtype)
    if np.issubdtype(dtype, np.integer):
        return Box(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype)
    return Box(-np.inf, np.inf, shape, dtype)


def check_name(name: str, known: Iterable[str], prefix: str) -> None:
    """Raise `unknown_name` unless the suite knows the name."""
    known = tuple(known)
    if name not in known:
        raise unknown_name(name, known, f"{prefix}/")


def unknown_name(name: str, known: Iterable[str], prefix: str = "") -> ValueError:
    """The error for an unknown name: it has the nearest ones, or all where none is near."""
    folded = {n.lower(): n for n in known}
    near = [folded[n] for n in difflib.get_close_matches(str(name).lower(), folded, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(prefix + n for n in near)}?" if near else f"there are {', '.join(folded.values())}"
    return ValueError(f"unknown environment {prefix + str(name)!r}; {hint}")
