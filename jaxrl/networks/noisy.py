"""Noisy networks (Fortunato et al. 2018): dense layers whose weights are perturbed by noise of a learned scale."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrl.networks.storage import gradient_stored
from jaxrl.spaces import Space, spec

_INITIAL_SCALE = 0.5  # σ₀ of the paper


class NoisyDense(nn.Module):
    """A dense layer with factorised Gaussian noise (Fortunato et al. 2018, eq. 9 to 11).

    The weights are μ + σ ∘ (ε_in ε_outᵀ) and the bias is μ_b + σ_b ∘ ε_out. The factors ε are read from the variables "input"
    and "output" of the collection "noise". Without them, weights and bias are the means μ.
    """

    features: int
    dtype: str = "float32"  # in which the gradients of the products are stored

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = x.shape[-1]
        bound = 1.0 / math.sqrt(size)
        uniform = lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound)
        constant = nn.initializers.constant(_INITIAL_SCALE * bound)
        parameters = {"kernel": (uniform, (size, self.features)), "kernel_scale": (constant, (size, self.features)),
                      "bias": (uniform, (self.features,)), "bias_scale": (constant, (self.features,))}  # fmt: skip
        kernel, kernel_scale, bias, bias_scale = (
            self.param(name, init, shape, jnp.float32) for name, (init, shape) in parameters.items()
        )
        x = x.astype(jnp.float32)
        product = lambda x, kernel: gradient_stored(x @ kernel, self.dtype)
        if self.is_initializing():
            for name, num_units in (("input", size), ("output", self.features)):
                self.variable("noise", name, jnp.zeros, (num_units,))
        elif self.has_variable("noise", "input"):
            eps_in: jax.Array = self.get_variable("noise", "input")
            eps_out: jax.Array = self.get_variable("noise", "output")
            if eps_in.ndim == 1:  # one weight matrix for the whole batch
                kernel = kernel + kernel_scale * (eps_in[:, None] * eps_out[None, :])
                bias = bias + bias_scale * eps_out
            else:  # Σ_i x_i σ_ij ε_i ε'_j = ((x ∘ ε) σ) ∘ ε': a matrix for each row is never built
                eps_in, eps_out = (eps.reshape((1,) * (x.ndim - eps.ndim) + eps.shape) for eps in (eps_in, eps_out))
                perturbation = (product(x * eps_in, kernel_scale) + _row(bias_scale, x)) * eps_out
                return product(x, kernel) + _row(bias, x) + perturbation
        return product(x, kernel) + _row(bias, x)


def _row(vector: jax.Array, like: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)


class NoisyNetwork(NamedTuple):
    """A network with noise in its weights, a `jaxrl.types.NoisyNetwork`."""

    init: Callable[..., Any]  # (key, obs) -> params
    apply: Callable[..., Any]  # (params, obs, noise=None) -> outputs
    noise: Callable[[jax.Array, tuple[int, ...]], jax.Array]  # (key, batch_shape) -> float32[*batch_shape, units]


def noisy_network(module: nn.Module, observation_space: Space) -> NoisyNetwork:
    """Make the noise of a module's layers of type `NoisyDense` an argument of `apply`.

    `noise(key, batch_shape)` draws f(ε) with f(x) = sign(x) √|x| for standard normal ε, as one array `[*batch_shape, units]` that
    holds the factors of all layers. `apply(params, obs[*batch, *obs_shape], noise)` takes noise `[units]`, the same weights for
    the whole batch, or noise whose leading axes broadcast to `batch`, such as one perturbation for each row, `[N, units]`.
    Without noise, the network uses the means of the weights.
    """
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), spec(observation_space))
    leaves, structure = jax.tree.flatten(jax.eval_shape(module.init, jax.random.key(0), example)["noise"])
    ends = np.cumsum([leaf.size for leaf in leaves])

    def init(key, obs):
        return {"params": module.init(key, obs)["params"]}

    def apply(params, obs, noise=None):
        if noise is None:
            return module.apply(params, obs)
        factors = jax.tree.unflatten(structure, jnp.split(noise, ends[:-1], axis=-1))
        return module.apply(params | {"noise": factors}, obs)

    def noise(key, batch_shape):
        normal = jax.random.normal(key, (*batch_shape, int(ends[-1])), jnp.float32)
        return jnp.sign(normal) * jnp.sqrt(jnp.abs(normal))

    return NoisyNetwork(init, apply, noise)
