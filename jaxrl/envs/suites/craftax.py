"""Craftax and Craftax-Classic. Extra: `jaxrl[craftax]`. Compilation takes minutes on a CPU."""

from typing import Any

import jax.numpy as jnp
from craftax.craftax_env import make_craftax_env_from_name

from jaxrl.envs.suites.adapter import adapt, check_name, lenient, obs_spec
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Environment

_NAMES = ("Craftax-Symbolic-v1", "Craftax-Pixels-v1", "Craftax-Classic-Symbolic-v1", "Craftax-Classic-Pixels-v1")
_NEVER = jnp.iinfo(jnp.int32).max


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return _NAMES


def make(name: str, *, max_steps_in_episode: int | None = None, **overrides: Any) -> Environment:
    """The Craftax environment of that name, without automatic resets. Death terminates, and in Craftax so does victory.

    Args:
      name: e.g. "Craftax-Classic-Symbolic-v1".
      max_steps_in_episode: Craftax's `max_timesteps`, by default 100,000 (Classic: 10,000).
      overrides: other fields of its parameters, e.g. `god_mode=True`.

    Raises:
      ValueError: for an unknown name (with similar names) or an unknown parameter (with the list).
    """
    check_name(name, names(), "craftax")
    with lenient():
        env = make_craftax_env_from_name(name, auto_reset=False)
        game = env.default_params
    if unknown := sorted(set(overrides) - set(game.__dataclass_fields__)):
        raise ValueError(f"craftax/{name} has no parameter {', '.join(unknown)}; it has {', '.join(game.__dataclass_fields__)}")
    game = game.replace(**overrides)
    limit = int(game.max_timesteps) if max_steps_in_episode is None else max_steps_in_episode
    game = game.replace(max_timesteps=_NEVER)  # what is left of `done` is set by the game

    def reset(key, params):
        obs, state = env.reset_env(key, game)
        return state, obs

    def step(key, state, action, params):
        obs, state, reward, done, _ = env.step_env(key, state, action, game)
        return state, obs, reward, done

    obs = obs_spec(reset, None)
    return adapt(
        f"craftax/{name}",
        reset,
        step,
        Box(0.0, 1.0, obs.shape, obs.dtype),
        Discrete(int(env.num_actions)),
        max_steps_in_episode=limit,
    )
