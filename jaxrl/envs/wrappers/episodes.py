"""Wrappers about whole episodes: when they end, and what they earned."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.envs.wrappers._inner import carry_over_inside, limit_inside, renewal
from jaxrl.types import Environment, EnvState

Record = TypeVar("Record")


class TimeLimitParams(NamedTuple):
    """Parameters of `time_limit`."""

    env: Any
    max_steps: Any

    @property
    def max_steps_in_episode(self) -> Any:
        """The smaller of this limit and that of the environment inside."""
        limits = [limit for limit in (self.max_steps, limit_inside(self)) if limit is not None]
        traced = any(isinstance(limit, jax.core.Tracer) for limit in limits)
        return limits[0] if len(limits) == 1 else (jnp.minimum if traced else np.minimum)(*limits)


class TimeLimit(NamedTuple):
    """State of `time_limit`."""

    env: EnvState
    time: jax.Array  # int32, steps since the episode began


class EpisodeStatistics(NamedTuple):
    """State of `episode_statistics`; `[B]` each in a batch of environments."""

    env: EnvState
    episode_return: jax.Array  # float32: of the episode under way
    episode_length: jax.Array  # int32
    last_return: jax.Array  # float32: of the last episode that ended; NaN before the first
    last_length: jax.Array  # int32; 0 before the first
    episodes: jax.Array  # int32: how many have ended


def time_limit(env: Environment, max_steps: Any) -> Environment:
    """Truncate episodes after `max_steps` steps. It never terminates one, and where the environment does so itself, that wins.

    A limit that the environment already has stays: the earlier of the two ends the episode.

    Args:
      env: any; endless ones too.
      max_steps: a field of `params`, may be traced.

    Raises:
      ValueError, TypeError: where `max_steps` is not a positive int.
    """
    if not isinstance(max_steps, jax.core.Tracer):
        max_steps = check_size("max_steps", max_steps)

    def reset(key, params):
        state, obs = env.reset(key, params.env)
        return TimeLimit(state, jnp.int32(0)), obs

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params.env)
        time = state.time + 1
        truncated = (after.truncated | (time >= params.max_steps)) & ~after.terminated
        return TimeLimit(inside, time), after._replace(truncated=truncated)

    return env._replace(reset=reset, step=step, params=TimeLimitParams(env.params, max_steps), carry_over=carry_over_inside(env))


def episode_statistics(env: Environment) -> Environment:
    """Keep return and length of the episode under way, and of the last that ended, in the state; nothing else changes.

    They are of the rewards as they are here: inside the wrappers that scale or clip them, they are the task's own. Read them
    by `find_state(state.env, EpisodeStatistics).last_return` `[B]` of a `LearnerState`.
    """

    def reset(key, params):
        state, obs = env.reset(key, params)
        zero, none = jnp.float32(0), jnp.int32(0)
        return EpisodeStatistics(state, zero, none, jnp.float32(jnp.nan), none, none), obs

    def step(key, state, action, params):
        inside, after = env.step(key, state.env, action, params)
        total, length = state.episode_return + after.reward, state.episode_length + 1
        ended = after.terminated | after.truncated
        state = EpisodeStatistics(
            env=inside,
            episode_return=total,
            episode_length=length,
            last_return=jnp.where(ended, total, state.last_return),
            last_length=jnp.where(ended, length, state.last_length),
            episodes=state.episodes + ended.astype(jnp.int32),
        )
        return state, after

    def carry_over(old, fresh, obs):
        state, obs = renewal(env)(old.env, fresh.env, obs)
        kept = fresh._replace(env=state, last_return=old.last_return, last_length=old.last_length, episodes=old.episodes)
        return kept, obs

    return env._replace(reset=reset, step=step, carry_over=carry_over)


def find_state(env_state: EnvState, kind: type[Record]) -> Record:
    """The outermost record of type `kind` in the state of a wrapped environment.

    Raises:
      ValueError: where there is none.

    >>> import jax, jaxrl
    >>> env = time_limit(episode_statistics(jaxrl.make("PointMass")), 10)
    >>> state, _ = env.reset(jax.random.key(0), env.params)
    >>> int(find_state(state, EpisodeStatistics).episodes)
    0
    """
    inside = env_state
    while not isinstance(inside, kind):
        if not hasattr(inside, "env"):
            raise ValueError(f"there is no {kind.__name__} in a {type(env_state).__name__}: is the environment wrapped so?")
        inside = inside.env
    return inside
