"""Means over the shards of one agent, for agents, networks and losses with statistics of a batch; see `docs/devices.md`.

`jaxrl.optimizers.optimizer_step` averages gradients, and the driver averages metrics. An agent needs these functions where
something else depends on the whole batch, such as the mean by which advantages are normalised, or a replay of its own.

>>> import jax.numpy as jnp
>>> float(mean(jnp.mean(jnp.arange(3.0))))  # there is one shard outside of `jaxrl.vectorize(num_shards=S)`
1.0
"""

from jaxrl._src.shards import AXIS, gather, mean, minimum, num_shards, own, own_key, shard_size, total

__all__ = ["AXIS", "gather", "mean", "minimum", "num_shards", "own", "own_key", "shard_size", "total"]
