"""Wrappers that change the reward. `normalize_rewards` is in `normalization.py`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import FINITE, check_scalar
from jaxrl.types import Environment


def scale_rewards(env: Environment, scale: Any) -> Environment:
    """Multiply rewards by `scale`, a finite number, which may be traced.

    Raises:
      ValueError: if it is not finite.
    """
    scale = check_scalar("scale", scale, -FINITE[1], FINITE[1])
    return _map_rewards(env, lambda reward: scale * reward)


def clip_rewards(env: Environment, low: Any = -1.0, high: Any = 1.0) -> Environment:
    """Clip rewards to [low, high], by default [-1, 1] (Mnih et al. 2015). The bounds may be traced.

    Raises:
      ValueError: if `low` is above `high`.
    """
    low, high = check_scalar("low", low), check_scalar("high", high)
    if not any(isinstance(bound, jax.core.Tracer) for bound in (low, high)) and np.any(low > high):
        raise ValueError(f"clip_rewards: low {low} is above high {high}")
    return _map_rewards(env, lambda reward: jnp.clip(reward, low, high))


def _map_rewards(env: Environment, function) -> Environment:
    def step(key, state, action, params):
        state, after = env.step(key, state, action, params)
        return state, after._replace(reward=function(after.reward))

    return env._replace(step=step)
