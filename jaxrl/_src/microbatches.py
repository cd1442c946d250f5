"""Network passes over many rows: at once on an accelerator, in microbatches that stay in cache on a CPU.

An accelerator pays for each launch, so it gets one. A core of a CPU pays for what leaves its cache: the activations of thousands
of rows, which the way back reads again. A microbatch goes forward and back before the next begins.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Rows of a microbatch, from half to twice as many; all of them where no such number divides them. On an AMD EPYC, these
# sizes are equally fast with two layers of 64 and with two of 256.
_MICROBATCH = 512


def map_rows(fn: Callable[[Any], Any], rows: Any) -> Any:
    """`fn(rows)`, for a function of each row alone; the leaves of `rows` and of the result are `[N, ...]`."""
    microbatches = _num_microbatches(rows)
    if microbatches == 1:
        return fn(rows)

    def in_microbatches(rows):
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(fn, _split(rows, microbatches)))

    return jax.lax.platform_dependent(rows, cpu=in_microbatches, default=fn)


def grad_of_mean(loss: Callable[[Any, Any], tuple[jax.Array, Any]], params: Any, rows: Any) -> tuple[Any, Any]:
    """`jax.grad(loss, has_aux=True)(params, rows)`, for a loss, and floats beside it, that are means over rows `[N, ...]`."""
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
    """Into how many equal microbatches to cut the rows, for them to be nearest to `_MICROBATCH` by ratio."""
    num = jax.tree.leaves(rows)[0].shape[0]
    sizes = [size for size in range(_MICROBATCH // 2, 2 * _MICROBATCH + 1) if num % size == 0]
    return num // min(sizes, key=lambda size: abs(math.log(size / _MICROBATCH)), default=num)


def _split(rows: Any, microbatches: int) -> Any:
    return jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), rows)
