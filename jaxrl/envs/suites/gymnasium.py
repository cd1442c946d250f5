"""Gymnasium both ways: its environments for jaxrl's agents, and jaxrl's environments for other people's.

Extra: `jaxrl[gymnasium]`.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np
from gymnasium.envs.registration import EnvSpec, registry
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from jaxrl.envs.suites.adapter import check_name
from jaxrl.envs.suites.host import Host, HostEnvs
from jaxrl.types import Box, Discrete, Environment, Space


def make(name: str, *, asynchronous: bool = False, **kwargs: Any) -> Environment:
    """The environment that `gymnasium.make(name, **kwargs)` gives, stepped on the host.

    Args:
      name: whatever Gymnasium takes, e.g. "CartPole-v1" or "module:Name-v0".
      asynchronous: as for `from_gymnasium`.

    Raises:
      ValueError: for a name that Gymnasium does not know (with near ones), and as `from_gymnasium`.
      ImportError: where the environment needs a package that is not installed.
    """
    try:
        return from_gymnasium(partial(gymnasium.make, name, **kwargs), name=f"gymnasium/{name}", asynchronous=asynchronous)
    except gymnasium.error.UnregisteredEnv as error:
        check_name(name, registry, "gymnasium")
        raise ValueError(str(error)) from error
    except gymnasium.error.DependencyNotInstalled as error:
        raise ImportError(f"gymnasium/{name}: {error}") from error


def from_gymnasium(make_env: Callable[[], gymnasium.Env], *, name: str | None = None, asynchronous: bool = False) -> Environment:
    """A Gymnasium environment, your own or a registered one, for `jaxrl.experiment.train_on_host`.

    It is stepped in Python, at its own speed: nothing of it is compiled. Observations and actions of 64 bits
    become 32 bits wide, as everywhere in JAX; a Discrete space that starts elsewhere is shifted to start at 0.

    Args:
      make_env: makes one environment; called once here for its spaces, and once for each copy in training.
      name: by default the id that it is registered by, or the name of its class.
      asynchronous: each copy in a process of its own (`gymnasium.vector.AsyncVectorEnv`), which pays where a
        step takes far longer than the way there and back. The processes are spawned, for JAX's threads do not
        survive a fork: a script needs its `if __name__ == "__main__":`, and what `make_env` names must be importable.

    Raises:
      ValueError: for spaces that are neither Discrete nor a Box, with what to do about each.

    >>> import gymnasium
    >>> env = from_gymnasium(lambda: gymnasium.make("CartPole-v1"))
    >>> env.action_space, env.params.max_steps_in_episode
    (Discrete(n=2), 500)
    """
    example = make_env()
    observations = _converter(example.observation_space, "observation")
    actions = _converter(example.action_space, "action")
    limit = example.spec.max_episode_steps if example.spec is not None else None
    name = name or (example.spec.id if example.spec is not None else type(example.unwrapped).__name__)
    example.close()

    def open_envs(num_envs: int) -> HostEnvs:
        vector = partial(AsyncVectorEnv, context="spawn") if asynchronous else SyncVectorEnv
        # Disabled is the mode that shows every true successor; the resets are then ours to ask for.
        envs: Any = vector([make_env] * num_envs, autoreset_mode=AutoresetMode.DISABLED)

        def reset(seeds=None, mask=None):
            obs, _ = envs.reset(seed=seeds, options=None if mask is None else {"reset_mask": mask})
            return observations.ours(obs)

        def step(action):
            obs, reward, terminated, truncated, _ = envs.step(actions.theirs(action))
            return observations.ours(obs), reward.astype(np.float32), terminated, truncated & ~terminated

        return HostEnvs(reset, step, envs.close)

    return Host(name, observations.space, actions.space, open_envs, limit).environment()


class _Converter(NamedTuple):
    space: Space  # ours
    ours: Callable[[np.ndarray], np.ndarray]  # a batch of theirs -> a batch of ours
    theirs: Callable[[np.ndarray], np.ndarray]


def _converter(space: gymnasium.Space, role: str) -> _Converter:
    if isinstance(space, gymnasium.spaces.Discrete):
        start = int(space.start)
        return _Converter(Discrete(int(space.n)), lambda x: (x - start).astype(np.int32), lambda x: x.astype(np.int64) + start)
    if isinstance(space, gymnasium.spaces.Box):
        theirs, dtype = space.dtype, jax.dtypes.canonicalize_dtype(space.dtype)
        low, high = (_narrowed(bound, dtype) for bound in (space.low, space.high))
        return _Converter(Box(low, high, space.shape, dtype), lambda x: x.astype(dtype), lambda x: x.astype(theirs))
    mend = (
        "wrap it in gymnasium.wrappers.FlattenObservation"
        if role == "observation"
        else "number its actions by a gymnasium.ActionWrapper with a Discrete action_space"
    )
    raise ValueError(f"jaxrl has Discrete and Box spaces, and this {role} space is {space}: {mend}")


def _narrowed(bound: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The bound in a dtype that may be narrower: what does not fit is no bound any more."""
    if np.issubdtype(dtype, np.integer):
        return np.clip(bound, np.iinfo(dtype).min, np.iinfo(dtype).max)
    if np.issubdtype(dtype, np.floating):
        return np.where(np.abs(bound) > np.finfo(dtype).max, np.copysign(np.inf, bound), bound)
    return bound


