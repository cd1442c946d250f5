"""MuJoCo Playground's environments: control suite, locomotion, manipulation. Extra: `jaxrl[playground]`.

Locomotion and manipulation need the models of mujoco_menagerie, which playground downloads from GitHub when one is first
loaded. The control suite needs no download.
"""

from collections.abc import Mapping
from typing import Any

from mujoco_playground import registry

from jaxrl.envs.suites.adapter import adapt, check_name, lenient, obs_spec, unbounded
from jaxrl.spaces import Box
from jaxrl.types import Environment


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(registry.ALL_ENVS)


def make(name: str, *, max_steps_in_episode: int | None = None, impl: str = "jax", **config: Any) -> Environment:
    """The Playground environment of that name, without brax's wrappers.

    Args:
      name: e.g. "CartpoleBalance".
      max_steps_in_episode: by default the `episode_length` of its configuration.
      impl: the implementation of MJX: "jax" runs everywhere; "warp", Playground's default, needs an NVIDIA GPU.
      config: other fields of its configuration, e.g. `ctrl_dt=0.02`.

    Raises:
      ValueError: for an unknown name, with similar names.
    """
    check_name(name, names(), "playground")
    with lenient():
        env = registry.load(name, config_overrides={"impl": impl} | config)
    limit = int(env._config.episode_length) if max_steps_in_episode is None else max_steps_in_episode
    return from_playground(env, max_steps_in_episode=limit)._replace(name=f"playground/{name}")


def from_playground(env: Any, *, max_steps_in_episode: int | None) -> Environment:
    """Wrap a bare `MjxEnv`. `done` becomes `terminated`, and the time limit truncates.

    If the observation is a mapping, the result has its entry "state" only; "privileged_state", meant for critics in
    simulation, is left out.

    Args:
      env: as `registry.load` returns it.
      max_steps_in_episode: time limit in steps; None: no time limit.
    """

    def observe(state):
        return state.obs["state"] if isinstance(state.obs, Mapping) else state.obs

    def reset(key, params):
        state = env.reset(key)
        return state, observe(state)

    def step(key, state, action, params):
        state = env.step(state, action)
        return state, observe(state), state.reward, state.done

    return adapt(
        type(env).__name__,
        reset,
        step,
        unbounded(obs_spec(reset, None)),
        Box(-1, 1, (int(env.action_size),)),
        max_steps_in_episode=max_steps_in_episode,
    )
