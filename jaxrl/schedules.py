"""Schedules: hyperparameters as functions of the iteration number."""

import jax
import jax.numpy as jnp


def linear_schedule(start, end, num_iterations, iteration) -> jax.Array:
    """Interpolate linearly from `start` at iteration 0 to `end` at `num_iterations`; constant outside this range.

    Args:
      start, end: the values at the two ends, scalars.
      num_iterations: length of the schedule, a scalar of at least 0. With `inf` the value is always `start`.
      iteration: int32 scalar. Negative numbers count as 0.

    Returns:
      float32 scalar. All arguments may be traced, and batched by `vmap`.

    >>> float(linear_schedule(1.0, 0.5, 4, jnp.int32(2)))
    0.75
    """
    fraction = jnp.clip(jnp.asarray(iteration, jnp.float32) / jnp.maximum(num_iterations, 1.0), 0.0, 1.0)
    return (1.0 - fraction) * start + fraction * end  # unlike start + fraction * (end - start), exact at both ends
