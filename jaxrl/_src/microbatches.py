"""Network passes over large batches: at once on an accelerator, in microbatches that stay in cache on a CPU.

On an accelerator every kernel launch has a cost, so the whole batch is processed at once. On a CPU the activations of thousands
of rows would leave the cache before the backward pass reads them, so each microbatch completes its forward and backward pass
before the next one starts. A row is one entry along the leading axis of a batch.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Target size of a microbatch in rows. Sizes from half to twice this are used, or all rows if no such size divides them. On an AMD
# EPYC, all these sizes are equally fast, with two layers of 64 units and with two of 256.
_MICROBATCH = 512


def map_rows(fn: Callable[[Any], Any], rows: Any) -> Any:
    """`fn(rows)`, for a function that treats each row independently; leaves of `rows` and of the result are `[N, ...]`."""
    microbatches = _num_microbatches(rows)
    if microbatches == 1:
        return fn(rows)

    def in_microbatches(rows):
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(fn, _split(rows, microbatches)))

    return jax.lax.platform_dependent(rows, cpu=in_microbatches, default=fn)


def grad_of_mean(loss: Callable[[Any, Any], tuple[jax.Array, Any]], params: Any, rows: Any) -> tuple[Any, Any]:
    """`jax.grad(loss, has_aux=True)(params, rows)`, for a loss and auxiliary floats that are means over the rows `[N, ...]`."""
    microbatches = _num_microbatches(rows)
    gradient = jax.jit(jax.grad(loss, has_aux=True), inline=True)
    if microbatches == 1:
        return gradient(params, rows)

    def in_microbatches(params, rows):
        split = _split(rows, microbatches)
        like = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], split))

        def add(total, microbatch):
            return jax.tree.map(jnp.add, total, gradient(params, microbatch)), None

        total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, like), split)
        return jax.tree.map(lambda x: x / microbatches, total)

    return jax.lax.platform_dependent(params, rows, cpu=in_microbatches, default=gradient)


def _num_microbatches(rows: Any) -> int:
    """The number of equal microbatches whose size is nearest to `_MICROBATCH`, by ratio."""
    num = jax.tree.leaves(rows)[0].shape[0]
    sizes = [size for size in range(_MICROBATCH // 2, 2 * _MICROBATCH + 1) if num % size == 0]
    return num // min(sizes, key=lambda size: abs(math.log(size / _MICROBATCH)), default=num)


def _split(rows: Any, microbatches: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), rows)
