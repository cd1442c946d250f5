"""Mean and variance of a stream, updated exactly, and merged over streams."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.types import EnvState

EPSILON = 1e-8  # added to a variance before its root is taken, as everywhere in the literature


class RunningStatistics(NamedTuple):
    """Number, mean and variance of what has been seen; float32.

    The rests are the digits that mean and variance have no room for. Without them each update would be rounded to the last
    digit of the sum, which is all of a small update: the variance of normal numbers was off by up to 1 % after two million
    of them, and by 13 % after 40 million. With them it is right to 1e-7, also under an offset of 10^7 deviations. From 2^24
    observations on, the number stands still where they come one by one, and the oldest begin to fade.
    """

    num: jax.Array  # []
    mean: jax.Array  # [*shape]
    variance: jax.Array  # [*shape], of the population: divided by the number
    mean_compensation: jax.Array  # [*shape]
    variance_rest: jax.Array  # [*shape]


def empty_moments(shape: tuple[int, ...]) -> RunningStatistics:
    """Of nothing yet. `merge` takes it for what it is."""
    zeros = jnp.zeros(shape, jnp.float32)
    return RunningStatistics(jnp.float32(0), zeros, zeros, zeros, zeros)


def moments_of(x: jax.Array) -> RunningStatistics:
    """Of a single observation `[*shape]`."""
    return empty_moments(x.shape)._replace(num=jnp.float32(1), mean=x.astype(jnp.float32))


def merge(a: RunningStatistics, b: RunningStatistics) -> RunningStatistics:
    """The moments of two streams together (Chan, Golub & LeVeque 1983); with a `b` of one observation, Welford's (1962).

    Exact up to rounding, however the streams were cut. It is symmetric in value, and most accurate where `a` is the longer.

    >>> import jax.numpy as jnp
    >>> both = merge(moments_of(jnp.float32(1.0)), moments_of(jnp.float32(3.0)))
    >>> float(both.mean), float(both.variance)
    (2.0, 1.0)
    """
    num = a.num + b.num
    weight = b.num / jnp.where(num > 0, num, 1.0)
    delta = (b.mean - a.mean) + (b.mean_compensation - a.mean_compensation)
    spread = (b.variance - a.variance) + (b.variance_rest - a.variance_rest) + (1.0 - weight) * jnp.square(delta)
    mean, mean_compensation = _two_sum(a.mean, a.mean_compensation + weight * delta)
    variance, variance_rest = _two_sum(a.variance, a.variance_rest + weight * spread)
    return RunningStatistics(num, mean, variance, mean_compensation, variance_rest)


def merge_all(moments: RunningStatistics) -> RunningStatistics:
    """Merge moments over their leading axis, of length at least 1: of environments, seeds or devices.

    On one device or many: an array that is spread over devices may be given as it is. Inside `shard_map`, gather first:
    `merge_all(jax.lax.all_gather(moments, axis_name))`.
    """
    return jax.tree.map(lambda x: x[-1], jax.lax.associative_scan(jax.vmap(merge), moments))


def synchronize(env_state: EnvState) -> EnvState:
    """Give every environment the statistics of all of them.

    Each then stands for an equal share of the observations, so that merging again later counts nothing twice. Call it
    between two calls of `jaxrl.advance`, jitted together or not: within a rollout each environment keeps its own.

    Args:
      env_state: of a batch of wrapped environments, leaves `[B, ...]`, as in `LearnerState.env`; `vmap` over seeds.

    Returns:
      The same with every `RunningStatistics` in it merged; everything else is left alone.
    """

    def share(moments: RunningStatistics) -> RunningStatistics:
        num_envs = moments.num.shape[0]
        merged = merge_all(moments)
        merged = merged._replace(num=merged.num / num_envs)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num_envs, *x.shape)), merged)

    return _map_moments(share, env_state)


def freeze(env_state: EnvState) -> EnvState:
    """Stop all statistics of wrapped environments where they are: their number becomes infinite, and nothing new has a weight.

    For evaluation, `jaxrl.evaluate(key, learner, state._replace(env=freeze(state.env)), ...)`. Not to be merged any more.
    """
    return _map_moments(lambda moments: moments._replace(num=jnp.full_like(moments.num, jnp.inf)), env_state)


def standardize(moments: RunningStatistics, x: jax.Array, clip: Any = jnp.inf) -> jax.Array:
    """(x − mean) / √(variance + 1e-8), clipped to ± `clip`; x is `[*shape]`, the result float32 `[*shape]`."""
    centred = (x.astype(jnp.float32) - moments.mean) - moments.mean_compensation
    return jnp.clip(centred / deviation(moments), -clip, clip)


def deviation(moments: RunningStatistics) -> jax.Array:
    """√(variance + 1e-8), `[*shape]`."""
    return jnp.sqrt(moments.variance + EPSILON)


def _two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """a + b as a rounded sum and what the rounding lost, exactly (Knuth's TwoSum)."""
    total = a + b
    b_seen = total - a
    return total, (a - (total - b_seen)) + (b - b_seen)


def _map_moments(function, tree: Any) -> Any:
    def is_moments(x):
        return isinstance(x, RunningStatistics)

    return jax.tree.map(lambda x: function(x) if is_moments(x) else x, tree, is_leaf=is_moments)
