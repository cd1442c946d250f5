"""Wrappers that limit the length of episodes or record their returns."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.envs.wrappers._inner import carry_over_inside, carry_over_or_fresh, inner_time_limit
from jaxrl.types import Environment, EnvState

Record = TypeVar("Record")


class TimeLimitParams(NamedTuple):
    """Parameters of `time_limit`."""

    env: Any
    max_steps: Any

    @property
    def max_steps_in_episode(self) -> Any:
        """The smaller of this limit and that of the inner environment."""
        limits = [limit for limit in (self.max_steps, inner_time_limit(self)) if limit is not None]
        traced = any(isinstance(limit, jax.core.Tracer) for limit in limits)
        return limits[0] if len(limits) == 1 else (jnp.minimum if traced else np.minimum)(*limits)


class TimeLimit(NamedTuple):
    """State of `time_limit`."""

    env: EnvState
    time: jax.Array  # int32, steps since the episode began


class EpisodeStatistics(NamedTuple):
    """State of `episode_statistics`; each field is `[B]` in a batch of environments."""

    env: EnvState
    episode_return: jax.Array  # float32: of the running episode
    episode_length: jax.Array  # int32
    last_return: jax.Array  # float32: of the last finished episode; NaN before the first
    last_length: jax.Array  # int32: of the last finished episode; 0 before the first
    episodes: jax.Array  # int32: number of finished episodes


def time_limit(env: Environment, max_steps: Any) -> Environment:
    """Truncate episodes after `max_steps` steps. If the environment terminates on the same step, termination takes precedence.

    An existing limit of the environment stays in effect: the earlier of the two ends the episode.

    Args:
      env: any environment, with or without a time limit.
      max_steps: becomes a field of `params`; may be traced.

    Raises:
      ValueError: if `max_steps` is below 1.
      TypeError: if it is not an int.
    """
    if not isinstance(max_steps, jax.core.Tracer):
        max_steps = check_size("max_steps", max_steps)
    elif max_steps.ndim or not jnp.issubdtype(max_steps.dtype, jnp.integer):
        raise TypeError(f"max_steps must be an int, got {max_steps.aval}")

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
    """Record the return and length of the running episode and of the last finished episode in the state.

    To record the returns of the task, put it inside wrappers that scale or clip rewards. Read the record from a
    `LearnerState`: `find_state(state.env, EpisodeStatistics).last_return`, `[B]`.
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
        state, obs = carry_over_or_fresh(env)(old.env, fresh.env, obs)
        kept = fresh._replace(env=state, last_return=old.last_return, last_length=old.last_length, episodes=old.episodes)
        return kept, obs

    return env._replace(reset=reset, step=step, carry_over=carry_over)


def find_state(env_state: EnvState, kind: type[Record]) -> Record:
    """The outermost record of type `kind` in the state of a wrapped environment.

    Raises:
      ValueError: if there is none.

    >>> import jax, jaxrl
    >>> env = time_limit(episode_statistics(jaxrl.make("PointMass")), 10)
    >>> state, _ = env.reset(jax.random.key(0), env.params)
    >>> int(find_state(state, EpisodeStatistics).episodes)
    0
    """
    inside = env_state
    while not isinstance(inside, kind):
        if not hasattr(inside, "env"):
            raise ValueError(f"there is no {kind.__name__} in a {type(env_state).__name__}: wrap the environment in it")
        inside = inside.env
    return inside
