"""MuJoCo Playground's environments: control suite, locomotion, manipulation. Extra: `jaxrl[playground]`.

Those of locomotion and manipulation need the models of mujoco_menagerie, which playground fetches from
GitHub when it first loads one; the control suite needs nothing.
"""

from collections.abc import Mapping
from typing import Any

from mujoco_playground import registry

from jaxrl.envs.suites.adapter import adapt, check_name, lenient, obs_shape, unbounded
from jaxrl.types import Box, Environment


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(registry.ALL_ENVS)


def make(name: str, *, max_steps_in_episode: int | None = None, impl: str = "jax", **config: Any) -> Environment:
    """Playground's environment of that name, without brax's wrappers.

    Args:
      name: e.g. "CartpoleBalance".
      max_steps_in_episode: by default the episode_length of its configuration.
      impl: "jax", MJX's own, which runs everywhere; "warp" is playground's default and wants an NVIDIA GPU.
      config: other fields of its configuration, e.g. `ctrl_dt=0.02`.

    Raises:
      ValueError: for an unknown name, with the nearest ones.
    """
    check_name(name, names(), "playground")
    with lenient():
        env = registry.load(name, config_overrides={"impl": impl} | config)
    limit = int(env._config.episode_length) if max_steps_in_episode is None else max_steps_in_episode
    return from_playground(env, max_steps_in_episode=limit)._replace(name=f"playground/{name}")


def from_playground(env: Any, *, max_steps_in_episode: int | None) -> Environment:
    """Wrap a bare `MjxEnv`. `done` becomes `terminated`; the time limit is ours, and truncates.

    Where the observation is a mapping, the policy sees its entry "state"; what only a critic may see
    ("privileged_state") is left out.

    Args:
      env: as `registry.load` gives it.
      max_steps_in_episode: None: no time limit.
    """

    def observe(state):
        return state.obs["state"] if isinstance(state.obs, Mapping) else state.obs

    def reset(key, params):
        state = env.reset(key)
        return state, observe(state)

    def step(key, state, action, params):
        state = env.step(state, action)
        return state, observe(state), state.reward, state.done

    obs = obs_shape(reset, None)
    return adapt(
        type(env).__name__,
        reset,
        step,
        unbounded(obs.shape, obs.dtype),
        Box(-1, 1, (int(env.action_size),)),
        max_steps_in_episode=max_steps_in_episode,
    )
