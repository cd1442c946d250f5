"""brax's environments: rigid bodies, continuous actions. Extra: `jaxrl[brax]`."""

from typing import Any

from brax import envs

from jaxrl.envs.suites.adapter import adapt, check_name, lenient, obs_shape, unbounded
from jaxrl.types import Box, Environment

# `fast` is brax's own test double: it has no system and counts its steps in Python.
_UNAVAILABLE = ("fast",)


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(name for name in envs._envs if name not in _UNAVAILABLE)


def make(name: str, *, max_steps_in_episode: int | None = 1_000, **kwargs: Any) -> Environment:
    """brax's environment of that name, without its wrappers.

    Args:
      name: e.g. "ant".
      max_steps_in_episode: what brax's EpisodeWrapper calls episode_length; None: no time limit.
      kwargs: of the environment's constructor, e.g. `backend="spring"`.

    Raises:
      ValueError: for an unknown name, with the nearest ones.
    """
    check_name(name, names(), "brax")
    with lenient():
        env = envs.get_environment(name, **kwargs)
    return from_brax(env, max_steps_in_episode=max_steps_in_episode)._replace(name=f"brax/{name}")


def from_brax(env: Any, *, max_steps_in_episode: int | None = 1_000) -> Environment:
    """Wrap a bare brax environment. `done` becomes `terminated`; the time limit is ours, and truncates.

    Args:
      env: a `brax.envs.Env`; a wrapper such as EpisodeWrapper, AutoResetWrapper or VmapWrapper is refused.
      max_steps_in_episode: None: no time limit.

    Raises:
      TypeError: for a wrapper of brax's: it would reset, count or batch what is done here.
    """
    if isinstance(env, envs.Wrapper):
        raise TypeError(
            f"from_brax takes a bare brax environment, got the wrapper {type(env).__name__}: resets, time limit and batches "
            "are jaxrl's. Pass env.unwrapped, and the time limit as max_steps_in_episode"
        )

    def reset(key, params):
        state = env.reset(key)
        return state, state.obs

    def step(key, state, action, params):
        state = env.step(state, action)
        return state, state.obs, state.reward, state.done

    obs = obs_shape(reset, None)
    return adapt(
        type(env).__name__,
        reset,
        step,
        unbounded(obs.shape, obs.dtype),
        Box(-1, 1, (int(env.action_size),)),  # each environment scales that to its motors, or they have that range
        max_steps_in_episode=max_steps_in_episode,
    )
