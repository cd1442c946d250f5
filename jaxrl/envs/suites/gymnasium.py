"""Gymnasium in both directions: its environments for jaxrl's agents, and jaxrl's environments for other libraries.

Extra: `jaxrl[gymnasium]`.
"""

import contextlib
import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, registry
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from jaxrl.envs.suites.adapter import check_name
from jaxrl.envs.suites.host import Host, HostEnvs
from jaxrl.spaces import ACTION_MASK, Box, Dict, Discrete, MultiDiscrete, Space, num_choices, split_action_mask
from jaxrl.types import Environment

Convert = Callable[[Any], Any]


def make(name: str, *, asynchronous: bool = False, **kwargs: Any) -> Environment:
    """The environment that `gymnasium.make(name, **kwargs)` returns, stepped on the host.

    Args:
      name: any name that Gymnasium accepts, e.g. "CartPole-v1" or "module:Name-v0".
      asynchronous: as for `from_gymnasium`.

    Raises:
      ValueError: for a name that Gymnasium does not know (with similar names) or does not allow, and as `from_gymnasium`.
      ImportError: if the environment needs a package that is not installed.
    """
    try:
        return from_gymnasium(partial(gymnasium.make, name, **kwargs), name=f"gymnasium/{name}", asynchronous=asynchronous)
    except gymnasium.error.UnregisteredEnv as error:
        check_name(name, registry, "gymnasium")
        raise ValueError(str(error)) from error
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError(f"gymnasium/{name}: {error}") from error
    except gymnasium.error.Error as error:
        raise ValueError(f"gymnasium/{name}: {error}") from error


def from_gymnasium(make_env: Callable[[], gymnasium.Env], *, name: str | None = None, asynchronous: bool = False) -> Environment:
    """Wrap a Gymnasium environment, registered or your own, for `jaxrl.experiment.train_on_host`.

    The environment is stepped in Python; nothing of it is compiled. Spaces are converted as follows:

    - `Discrete` and `MultiDiscrete` are shifted to start at 0; a `MultiDiscrete` is flattened to one axis.
    - `Box` keeps its shape and dtype, but 64-bit types become 32 bits wide, also with `jax_enable_x64`. An integer
      Box of observations whose bounds do not fit the narrower type becomes float32, which rounds large integers.
    - `MultiBinary` becomes a bool `Box` in observations, and a `MultiDiscrete` of twos in actions.
    - `Dict` becomes a `Dict`, and `Tuple` a `Dict` with the entries "0", "1", ...; both in observations only.
    - An entry "action_mask" of the observation, `[n]` or `[sum(nvec)]`, becomes bool; agents then choose legal actions
      only. Where no action is legal, all are marked as legal. A mask in `info` is not used: put it into the observation
      with a `gymnasium.Wrapper`.

    Args:
      make_env: makes one environment. Called once here, to read the spaces, and once for each copy in training.
      name: by default the id under which the environment is registered, or the name of its class.
      asynchronous: run each copy in a process of its own (`gymnasium.vector.AsyncVectorEnv`). This pays off if a step
        takes milliseconds. Processes are spawned, because JAX's threads do not survive a fork: a script needs
        `if __name__ == "__main__":`, and `make_env` must be picklable.

    Raises:
      ValueError: for other spaces, with the way to convert them; for an action mask of the wrong shape; and during
        training, for an integer observation that does not fit the type that its declared bounds ask for.
      TypeError: if `make_env` is not a function, such as an environment.

    >>> import gymnasium
    >>> env = from_gymnasium(lambda: gymnasium.make("CartPole-v1"))
    >>> env.action_space, env.params.max_steps_in_episode
    (Discrete(n=2), 500)
    """
    if not callable(make_env):
        raise TypeError(f"make_env must be a function, such as lambda: gymnasium.make('CartPole-v1'); got {make_env!r}")
    with contextlib.closing(make_env()) as example:
        action_space, to_theirs = _actions(example.action_space)
        observation_space, to_ours = _bool_mask(*_observations(example.observation_space), action_space)
        limit = example.spec.max_episode_steps if example.spec is not None else None
        name = name or (example.spec.id if example.spec is not None else type(example.unwrapped).__name__)

    def open_envs(num_envs: int) -> HostEnvs:
        vector = partial(AsyncVectorEnv, context="spawn") if asynchronous else SyncVectorEnv
        # Without automatic resets every observation is the true successor, and the host loop asks for each reset.
        envs: Any = vector([make_env] * num_envs, autoreset_mode=AutoresetMode.DISABLED)

        def reset(seeds=None, mask=None):
            obs, _ = envs.reset(seed=seeds, options=None if mask is None else {"reset_mask": mask})
            return to_ours(obs)

        def step(action):
            obs, reward, terminated, truncated, _ = envs.step(to_theirs(action))
            return to_ours(obs), reward.astype(np.float32), terminated, truncated & ~terminated

        return HostEnvs(reset, step, envs.close)

    return Host(name, observation_space, action_space, open_envs, limit).environment()


