"""brax's environments: rigid bodies, continuous actions. Extra: `jaxrl[brax]`."""

from typing import Any

from brax import envs

from jaxrl.envs.suites.adapter import adapt, check_name, lenient, obs_spec, unbounded
from jaxrl.spaces import Box
from jaxrl.types import Environment

# `fast` is a test double of brax: it has no physical system, and counts its steps in Python.
_UNAVAILABLE = ("fast",)


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(name for name in envs._envs if name not in _UNAVAILABLE)


def make(name: str, *, max_steps_in_episode: int | None = 1_000, **kwargs: Any) -> Environment:
    """The brax environment of that name, without brax's wrappers.

    Args:
      name: e.g. "ant".
      max_steps_in_episode: the `episode_length` of brax's EpisodeWrapper; None: no time limit.
      kwargs: arguments of the environment's constructor, e.g. `backend="spring"`.

    Raises:
      ValueError: for an unknown name, with similar names.
    """
    check_name(name, names(), "brax")
    with lenient():
        env = envs.get_environment(name, **kwargs)
    return from_brax(env, max_steps_in_episode=max_steps_in_episode)._replace(name=f"brax/{name}")


def from_brax(env: Any, *, max_steps_in_episode: int | None = 1_000) -> Environment:
    """Wrap a bare brax environment. `done` becomes `terminated`, and the time limit truncates.

    Args:
      env: a `brax.envs.Env`, without wrappers such as EpisodeWrapper, AutoResetWrapper or VmapWrapper. Observations that
        are dicts become a `Dict` space.
      max_steps_in_episode: time limit in steps; None: no time limit.

    Raises:
      TypeError: for a brax wrapper, since jaxrl resets, counts steps and batches by itself.
    """
    if isinstance(env, envs.Wrapper):
        raise TypeError(
            f"from_brax takes a bare brax environment, got the wrapper {type(env).__name__}: jaxrl resets, batches and limits "
            "the time by itself. Pass env.unwrapped, and the time limit as max_steps_in_episode"
        )

    def reset(key, params):
        state = env.reset(key)
        return state, state.obs

    def step(key, state, action, params):
        state = env.step(state, action)
        return state, state.obs, state.reward, state.done

    return adapt(
        type(env).__name__,
        reset,
        step,
        unbounded(obs_spec(reset, None)),
        Box(-1, 1, (int(env.action_size),)),  # each environment scales these to its actuators
        max_steps_in_episode=max_steps_in_episode,
    )
