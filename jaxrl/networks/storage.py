"""Hidden values that are stored in bfloat16 and computed with in float32.

Small networks are limited by the memory traffic between their matrix products, which bfloat16 halves. Only what is stored is
rounded: the results of hidden layers, and the gradients with respect to them. Parameters and arithmetic stay in float32, so no
weight needs a cast, and each cast is part of the kernel that computes or reads the value.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def stored(x: jax.Array, dtype: str) -> jax.Array:
    """`x` as it is read after it was stored in `dtype`. Its gradient passes through unchanged."""
    return x if dtype == "float32" else _stored(x, dtype)


def gradient_stored(x: jax.Array, dtype: str) -> jax.Array:
    """`x`, whose gradient is stored in `dtype`."""
    return x if dtype == "float32" else _gradient_stored(x, dtype)


@functools.cache  # flax compares the fields of modules, and two partial functions would differ
def product_for(dtype: str) -> Callable[..., jax.Array]:
    """`lax.dot_general` with the gradient of its result stored in `dtype`, for `nn.Dense`."""

    def product(*args: Any, **kwargs: Any) -> jax.Array:
        return gradient_stored(jax.lax.dot_general(*args, **kwargs), dtype)

    return product


def _round_trip(x: jax.Array, dtype: str) -> jax.Array:
    # Without the barrier, XLA would remove the two casts, and store float32.
    return jax.lax.optimization_barrier(x.astype(DTYPES[dtype])).astype(x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _stored(x: jax.Array, dtype: str) -> jax.Array:
    return _round_trip(x, dtype)


_stored.defvjp(lambda x, dtype: (_round_trip(x, dtype), None), lambda dtype, _, gradient: (gradient,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gradient_stored(x: jax.Array, dtype: str) -> jax.Array:
    return x


_gradient_stored.defvjp(lambda x, dtype: (x, None), lambda dtype, _, gradient: (_round_trip(gradient, dtype),))
