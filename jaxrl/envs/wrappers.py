"""Wrappers: pure functions from an `Environment` to an `Environment`."""

import math

import numpy as np

from jaxrl.types import Box, Environment


def flatten(env: Environment) -> Environment:
    """Observations `[*obs_shape]` of a Box as one axis `[prod(obs_shape)]`; everything else as it was.

    Raises:
      ValueError: where the observations are not a Box.

    >>> import jaxrl
    >>> flatten(jaxrl.make("Catch-bsuite")).observation_space.shape
    (50,)
    """
    space = env.observation_space
    if not isinstance(space, Box):
        raise ValueError(f"flatten needs observations in a Box, got {space}")
    size = math.prod(space.shape)

    def reset(key, params):
        state, obs = env.reset(key, params)
        return state, obs.reshape(size)

    def step(key, state, action, params):
        state, after = env.step(key, state, action, params)
        return state, after._replace(obs=after.obs.reshape(size))

    low, high = (np.reshape(bound, size) for bound in (space.low, space.high))
    return env._replace(reset=reset, step=step, observation_space=Box(low, high, (size,), space.dtype))
