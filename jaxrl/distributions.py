"""Action distributions as functions of parameters and noise; nothing but jax.

Each is a `Distribution`, a record of pure functions. Randomness comes in as `noise`, drawn ahead by
`noise(key, shape)` with the shape of the parameters, so that `sample` is deterministic. Leading
dimensions are free, the last axis is the event: the logits of A actions, or m action dimensions.

>>> import jax, jax.numpy as jnp
>>> logits = jnp.array([0.0, 1.0, -jnp.inf])
>>> action = categorical.sample(logits, categorical.noise(jax.random.key(0), logits.shape))
>>> int(action) in (0, 1), int(categorical.mode(logits))
(True, 1)
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.losses import greedy, select

Gaussian = tuple[jax.Array, jax.Array]  # mean and log of the standard deviation, each [..., m]


class Distribution(NamedTuple):
    """`noise(key, shape)`, `sample(params, noise)`, `mode(params)`, `log_prob(params, x)`, `entropy(params)`.

    Samples are `[...]` (categorical) or `[..., m]`; log-probabilities and entropies (in nats) `[...]`.
    """

    noise: Callable[[jax.Array, tuple[int, ...]], jax.Array]
    sample: Callable[[Any, jax.Array], jax.Array]
    mode: Callable[[Any], jax.Array]
    log_prob: Callable[[Any, jax.Array], jax.Array]
    entropy: Callable[..., jax.Array]


def _categorical_log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    return select(jax.nn.log_softmax(logits), action)


def _categorical_entropy(logits: jax.Array) -> jax.Array:
    log_p = jax.nn.log_softmax(logits)
    possible = jnp.isfinite(log_p)  # an action masked by −inf adds 0, in value and in gradient
    return -jnp.sum(jnp.where(possible, jnp.exp(log_p) * jnp.where(possible, log_p, 0.0), 0.0), axis=-1)


categorical = Distribution(
    noise=lambda key, shape: jax.random.gumbel(key, shape),
    sample=lambda logits, noise: greedy(logits + noise.astype(logits.dtype)),  # the Gumbel-max trick
    mode=greedy,
    log_prob=_categorical_log_prob,
    entropy=_categorical_entropy,
)
"""Over 0 … A-1, given logits `[..., A]`; an action with logit −inf is never taken."""


def _gaussian_sample(params: Gaussian, noise: jax.Array) -> jax.Array:
    mean, log_std = params
    return mean + jnp.exp(log_std) * noise.astype(mean.dtype)


def _gaussian_log_prob(params: Gaussian, x: jax.Array) -> jax.Array:
    mean, log_std = params
    z = (x - mean) * jnp.exp(-log_std)
    return -jnp.sum(0.5 * jnp.square(z) + log_std + 0.5 * math.log(2 * math.pi), axis=-1)


def _gaussian_entropy(params: Gaussian) -> jax.Array:
    mean, log_std = params
    return jnp.sum(jnp.broadcast_to(log_std, mean.shape) + 0.5 * math.log(2 * math.pi * math.e), axis=-1)


diagonal_gaussian = Distribution(
    noise=lambda key, shape: jax.random.normal(key, shape),
    sample=_gaussian_sample,
    mode=lambda params: params[0],
    log_prob=_gaussian_log_prob,
    entropy=_gaussian_entropy,
)
"""Independent normals, given (mean, log_std), each `[..., m]`. `sample` is reparameterised."""


def _log_slope(u: jax.Array) -> jax.Array:
    """log(1 − tanh²u), without the cancellation that makes it −inf from |u| ≈ 9 on."""
    return 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))


def _tanh_log_prob(params: Gaussian, action: jax.Array) -> jax.Array:
    inside = jnp.clip(action, -1 + jnp.finfo(action.dtype).epsneg, 1 - jnp.finfo(action.dtype).epsneg)
    return tanh_log_prob_at(params, 0.5 * (jnp.log1p(inside) - jnp.log1p(-inside)))


def tanh_log_prob_at(params: Gaussian, u: jax.Array) -> jax.Array:
    """log-density of the action tanh(u), given u: exact also where tanh(u) rounds to ±1.

    Args:
      params: (mean, log_std), each `[..., m]`.
      u: the sample before the tanh, `[..., m]`, as `diagonal_gaussian.sample` gives it.

    Returns:
      `[...]` (Haarnoja et al. 2018, appendix C, eq. 21).
    """
    return _gaussian_log_prob(params, u) - jnp.sum(_log_slope(u), axis=-1)


def _tanh_entropy(params: Gaussian, noise: jax.Array) -> jax.Array:
    return _gaussian_entropy(params) + jnp.sum(_log_slope(_gaussian_sample(params, noise)), axis=-1)


tanh_gaussian = Distribution(
    noise=diagonal_gaussian.noise,
    sample=lambda params, noise: jnp.tanh(_gaussian_sample(params, noise)),
    mode=lambda params: jnp.tanh(params[0]),
    log_prob=_tanh_log_prob,
    entropy=_tanh_entropy,
)
"""tanh of independent normals: actions in (−1, 1), given (mean, log_std) before the tanh, each `[..., m]`.

`entropy(params, noise)` has no closed form: it is the estimate at one reparameterised sample, whose
mean over the noise is the entropy. `mode` is the tanh of the normal's mode."""
