"""Helpers shared by the adapters of other suites: strong types around their code, and a time limit that truncates."""

import difflib
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.spaces import Box, Dict, Space
from jaxrl.types import Environment, Step


class Params(NamedTuple):
    max_steps_in_episode: Any  # None: no time limit


class State(NamedTuple):
    inner: Any  # the suite's own
    time: jax.Array  # int32, steps since the reset


def adapt(
    name: str,
    reset: Callable[..., tuple[Any, Any]],
    step: Callable[..., tuple[Any, Any, Any, Any]],
    observation_space: Space,
    action_space: Space,
    *,
    max_steps_in_episode: int | None,
) -> Environment:
    """Build an environment from a suite's functions, taken below its automatic resets and its time limit.

    Args:
      name: as for `jaxrl.make`.
      reset: `(key, params) -> (state, obs)`; `obs` is an array or a dict of arrays.
      step: `(key, state, action, params) -> (state, obs, reward, terminated)`. It must not reset, and `terminated` must
        not be set by a time limit.
      observation_space, action_space: of the result.
      max_steps_in_episode: after this many steps an episode is truncated; None: never.

    Returns:
      An environment whose state and observations keep the types that `reset` returns, with float32 rewards and bool
      flags. Its only parameter is `params.max_steps_in_episode`.
    """
    if max_steps_in_episode is not None:
        max_steps_in_episode = check_size("max_steps_in_episode", max_steps_in_episode)
    params = Params(max_steps_in_episode)
    with lenient():
        spec = jax.eval_shape(lambda key: reset(key, params), jax.random.key(0))

    def reset_timed(key, params):
        with lenient():
            inner, obs = cast(reset(key, narrow(params)), spec)
        return State(inner, jnp.int32(0)), obs

    def step_timed(key, state, action, params):
        with lenient():
            inner, obs, reward, terminated = step(key, state.inner, narrow(action), narrow(params))
            inner, obs = cast((inner, obs), spec)
        time = state.time + 1
        limit = params.max_steps_in_episode
        truncated = jnp.bool_(False) if limit is None else time >= jnp.asarray(limit, jnp.int32)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return State(inner, time), Step(obs, reward, jnp.asarray(terminated, jnp.bool_).reshape(()), truncated)

    return Environment(reset_timed, step_timed, params, observation_space, action_space, name)


_enable_x64: Any = getattr(jax if hasattr(jax, "enable_x64") else jax.experimental, "enable_x64")  # noqa: B009 - before jax 0.8


@contextmanager
def lenient():
    """Run other people's code with JAX's default settings: implicit promotion, 32 bits, and no warnings.

    Suites mix dtypes and ranks, and some fail with `jax_enable_x64`. The user's settings still apply outside.
    """
    promotion, ranks = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow")
    with promotion, ranks, _enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cast(tree: Any, spec: Any) -> Any:
    """Cast to the strong types and shapes of `spec`: the carry of a scan must keep its types from step to step."""

    def one(x, s):
        return x if jnp.issubdtype(s.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(x, s.dtype).reshape(s.shape)

    return jax.tree.map(one, tree, spec)


def narrow(tree: Any) -> Any:
    """Cast 64-bit arrays, of a user with `jax_enable_x64`, to 32 bits; inside `lenient`."""
    return jax.tree.map(lambda x: x.astype(jax.dtypes.canonicalize_dtype(x.dtype)) if _is_wide(x) else x, tree)


def _is_wide(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | np.generic) and x.dtype in (np.float64, np.int64, np.uint64)


def obs_spec(reset: Callable[..., Any], *args: Any) -> Any:
    """Shape and dtype of the observation of `reset(key, *args) -> (state, obs)`, which is only traced."""
    with lenient():
        return jax.eval_shape(lambda key: reset(key, *args)[1], jax.random.key(0))


def unbounded(spec: Any) -> Space:
    """The Box of all values of a shape and dtype; for a mapping, a Dict of them.

    Raises:
      TypeError: for other pytrees.

    >>> print(unbounded({"x": jax.ShapeDtypeStruct((2,), np.uint8)}))
    Dict(x: Box(0 … 255, [2], uint8))
    """
    if isinstance(spec, Mapping):
        return Dict({name: unbounded(entry) for name, entry in spec.items()})
    if not hasattr(spec, "dtype"):
        raise TypeError(f"an observation must be an array or a dict of arrays, got {spec}")
    dtype = np.dtype(spec.dtype)
    if dtype == np.bool_:
        return Box(False, True, spec.shape, dtype)
    if np.issubdtype(dtype, np.integer):
        return Box(np.iinfo(dtype).min, np.iinfo(dtype).max, spec.shape, dtype)
    return Box(-np.inf, np.inf, spec.shape, dtype)


def check_name(name: str, known: Iterable[str], prefix: str) -> None:
    """Raise the error of `unknown_name` if the suite does not know the name."""
    known = tuple(known)
    if name not in known:
        raise unknown_name(name, known, f"{prefix}/")


def unknown_name(name: str, known: Iterable[str], prefix: str = "") -> ValueError:
    """The error for an unknown name: it lists similar names, or all if none is similar."""
    folded = {n.lower(): n for n in known}
    near = [folded[n] for n in difflib.get_close_matches(str(name).lower(), folded, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(prefix + n for n in near)}?" if near else f"there are {', '.join(folded.values())}"
    return ValueError(f"unknown environment {prefix + str(name)!r}; {hint}")
