"""Products in which a value of weight 0 may be infinite or NaN: it affects neither the result nor the gradient."""

import jax
import jax.numpy as jnp


def mask_unweighted(weight: jax.Array, value: jax.Array) -> jax.Array:
    """`value` `[..., *more]`, with 0 in place of values that are not finite and whose weight `[...]` is 0.

    Finite values are kept even where the weight is 0, since the gradient with respect to the weight needs them.
    """
    weight = jnp.reshape(weight, jnp.shape(weight) + (1,) * (jnp.ndim(value) - jnp.ndim(weight)))
    return jnp.where((weight != 0) | jnp.isfinite(value), value, jnp.zeros((), value.dtype))


@jax.custom_jvp
def safe_multiply(weight: jax.Array, value: jax.Array) -> jax.Array:
    """weight × value, each `[...]`; 0 where the weight is 0, whatever the value."""
    # One comparison instead of the two of `mask_unweighted`: returns do this at every step, and are seldom differentiated.
    return weight * jnp.where(weight != 0, value, jnp.zeros((), value.dtype))


@safe_multiply.defjvp
def _safe_multiply_jvp(primals, tangents):
    (weight, value), (weight_dot, value_dot) = primals, tangents
    return safe_multiply(weight, value), weight_dot * mask_unweighted(weight, value) + weight * value_dot
