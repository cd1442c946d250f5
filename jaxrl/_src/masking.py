"""What has no weight is not read: a value with the weight 0 may be infinite or NaN, and spoils neither result nor gradient."""

import jax
import jax.numpy as jnp


def read(weight: jax.Array, value: jax.Array) -> jax.Array:
    """`value` `[..., *more]`, and 0 where it is not finite and its weight `[...]` is 0.

    Finite values stay, also without a weight: the gradient in the weight needs them.
    """
    weight = jnp.reshape(weight, jnp.shape(weight) + (1,) * (jnp.ndim(value) - jnp.ndim(weight)))
    return jnp.where((weight != 0) | jnp.isfinite(value), value, jnp.zeros((), value.dtype))


@jax.custom_jvp
def weigh(weight: jax.Array, value: jax.Array) -> jax.Array:
    """weight × value, each `[...]`."""
    # One comparison, not `read`'s two: the returns do this at every step, and their gradient is seldom taken.
    return weight * jnp.where(weight != 0, value, jnp.zeros((), value.dtype))


@weigh.defjvp
def _weigh_jvp(primals, tangents):
    (weight, value), (weight_dot, value_dot) = primals, tangents
    return weigh(weight, value), weight_dot * read(weight, value) + weight * value_dot