def _observations(space: gymnasium.Space) -> tuple[Space, Convert]:
    """The space in jaxrl, and the conversion of a batch of Gymnasium's observations into it."""
    match space:
        case spaces.Discrete():
            start = int(space.start)
            return Discrete(int(space.n)), lambda x: _narrow(x - start, np.dtype(np.int32))
        case spaces.MultiDiscrete():
            nvec, starts = tuple(space.nvec.ravel().tolist()), space.start
            return MultiDiscrete(nvec), lambda x: _narrow((x - starts).reshape(-1, len(nvec)), np.dtype(np.int32))
        case spaces.MultiBinary():
            return Box(False, True, space.shape, np.bool_), lambda x: x.astype(np.bool_)
        case spaces.Box():
            dtype = _in_32_bits(space.dtype)
            if not _fits(space, dtype):
                dtype = np.dtype(np.float32)
            return _box(space, dtype), lambda x: _narrow(x, dtype)
        case spaces.Dict() | spaces.Tuple():
            entries: Any = space.spaces
            keys: Any = entries if isinstance(space, spaces.Dict) else range(len(entries))
            parts = {key: _observations(entries[key]) for key in keys}
            convert = lambda x: {str(key): part(x[key]) for key, (_, part) in parts.items()}
            return Dict({str(key): part for key, (part, _) in parts.items()}), convert
    raise ValueError(
        f"observation space {space} is not supported: turn it into a Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple, "
        "e.g. with gymnasium.wrappers.FlattenObservation"
    )


def _actions(space: gymnasium.Space) -> tuple[Discrete | MultiDiscrete | Box, Convert]:
    """The space in jaxrl, and the conversion of a batch of its actions into Gymnasium's."""
    match space:
        case spaces.Discrete():
            return Discrete(int(space.n)), lambda x: x.astype(space.dtype) + space.start
        case spaces.MultiDiscrete():
            nvec = tuple(space.nvec.ravel().tolist())
            return MultiDiscrete(nvec), lambda x: x.astype(space.dtype).reshape(-1, *space.shape) + space.start
        case spaces.MultiBinary():
            size = int(np.prod(space.shape))
            return MultiDiscrete((2,) * size), lambda x: x.astype(space.dtype).reshape(-1, *space.shape)
        case spaces.Box():
            # A bound of 64 bits may be rounded to one outside of it, where agents clip their actions.
            return _box(space, _in_32_bits(space.dtype)), lambda x: np.clip(x.astype(space.dtype), space.low, space.high)
    raise ValueError(
        f"action space {space} is not supported: turn it into a Discrete, MultiDiscrete, MultiBinary or Box with a "
        "gymnasium.ActionWrapper"
    )


