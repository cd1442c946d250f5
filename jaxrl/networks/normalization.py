"""Batch renormalisation."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl._src.shards import mean as mean_of_shards

_EPS = 1e-3  # added to the variance
_STEP_SIZE = 0.01  # of the running statistics
_MAX_SCALE, _MAX_SHIFT = 3.0, 5.0  # the bounds on r and d, once they have grown
_START, _SCALE_END, _SHIFT_END = 5_000.0, 40_000.0, 25_000.0  # passes in training before the bounds grow, and until they have


class BatchRenorm(nn.Module):
    """Batch renormalisation (Ioffe 2017, algorithm 1) of inputs `[..., F]` over all axes but the last, in float32.

    With mean μ_B and standard deviation σ_B of the batch, and running statistics μ and σ, the output is γ x̂ + β with

    - in training, x̂ = (x − μ_B) / σ_B · r + d, where r = clip(σ_B / σ, 1/r_max, r_max) and d = clip((μ_B − μ) / σ, ±d_max) have
      no gradient. Where neither is clipped, x̂ is the same as in evaluation.
    - in evaluation, x̂ = (x − μ) / σ.

    The batch is that of all shards of an agent (see `jaxrl.shards`). As in the paper, r_max = 1 and d_max = 0, which is batch
    normalisation, for the first 5,000 passes in training; then r_max grows linearly to 3 at pass 40,000, and d_max to 5 at pass
    25,000.

    γ and β are parameters. The collection "statistics" has `mean` and `std`, each `[F]`, and `count`, the number of passes in
    training up to 40,000, as a float. `vmap` over seeds batches the count, which is harmless: it is only used in arithmetic,
    never as an index of a write.
    """

    @nn.compact
    def __call__(self, x: jax.Array, training: bool) -> jax.Array:
        size = x.shape[-1:]
        mean = self.variable("statistics", "mean", jnp.zeros, size, jnp.float32)
        std = self.variable("statistics", "std", jnp.ones, size, jnp.float32)
        count = self.variable("statistics", "count", jnp.zeros, (), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, size, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, size, jnp.float32)
        like = lambda row: jnp.broadcast_to(row, x.shape)  # as strict rank promotion requires
        wide = x.astype(jnp.float32)
        if training and not self.is_initializing():
            axes = tuple(range(x.ndim - 1))
            batch_mean = mean_of_shards(jnp.mean(wide, axis=axes))
            centred = wide - like(batch_mean)
            batch_std = jnp.sqrt(mean_of_shards(jnp.mean(jnp.square(centred), axis=axes)) + _EPS)
            new_mean, new_std = jax.lax.stop_gradient((batch_mean, batch_std))
            r, d = jax.lax.stop_gradient(correction(new_mean, new_std, mean.value, std.value, count.value))
            normalized = centred * like(r / batch_std) + like(d)
            mean.value += _STEP_SIZE * (new_mean - mean.value)
            std.value += _STEP_SIZE * (new_std - std.value)
            count.value = jnp.minimum(count.value + 1.0, _SCALE_END)
        else:
            normalized = (wide - like(mean.value)) / like(std.value)
        return (normalized * like(scale) + like(bias)).astype(x.dtype)


def correction(
    batch_mean: jax.Array, batch_std: jax.Array, mean: jax.Array, std: jax.Array, count: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The clipped r and d of batch renormalisation, each `[F]`, after `count` passes in training."""
    max_scale = 1.0 + (_MAX_SCALE - 1.0) * jnp.clip((count - _START) / (_SCALE_END - _START), 0.0, 1.0)
    max_shift = _MAX_SHIFT * jnp.clip((count - _START) / (_SHIFT_END - _START), 0.0, 1.0)
    return jnp.clip(batch_std / std, 1.0 / max_scale, max_scale), jnp.clip((batch_mean - mean) / std, -max_shift, max_shift)
