"""Epochs of shuffled minibatches, and network passes over large batches.

`map_rows` and `grad_of_mean` process the whole batch at once on an accelerator, and microbatches that stay in cache on a CPU.
A row is one entry along the leading axis of a batch.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_size
from jaxrl._src.microbatches import grad_of_mean, map_rows
from jaxrl._src.packing import pack, unpack

__all__ = ["check_minibatches", "grad_of_mean", "map_rows", "permutation", "scan_minibatches"]

_MAX_PACKED = 1024  # rows: up to this many, the index leaves at least 22 random bits of a word, which decide the order


def permutation(key: jax.Array, num_rows: int) -> jax.Array:
    """A random permutation of 0 … num_rows-1, int32 `[num_rows]`; the key is consumed.

    It sorts random numbers. If there are few rows, the index is part of the sorted number, which takes a CPU a quarter of the
    time. Two rows whose random bits agree keep their order; this happens in less than one of eight shuffles of 1,024 rows.
    """
    bits = jax.random.bits(key, (num_rows,), jnp.uint32)
    index = jnp.arange(num_rows, dtype=jnp.uint32)
    if num_rows > _MAX_PACKED:
        return jax.lax.sort((bits, index), num_keys=1)[1].astype(jnp.int32)
    width = max(1, (num_rows - 1).bit_length())
    packed = jnp.sort((bits << width) | index)
    return (packed & jnp.uint32(2**width - 1)).astype(jnp.int32)


def scan_minibatches(
    step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, batch: Any, keys: jax.Array, num_minibatches: int
) -> tuple[Any, Any]:
    """`lax.scan` of `step` over the minibatches of several epochs, shuffled anew in each epoch.

    Args:
      step: (carry, minibatch) -> (carry, output); the leaves of a minibatch are `[N / num_minibatches, ...]`.
      carry: the initial carry.
      batch: leaves `[N, ...]`. To keep sequences `[T, B, ...]` together, transpose them to `[B, T, ...]`.
      keys: `[num_epochs]`, one key for each epoch.
      num_minibatches: number of minibatches per epoch; must divide N.

    Returns:
      The final carry, and the outputs, leaves `[num_epochs, num_minibatches, ...]`.

    Raises:
      ValueError: if `num_minibatches` does not divide N, leaves have no N in common, or `keys` is not an array of keys.
      TypeError: if `num_minibatches` is not an int.
    """
    shapes = [jnp.shape(x) for x in jax.tree.leaves(batch)]
    if () in shapes or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f"scan_minibatches: all leaves of batch need one number of rows in front, got the shapes {shapes}")
    if jnp.ndim(keys) == 0 or not jnp.shape(keys)[0]:
        raise ValueError(
            "scan_minibatches: keys must be [num_epochs], such as jax.random.split(key, 4); got a single key or none"
        )
    num_rows = shapes[0][0]
    check_minibatches(num_rows, num_minibatches)
    packed = pack(batch, batch_ndim=1)  # one gather for all leaves

    def minibatch_step(carry, index):
        minibatch = jax.tree.map(lambda rows: rows.at[index].get(mode="promise_in_bounds"), packed)
        # The barrier keeps XLA's GPU compiler (jaxlib 0.10.2) from fusing the bitcast of a packed column into its softmax-like
        # kernels, such as a normalisation of advantages, which it then fails to compile.
        return step(carry, jax.lax.optimization_barrier(unpack(minibatch)))

    def epoch(carry, key):
        return jax.lax.scan(minibatch_step, carry, permutation(key, num_rows).reshape(num_minibatches, -1))

    return jax.lax.scan(epoch, carry, keys)


def check_minibatches(num_rows: int, num_minibatches: int) -> None:
    """Raise ValueError unless `num_minibatches` divides the number of rows, and TypeError unless it is an int."""
    num_minibatches = check_size("num_minibatches", num_minibatches)
    if num_rows % num_minibatches:
        divisors = [d for d in range(1, num_rows + 1) if num_rows % d == 0]
        nearest = min(divisors, key=lambda d: abs(d - num_minibatches))
        raise ValueError(
            f"num_minibatches {num_minibatches} must divide the {num_rows} rows of a rollout (num_envs * rollout_length, or "
            f"num_envs for whole sequences); the nearest that does is {nearest}"
        )