def to_gymnasium(env: Environment) -> gymnasium.Env:
    """A jaxrl environment as a `gymnasium.Env`, for agents that are not jaxrl's.

    Reset and step are compiled once for all copies of one `Environment`. `reset(seed=...)` draws the episode,
    and everything random in it, from the seed; without one, from the generator that the last seed started. What
    outlives an episode (running statistics) goes on until the next seed.

    Args:
      env: from `jaxrl.make`, or your own; `env.params` are its parameters.

    Returns:
      It passes `gymnasium.utils.env_checker.check_env`. The spaces are exactly the environment's, so what that
      check says of a space (an infinite bound, actions beyond ±1) it says of the environment. No rendering.

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
        self._episode: Any = None  # key and state
        self._time = 0
        self.observation_space = _to_space(env.observation_space)
        self.action_space = _to_space(env.action_space)
        limit = getattr(env.params, "max_steps_in_episode", None)
        self.spec = EnvSpec(
            re.sub(r"[^\w:./-]", "-", env.name),
            entry_point=lambda **kwargs: to_gymnasium(env),
            max_episode_steps=int(limit) if isinstance(limit, int | np.integer) else None,
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        drawn = self.np_random.integers(2**32, dtype=np.uint32)
        key, state, obs = _reset(self._env.reset, drawn, self._env.params)
        if self._env.carry_over is not None and self._episode is not None and seed is None:
            state, obs = _carry_over(self._env.carry_over, self._episode[1], state, obs)
        self._episode, self._time = (key, state), 0
        return self._observed(obs), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        if self._episode is None:
            raise gymnasium.error.ResetNeeded(f"{self._env.name}: call reset() before step()")
        space = self._env.action_space
        if isinstance(space, Discrete) and not 0 <= int(action) < space.n:
            raise ValueError(f"{self._env.name}: action {action} is not one of 0 … {space.n - 1}")
        key, state = self._episode
        action = np.asarray(action, space.dtype).reshape(space.shape)
        state, after = _step(self._env.step, key, np.int32(self._time), state, action, self._env.params)
        self._episode, self._time = (key, state), self._time + 1
        terminated = bool(after.terminated)
        return self._observed(after.obs), float(after.reward), terminated, bool(after.truncated) and not terminated, {}

    def _observed(self, obs: jax.Array) -> Any:
        return int(obs) if isinstance(self._env.observation_space, Discrete) else np.array(obs)


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
    if isinstance(space, Discrete):
        return gymnasium.spaces.Discrete(space.n)
    return gymnasium.spaces.Box(space.low, space.high, space.shape, space.dtype.type)
