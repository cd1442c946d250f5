"""What has no weight is not read: a value with the weight 0 may be infinite or NaN, and spoils neither result nor gradient."""

import jax
import jax.numpy as jnp


def mask_unweighted(weight: jax.Array, value: jax.Array) -> jax.Array:
    """`value` `[..., *more]`, and 0 where it is not finite and its weight `[...]` is 0.

    Finite values stay, also without a weight: the gradient in the weight needs them.
    """
    weight = jnp.reshape(weight, jnp.shape(weight) + (1,) * (jnp.ndim(value) - jnp.ndim(weight)))
    return jnp.where((weight != 0) | jnp.isfinite(value), value, jnp.zeros((), value.dtype))


@jax.custom_jvp
def safe_multiply(weight: jax.Array, value: jax.Array) -> jax.Array:
    """weight × value, each `[...]`."""
    # One comparison, not `mask_unweighted`'s two: the returns do this at every step, and their gradient is seldom taken.
    return weight * jnp.where(weight != 0, value, jnp.zeros((), value.dtype))


@safe_multiply.defjvp
def _safe_multiply_jvp(primals, tangents):
    (weight, value), (weight_dot, value_dot) = primals, tangents
    return safe_multiply(weight, value), weight_dot * mask_unweighted(weight, value) + weight * value_dot
