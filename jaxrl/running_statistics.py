"""Running mean and variance of a stream, with exact updates and merging of streams."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.shards import gather, num_shards
from jaxrl.types import EnvState

EPSILON = 1e-8  # added to a variance before its square root is taken


class RunningStatistics(NamedTuple):
    """Count, mean and variance of all observations so far; float32.

    The compensations hold the digits that do not fit into a float32. Without them, the count stops at 2^24 if observations
    are added one by one, and each update of the mean and the variance is rounded to the last digit of the sum: the variance
    of normal numbers was off by up to 1 % after two million, and by 13 % after 40 million. With them it is accurate to 1e-7,
    even if the mean is 10^7 standard deviations.
    """

    num: jax.Array  # []
    mean: jax.Array  # [*shape]
    variance: jax.Array  # [*shape], of the population: divided by the number
    mean_compensation: jax.Array  # [*shape]
    variance_compensation: jax.Array  # [*shape]
    num_compensation: jax.Array  # []


def empty_statistics(shape: tuple[int, ...]) -> RunningStatistics:
    """The statistics of no observation."""
    zeros, zero = jnp.zeros(shape, jnp.float32), jnp.float32(0)
    return RunningStatistics(zero, zeros, zeros, zeros, zeros, zero)


def statistics_of(x: jax.Array) -> RunningStatistics:
    """The statistics of one observation `[*shape]`."""
    return empty_statistics(x.shape)._replace(num=jnp.float32(1), mean=x.astype(jnp.float32))


def statistics_of_batch(x: jax.Array) -> RunningStatistics:
    """The statistics of N observations `[N, *shape]`, N at least 1.

    The first observation is subtracted before anything is summed, so a mean that is large compared with the standard deviation
    costs no digits; a second pass removes the rounding error of the first mean.

    >>> import jax.numpy as jnp
    >>> statistics = statistics_of_batch(jnp.array([[1.0], [3.0]]))
    >>> float(statistics.num), float(statistics.mean[0]), float(statistics.variance[0])
    (2.0, 2.0, 1.0)
    """
    first = x[0].astype(jnp.float32)
    x = x.astype(jnp.float32) - first[None]
    offset = jnp.mean(x, axis=0)
    x = x - offset[None]
    error = jnp.mean(x, axis=0)
    variance = jnp.maximum(jnp.mean(jnp.square(x), axis=0) - jnp.square(error), 0.0)
    mean, mean_compensation = _two_sum(first, offset + error)
    zero, num = jnp.float32(0), jnp.float32(x.shape[0])
    return RunningStatistics(num, mean, variance, mean_compensation, jnp.zeros_like(variance), zero)


def merge(a: RunningStatistics, b: RunningStatistics) -> RunningStatistics:
    """Merge the statistics of two streams (Chan, Golub & LeVeque 1983).

    If `b` is a single observation, this is the update of Welford (1962). Exact up to rounding, in any order; most accurate if
    `a` is the longer stream.

    >>> import jax.numpy as jnp
    >>> both = merge(statistics_of(jnp.float32(1.0)), statistics_of(jnp.float32(3.0)))
    >>> float(both.mean), float(both.variance)
    (2.0, 1.0)
    """
    num, num_compensation = _add_counts(a, b)
    weight = b.num / jnp.where(num > 0, num, 1.0)
    difference, rest = _two_sum(b.mean, -a.mean)
    rest = rest + (b.mean_compensation - a.mean_compensation)
    delta = difference + rest
    spread = (b.variance - a.variance) + (b.variance_compensation - a.variance_compensation)
    spread = spread + (1.0 - weight) * jnp.square(delta)
    mean, lost = _two_sum(a.mean, weight * difference)
    mean, mean_compensation = _two_sum(mean, lost + a.mean_compensation + weight * rest)
    variance, variance_compensation = _two_sum(a.variance, a.variance_compensation + weight * spread)
    return RunningStatistics(num, mean, variance, mean_compensation, variance_compensation, num_compensation)


def merge_all(statistics: RunningStatistics) -> RunningStatistics:
    """Merge statistics over their leading axis, e.g. of environments, seeds or devices, of length at least 1.

    Arrays may be sharded over devices. Inside `shard_map`, gather first:
    `merge_all(jax.lax.all_gather(statistics, axis_name))`.
    """
    return jax.tree.map(lambda x: x[-1], jax.lax.associative_scan(jax.vmap(merge), statistics))


def merge_shards(statistics: RunningStatistics) -> RunningStatistics:
    """Merge the statistics of all shards of an agent; the result is the same in each. See `jaxrl.shards`."""
    return statistics if num_shards() == 1 else merge_all(gather(statistics))


def synchronize(env_state: EnvState) -> EnvState:
    """Replace the statistics of every environment by the merged statistics of all environments.

    The count is divided equally among the environments, so merging again later does not count any observation twice. Call
    this between calls of `jaxrl.advance`: within a rollout, each environment updates its own statistics.

    Args:
      env_state: of a batch of wrapped environments, leaves `[B, ...]`, as in `LearnerState.env`; `vmap` it over seeds.

    Returns:
      The same state with every `RunningStatistics` in it merged.
    """

    def share(statistics: RunningStatistics) -> RunningStatistics:
        num_envs = statistics.num.shape[0]
        merged = merge_all(statistics)
        merged = merged._replace(num=merged.num / num_envs, num_compensation=merged.num_compensation / num_envs)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_envs, *x.shape)), merged)

    return _map_statistics(share, env_state)


def freeze(env_state: EnvState) -> EnvState:
    """Stop updating all running statistics: their count becomes infinite, so that new observations have no weight.

    Use it for evaluation: `jaxrl.evaluate(key, learner, state._replace(env=freeze(state.env)), ...)`. Do not merge frozen
    statistics.
    """
    return _map_statistics(lambda statistics: statistics._replace(num=jnp.full_like(statistics.num, jnp.inf)), env_state)


def standardize(statistics: RunningStatistics, x: jax.Array, clip: Any = jnp.inf) -> jax.Array:
    """(x − mean) / √(variance + 1e-8), clipped to ± `clip`; x is `[*shape]`, the result float32 `[*shape]`."""
    centred = (x.astype(jnp.float32) - statistics.mean) - statistics.mean_compensation
    return jnp.clip(centred / standard_deviation(statistics), -clip, clip)


def standard_deviation(statistics: RunningStatistics) -> jax.Array:
    """√(variance + 1e-8), `[*shape]`."""
    return jnp.sqrt(statistics.variance + EPSILON)


def _add_counts(a: RunningStatistics, b: RunningStatistics) -> tuple[jax.Array, jax.Array]:
    """The total count and its compensation. The count of frozen statistics stays infinite, without computing inf − inf."""
    frozen = jnp.isinf(a.num)
    num, lost = _two_sum(jnp.where(frozen, 0.0, a.num), b.num)
    num, compensation = _two_sum(num, lost + a.num_compensation + b.num_compensation)
    return jnp.where(frozen, a.num, num), jnp.where(frozen, a.num_compensation, compensation)


def _two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """a + b as a rounded sum and its rounding error, exactly (Knuth's TwoSum)."""
    total = a + b
    b_seen = total - a
    return total, (a - (total - b_seen)) + (b - b_seen)


def _map_statistics(function, tree: Any) -> Any:
    def is_statistics(x):
        return isinstance(x, RunningStatistics)

    return jax.tree.map(lambda x: function(x) if is_statistics(x) else x, tree, is_leaf=is_statistics)