def _bool_mask(space: Space, convert: Convert, action_space: Space) -> tuple[Space, Convert]:
    """With the entry "action_mask", where there is one, as bool, and with all actions legal where none is.

    Raises:
      ValueError: for a mask of another shape than the action space asks for.
    """
    _, mask = split_action_mask(space)
    if mask is None:
        return space, convert
    shape = (num_choices(action_space),) if isinstance(action_space, Discrete | MultiDiscrete) else None
    if shape is None or getattr(mask, "shape", None) != shape:
        raise ValueError(
            f"the entry {ACTION_MASK!r} of an observation is a bool array [n] for Discrete(n) actions, and [sum(nvec)] for "
            f"MultiDiscrete ones, got {mask} for {action_space}: rename or reshape it with a gymnasium.ObservationWrapper"
        )
    ends: Any = np.cumsum(action_space.nvec)[:-1] if isinstance(action_space, MultiDiscrete) else []

    def convert_all(x):
        obs = convert(x)
        parts = np.split(obs[ACTION_MASK].astype(np.bool_), ends, axis=-1)
        return obs | {ACTION_MASK: np.concatenate([part | ~part.any(axis=-1, keepdims=True) for part in parts], axis=-1)}

    entries = dict(cast(Dict, space)) | {ACTION_MASK: Box(False, True, shape, np.bool_)}
    return Dict(entries), convert_all


def _in_32_bits(dtype: Any) -> np.dtype:
    dtype = np.dtype(dtype)
    return np.dtype(f"{dtype.kind}4") if dtype.itemsize == 8 else dtype


def _fits(space: spaces.Box, dtype: np.dtype) -> bool:
    """Whether an integer Box keeps its bounds in the dtype; true for floats, whose large bounds become infinite."""
    if not np.issubdtype(dtype, np.integer):
        return True
    info = np.iinfo(dtype)
    return bool(np.all(space.low >= info.min) and np.all(space.high <= info.max))


def _box(space: spaces.Box, dtype: np.dtype) -> Box:
    """A Box of the dtype, which may be narrower than the space's: bounds that do not fit it are dropped."""
    low, high = space.low, space.high
    if np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        low, high = (np.clip(bound, info.min, info.max) for bound in (low, high))
    elif np.issubdtype(dtype, np.floating):
        limit = float(np.finfo(dtype).max)
        low, high = (np.where(np.abs(x) > limit, np.copysign(np.inf, x), x) for x in (low.astype(float), high.astype(float)))
    return Box(low, high, space.shape, dtype)


