"""XLand-MiniGrid's grid worlds. Extra: `jaxrl[xminigrid]`."""

from typing import Any

import numpy as np
import xminigrid
from xminigrid.core.constants import NUM_COLORS, NUM_TILES

from jaxrl.envs.suites.adapter import Params, adapt, check_name, lenient, obs_spec
from jaxrl.spaces import Box, Discrete
from jaxrl.types import Environment


def names() -> tuple[str, ...]:
    """The names that `make` takes."""
    return tuple(xminigrid.registered_environments())


def make(name: str, *, max_steps_in_episode: int | None = None, **overrides: Any) -> Environment:
    """The XLand-MiniGrid environment of that name, without its automatic resets.

    Observations are uint8 `[view_size, view_size, 2]`: the tile and the colour of each cell in view.

    Args:
      name: e.g. "MiniGrid-Empty-8x8".
      max_steps_in_episode: XLand-MiniGrid's `max_steps`, by default its own. The reward for the goal decreases by 0.9
        over this time.
      overrides: other fields of its parameters, e.g. `view_size=5`, or `ruleset=...` for XLand's environments.

    Raises:
      ValueError: for an unknown name (with similar names) or an unknown parameter (with the list).
    """
    check_name(name, names(), "xminigrid")
    with lenient():
        env, defaults = xminigrid.make(name)
        if unknown := sorted(set(overrides) - set(defaults.__dataclass_fields__)):
            raise ValueError(
                f"xminigrid/{name} has no parameter {', '.join(unknown)}; it has {', '.join(defaults.__dataclass_fields__)}"
            )
        defaults = defaults.replace(**overrides)
    limit = defaults.max_steps if max_steps_in_episode is None else max_steps_in_episode

    def reset(key, params):
        timestep = env.reset(defaults.replace(max_steps=params.max_steps_in_episode), key)
        return timestep, timestep.observation

    def step(key, timestep, action, params):
        timestep = env.step(defaults.replace(max_steps=params.max_steps_in_episode), timestep, action)
        return timestep, timestep.observation, timestep.reward, timestep.discount == 0

    obs = obs_spec(reset, Params(limit))
    tiles_and_colours = np.array([NUM_TILES - 1, NUM_COLORS - 1], obs.dtype)
    return adapt(
        f"xminigrid/{name}",
        reset,
        step,
        Box(0, tiles_and_colours, obs.shape, obs.dtype),
        Discrete(env.num_actions(defaults)),
        max_steps_in_episode=limit,
    )