def _narrow(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """A copy in the dtype.

    Raises:
      ValueError: for integers that do not fit it.
    """
    y = x.astype(dtype)
    if x.dtype.itemsize > dtype.itemsize and np.issubdtype(dtype, np.integer) and not np.array_equal(x, y):
        raise ValueError(
            f"an observation is outside the bounds of its space, and does not fit {dtype}: {x[x != y][0]}. To fix this, give the "
            "environment's observation_space its true bounds"
        )
    return y


def to_gymnasium(env: Environment) -> gymnasium.Env:
    """Export a jaxrl environment as a `gymnasium.Env`, for the agents of other libraries.

    Reset and step are compiled once for all copies of one `Environment`. `reset(seed=...)` makes the episode a function
    of the seed; without a seed, the generator that the last one started continues. State that is carried over from
    episode to episode (running statistics) is kept until the next seed.

    Args:
      env: from `jaxrl.make`, or your own; it runs with `env.params`.

    Returns:
      An environment that passes `gymnasium.utils.env_checker.check_env`. Its spaces are exactly those of `env`, so
      warnings of that check about a space (an infinite bound, actions beyond ±1) are about `env`. An entry
      "action_mask" stays a part of the observation. Rendering is not supported.

    >>> import jaxrl
    >>> env = to_gymnasium(jaxrl.make("CartPole-v1"))
    >>> obs, info = env.reset(seed=0)
    >>> obs, reward, terminated, truncated, info = env.step(1)
    >>> obs.shape, reward, terminated, truncated
    ((4,), 1.0, False, False)
    """
    return _Exported(env)


class _Exported(gymnasium.Env):
    metadata = {"render_modes": []}  # noqa: RUF012 - Gymnasium's own name and type

    def __init__(self, env: Environment):
        self._env = env
        self._episode: Any = None  # (key, state)
        self._time = 0
        self.observation_space = _to_space(env.observation_space)
        self.action_space = _to_space(env.action_space)
        limit = getattr(env.params, "max_steps_in_episode", None)
        self.spec = EnvSpec(
            _id(env.name),
            entry_point=lambda **kwargs: to_gymnasium(env),
            max_episode_steps=None if limit is None or math.isinf(limit) else int(limit),
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        drawn = self.np_random.integers(2**32, dtype=np.uint32)
        key, state, obs = _reset(self._env.reset, drawn, self._env.params)
        if self._env.carry_over is not None and self._episode is not None and seed is None:
            state, obs = _carry_over(self._env.carry_over, self._episode[1], state, obs)
        self._episode, self._time = (key, state), 0
        return _to_numpy(self._env.observation_space, obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if self._episode is None:
            raise gymnasium.error.ResetNeeded(f"{self._env.name}: call reset() before step()")
        key, state = self._episode
        action = self._checked(action)
        state, after = _step(self._env.step, key, np.int32(self._time), state, action, self._env.params)
        self._episode, self._time = (key, state), self._time + 1
        terminated = bool(after.terminated)
        truncated = bool(after.truncated) and not terminated
        return _to_numpy(self._env.observation_space, after.obs), float(after.reward), terminated, truncated, {}

    def _checked(self, action: Any) -> np.ndarray:
        space: Any = self._env.action_space
        if isinstance(space, Box):
            return np.asarray(action, space.dtype).reshape(space.shape)
        sizes = np.array(space.n if isinstance(space, Discrete) else space.nvec)
        action = np.asarray(action).reshape(space.shape)
        if not np.all((action >= 0) & (action < sizes)):
            largest = (sizes - 1).tolist()
            raise ValueError(f"{self._env.name}: action {action.tolist()} is outside 0 … {largest}")
        if not np.all(action == np.floor(action)):
            raise ValueError(f"{self._env.name}: action {action.tolist()} is no integer, and the actions are {space}")
        return action.astype(space.dtype)


def _id(name: str) -> str:
    """A name as Gymnasium allows it: [namespace/]name."""
    namespace, _, rest = re.sub(r"[^\w:./-]", "-", name).rpartition("/")
    words = [re.sub(r"[/.:]", "-", namespace), rest or "env"]
    return "/".join(word for word in words if word)


@partial(jax.jit, static_argnums=0)
def _reset(reset: Callable[..., Any], seed: Any, params: Any) -> Any:
    reset_key, step_key = jax.random.split(jax.random.key(seed))
    return step_key, *reset(reset_key, params)


@partial(jax.jit, static_argnums=0)
def _carry_over(carry_over: Callable[..., Any], old: Any, fresh: Any, obs: Any) -> Any:
    return carry_over(old, fresh, obs)


@partial(jax.jit, static_argnums=0)
def _step(step: Callable[..., Any], key: jax.Array, time: Any, state: Any, action: Any, params: Any) -> Any:
    return step(jax.random.fold_in(key, time), state, action, params)


def _to_space(space: Space) -> gymnasium.Space:
    match space:
        case Dict():
            return spaces.Dict({name: _to_space(entry) for name, entry in space.items()})
        case Discrete():
            return spaces.Discrete(space.n)
        case MultiDiscrete():
            return spaces.MultiDiscrete(list(space.nvec))
    return spaces.Box(space.low, space.high, space.shape, space.dtype.type)


def _to_numpy(space: Space, obs: Any) -> Any:
    """An observation as an element of the exported space."""
    if isinstance(space, Dict):
        return {name: _to_numpy(entry, obs[name]) for name, entry in space.items()}
    if isinstance(space, Discrete):
        return int(obs)
    return np.array(obs, np.int64 if isinstance(space, MultiDiscrete) else None)
