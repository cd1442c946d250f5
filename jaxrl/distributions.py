"""Action distributions, as functions of parameters and noise that depend only on jax.

Each is a `Distribution`, a record of pure functions. Randomness is an argument, `noise`, drawn beforehand by
`noise(key, shape)` with the shape of the parameters, so that `sample` is deterministic. Parameters have any
leading axes; the last axis holds the logits of A actions, or m action dimensions. Logits and action values
of illegal actions are −inf (see `mask_illegal`).

Floating-point parameters and actions are promoted to their common floating type, which the result has.
Integers and booleans are converted to it, and so are noise, ε and temperatures, which do not widen it.
Shapes that do not match raise a ValueError when the function is traced.

>>> import jax, jax.numpy as jnp
>>> logits = mask_illegal(jnp.array([0.0, 1.0, 5.0]), jnp.array([True, True, False]))
>>> action = categorical.sample(logits, categorical.noise(jax.random.key(0), logits.shape))
>>> int(action) in (0, 1), int(categorical.mode(logits))
(True, 1)
>>> old, new = (jnp.zeros(2), jnp.zeros(2)), (jnp.ones(2), jnp.zeros(2))  # mean and log_std
>>> float(diagonal_gaussian.kl(old, new))
1.0
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import betaln, digamma

from jaxrl._src.dtypes import floating_type, promote
from jaxrl.losses import entropy, greedy, select

Gaussian = tuple[jax.Array, jax.Array]  # mean and log of the standard deviation, each [..., m]
Beta = tuple[jax.Array, jax.Array]  # alpha and beta, each [..., m]


class Distribution(NamedTuple):
    """`noise(key, shape)`, `sample(params, noise)`, `mode(params)`, `log_prob(params, x)`, `entropy(params)`, `kl(params, other)`

    Samples are `[...]` (over A actions) or `[..., m]`; log-probabilities, entropies and divergences (in nats)
    `[...]`. `kl` is KL(p‖q) = E_p log(p/q) of p with `params` and q with `other`: at least 0, and 0 for equal
    distributions, up to rounding.
    """

    noise: Callable[[jax.Array, tuple[int, ...]], jax.Array]
    sample: Callable[[Any, jax.Array], jax.Array]
    mode: Callable[[Any], jax.Array]
    log_prob: Callable[[Any, jax.Array], jax.Array]
    entropy: Callable[..., jax.Array]
    kl: Callable[[Any, Any], jax.Array]


def _check(what: str, x: jax.Array, kind: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `x` has this shape and a dtype of `kind`, which is a class such as `jnp.integer`."""
    given = jax.typeof(x)
    if given.shape != shape or not jnp.issubdtype(given.dtype, kind):
        raise ValueError(f"{what} must be {kind.__name__} of shape {shape}, to fit the rest; got {given}")


def _check_shape(what: str, x: jax.Array, shape: tuple[int, ...]) -> None:
    if jnp.shape(x) != shape:
        raise ValueError(f"{what} must be of shape {shape}, to fit the rest; got {jax.typeof(x)}")


def _spread(what: str, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    try:
        return jnp.broadcast_to(x, shape)
    except ValueError:
        raise ValueError(f"{what} must broadcast to the shape {shape}; got {jax.typeof(x)}") from None


def _wide(x: jax.Array) -> jax.Array:
    """`x` in float32 at least: where a result is a small difference of large terms, bfloat16 would lose all its digits."""
    return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)


def mask_illegal(logits: jax.Array, legal: jax.Array) -> jax.Array:
    """`logits` where `legal`, else −inf, which marks an action that is never taken (Huang & Ontañón 2022).

    With the result as parameters of `categorical`, as action values of `epsilon_greedy` and `boltzmann`, or as action
    values in `losses`, everything is as if only the legal actions existed, and illegal ones get no gradient.

    Args:
      logits: logits or action values, `[..., A]`. Differentiated.
      legal: bool, `[..., A]` or a shape that broadcasts to it, such as `[A]`. At least one action must be legal; otherwise
        the distribution is undefined (its samples are 0, its log-probabilities NaN).

    Returns:
      `[..., A]`.

    Raises:
      ValueError: if the shapes do not match, or `legal` is not boolean.

    >>> import jax.numpy as jnp
    >>> categorical.log_prob(mask_illegal(jnp.array([1e9, 0.0, 0.0]), jnp.array([False, True, False])), jnp.int32(1)).tolist()
    0.0
    """
    legal = _spread("mask_illegal: legal", legal, jnp.shape(logits))
    _check("mask_illegal: legal", legal, jnp.bool_, jnp.shape(logits))
    (logits,) = promote(logits)
    return jnp.where(legal, logits, -jnp.inf)


# --- over A actions


def _log_softmax(logits: jax.Array) -> jax.Array:
    (logits,) = promote(logits)
    return jax.nn.log_softmax(logits)


def _categorical_sample(logits: jax.Array, noise: jax.Array) -> jax.Array:
    _check("categorical: noise", noise, jnp.floating, jnp.shape(logits))
    logits = _wide(*promote(logits))  # in bfloat16 the sums would often tie, and ties go to the first action
    return greedy(logits + noise.astype(logits.dtype))  # the Gumbel-max trick


def _categorical_log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    _check("categorical: action", action, jnp.integer, jnp.shape(logits)[:-1])
    return select(_log_softmax(logits), action)


def _categorical_kl(logits: jax.Array, other: jax.Array) -> jax.Array:
    _check_shape("categorical: the other logits", other, jnp.shape(logits))
    logits, other = promote(logits, other)
    log_p, log_q = _log_softmax(_wide(logits)), _log_softmax(_wide(other))
    never, never_in_q = log_p == -jnp.inf, log_q == -jnp.inf
    log_ratio = jnp.where(never | never_in_q, 0.0, log_p - log_q)  # not −inf − (−inf), a NaN that would reach the gradient
    return jnp.sum(jnp.where(never_in_q & ~never, jnp.inf, jnp.exp(log_p) * log_ratio), axis=-1).astype(logits.dtype)


categorical = Distribution(
    noise=lambda key, shape: jax.random.gumbel(key, shape),
    sample=_categorical_sample,
    mode=greedy,
    log_prob=_categorical_log_prob,
    entropy=entropy,
    kl=_categorical_kl,
)
"""Over 0 … A-1, given logits `[..., A]`; an action with logit −inf is never taken (see `mask_illegal`).

p = softmax(logits), H = −Σ p log p, KL = Σ p log(p / q), which is inf if an action that is legal in p is
illegal in q. `sample` is argmax(logits + Gumbel noise), the Gumbel-max trick (Maddison et al. 2014), int32 `[...]`
and without a gradient; all other functions are differentiable in the logits."""


def _from_action_values(logits_of: Callable[[Any], jax.Array]) -> Distribution:
    """Categorical over `logits_of(params)`, which are in float32 at least; the parameters begin with the action values."""

    def kl(params, other):
        return categorical.kl(logits_of(params), logits_of(other)).astype(floating_type(params[0], other[0]))

    return Distribution(
        noise=categorical.noise,
        sample=lambda params, noise: categorical.sample(logits_of(params), noise),
        mode=lambda params: greedy(params[0]),
        log_prob=lambda params, x: categorical.log_prob(logits_of(params), x).astype(floating_type(params[0])),
        entropy=lambda params: categorical.entropy(logits_of(params)).astype(floating_type(params[0])),
        kl=kl,
    )


def _epsilon_greedy_logits(params: tuple[jax.Array, jax.Array]) -> jax.Array:
    q = _wide(*promote(params[0]))
    epsilon = _spread("epsilon_greedy: epsilon", jnp.asarray(params[1], q.dtype), q.shape[:-1])[..., None]
    legal, explores = q > -jnp.inf, epsilon > 0.0
    count = jnp.sum(legal, axis=-1, keepdims=True).astype(q.dtype)
    explored = jnp.log(jnp.where(explores, epsilon, 1.0)) - jnp.log(count)  # log 0 would have no finite gradient
    epsilon = jnp.where(epsilon == 0.0, 0.0, epsilon)  # no gradient reaches an ε of 0
    exploited = jnp.log1p(-epsilon * (1.0 - 1.0 / count))
    is_greedy = jax.nn.one_hot(greedy(q), q.shape[-1], dtype=jnp.bool_)
    return jnp.where(is_greedy, exploited, jnp.where(legal & explores, explored, -jnp.inf))


epsilon_greedy = _from_action_values(_epsilon_greedy_logits)
"""With probability ε a uniformly random legal action, else the greedy one, given (q `[..., A]`, ε).

π(a) = ε/n + (1 − ε) [a is greedy], for n legal actions (Sutton & Barto 2018, section 2.2). Actions
with q = −inf are illegal and are not explored either. The greedy action, `losses.greedy(q)`, is the mode. ε in
[0, 1] is a scalar or broadcasts to `[...]`. Differentiable in ε (the gradient is 0 where ε is 0); the gradient
with respect to q is 0, since π is piecewise constant in q. Samples are not reparameterised.
`exploration.epsilon_greedy` is a cheaper sampler."""


def _boltzmann_logits(params: tuple[jax.Array, jax.Array]) -> jax.Array:
    q = _wide(*promote(params[0]))
    temperature = _spread("boltzmann: temperature", jnp.asarray(params[1], q.dtype), q.shape[:-1])[..., None]
    least = math.sqrt(jnp.finfo(q.dtype).tiny)  # the gradient divides by the square of the temperature
    below = q - jax.lax.stop_gradient(jnp.max(q, axis=-1, keepdims=True))  # 0 for the best action, at any temperature
    possible = below > -jnp.inf
    logits = jnp.where(possible, below, 0.0) / jnp.where(temperature < least, least, temperature)
    return jnp.where(possible, logits, -jnp.inf)


boltzmann = _from_action_values(_boltzmann_logits)
"""softmax(q / temperature), given (q `[..., A]`, temperature) (Sutton & Barto 2018, eq. 2.11).

The temperature ≥ 0 is a scalar or broadcasts to `[...]`. As it approaches 0, the policy
becomes uniform over the actions with the largest q; a temperature below 1e-19 (in float64, 1e-154) counts as that
value and gets no gradient. Actions with q = −inf are illegal. The mode is `losses.greedy(q)`. Differentiable in q
and the temperature; samples are not reparameterised."""


# --- over m action dimensions


def _gaussian(params: Gaussian, *others: jax.Array) -> list[jax.Array]:
    """The parameters, of one shape, and `others`, all of one dtype."""
    mean, log_std, *rest = promote(*params, *others)
    return [mean, _spread("Gaussian: log_std", log_std, mean.shape), *rest]


def _gaussian_sample(params: Gaussian, noise: jax.Array) -> jax.Array:
    mean, log_std = _gaussian(params)
    _check("Gaussian: noise", noise, jnp.floating, mean.shape)
    return mean + jnp.exp(log_std) * noise.astype(mean.dtype)


def _gaussian_log_prob(params: Gaussian, x: jax.Array) -> jax.Array:
    mean, log_std, x = _gaussian(params, x)
    _check_shape("Gaussian: x", x, mean.shape)
    z = (x - mean) * jnp.exp(-log_std)
    return -jnp.sum(0.5 * jnp.square(z) + log_std + 0.5 * math.log(2 * math.pi), axis=-1)


def _gaussian_entropy(params: Gaussian) -> jax.Array:
    _, log_std = _gaussian(params)
    return jnp.sum(log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1)


def _gaussian_kl(params: Gaussian, other: Gaussian) -> jax.Array:
    mean, log_std, other_mean, other_log_std = _gaussian(params, *other)
    _check_shape("Gaussian: the other mean", other_mean, mean.shape)
    other_log_std = _spread("Gaussian: the other log_std", other_log_std, mean.shape)
    log_ratio, z = log_std - other_log_std, (mean - other_mean) * jnp.exp(-other_log_std)
    return jnp.sum(0.5 * (jnp.expm1(2.0 * log_ratio) + jnp.square(z)) - log_ratio, axis=-1)


diagonal_gaussian = Distribution(
    noise=lambda key, shape: jax.random.normal(key, shape),
    sample=_gaussian_sample,
    mode=lambda params: promote(*params)[0],
    log_prob=_gaussian_log_prob,
    entropy=_gaussian_entropy,
    kl=_gaussian_kl,
)
"""Independent normals, given (mean, log_std): `[..., m]`, and what broadcasts to it, such as `[m]`.

H = Σ log_std + ½ log 2πe; KL = Σ ½ (σ²/σ'² − 1 + (μ − μ')²/σ'²) − log σ/σ'. `sample` is reparameterised,
mean + exp(log_std) · noise (Kingma & Welling 2014); all is differentiated in the parameters and in x."""


def _log_slope(u: jax.Array) -> jax.Array:
    """log(1 − tanh²u), without the cancellation that would make it −inf for |u| > 9."""
    return 2.0 * (math.log(2.0) - u - jax.nn.softplus(-2.0 * u))


def _tanh_log_prob(params: Gaussian, action: jax.Array) -> jax.Array:
    mean, log_std, action = _gaussian(params, action)
    _check_shape("tanh_gaussian: action", action, mean.shape)
    last = 1 - jnp.finfo(mean.dtype).epsneg
    inside = jnp.clip(action, -last, last)
    return tanh_log_prob_at((mean, log_std), 0.5 * (jnp.log1p(inside) - jnp.log1p(-inside)))


def tanh_log_prob_at(params: Gaussian, u: jax.Array) -> jax.Array:
    """Log-density of the action tanh(u), given u; accurate even where tanh(u) rounds to ±1.

    Args:
      params: (mean, log_std), each `[..., m]`.
      u: the sample before the tanh, `[..., m]`, as `diagonal_gaussian.sample` returns it.

    Returns:
      `[...]` (Haarnoja et al. 2018, appendix C, eq. 21).

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> params, u = (jnp.zeros(1), jnp.zeros(1)), jnp.array([20.0])  # tanh(20) is 1 in float32
    >>> round(float(tanh_log_prob_at(params, u)), 2)
    -162.31
    """
    log_prob = _gaussian_log_prob(params, u)
    return log_prob - jnp.sum(_log_slope(jnp.asarray(u, log_prob.dtype)), axis=-1)


def _tanh_entropy(params: Gaussian, noise: jax.Array) -> jax.Array:
    return _gaussian_entropy(params) + jnp.sum(_log_slope(_gaussian_sample(params, noise)), axis=-1)


tanh_gaussian = Distribution(
    noise=diagonal_gaussian.noise,
    sample=lambda params, noise: jnp.tanh(_gaussian_sample(params, noise)),
    mode=lambda params: jnp.tanh(promote(*params)[0]),
    log_prob=_tanh_log_prob,
    entropy=_tanh_entropy,
    kl=_gaussian_kl,
)
"""tanh of independent normals: actions in (−1, 1), given (mean, log_std) before the tanh, as `diagonal_gaussian`'s.

log π(a) = log N(artanh a) − Σ log(1 − a²) (Haarnoja et al. 2018, appendix C). An action on a bound counts
as the last number before it; use `tanh_log_prob_at` where u = artanh a is known. The entropy has no closed form:
`entropy(params, noise)` is an unbiased estimate from one reparameterised sample. `kl` is that of the normals, since tanh
is a bijection. `mode` is the tanh of the normals' mode. `sample` is reparameterised."""


def _beta(params: Beta, *others: jax.Array) -> tuple[list[jax.Array], Any]:
    """The parameters and `others`, checked and in float32 at least, and the dtype of the result."""
    a, b, *rest = promote(*params, *others)
    _check_shape("beta: beta", b, a.shape)
    return [_wide(x) for x in (a, b, *rest)], a.dtype


def _beta_sample(params: Beta, noise: jax.Array) -> jax.Array:
    (a, b), dtype = _beta(params)
    _check("beta: noise", noise, jax.dtypes.prng_key, a.shape)
    draw: Callable[..., jax.Array] = partial(jax.random.beta, dtype=a.dtype)
    for _ in a.shape:
        draw = jax.vmap(draw)
    return draw(noise, a, b).astype(dtype)


def _beta_mode(params: Beta) -> jax.Array:
    (a, b), dtype = _beta(params)
    left, right = jnp.maximum(a - 1.0, 0.0), jnp.maximum(b - 1.0, 0.0)
    has_peak = left + right > 0.0
    bound = 0.5 + 0.5 * jnp.sign(a - b)  # where α, β ≤ 1: the bound towards which the density grows faster
    return jnp.where(has_peak, left / jnp.where(has_peak, left + right, 1.0), bound).astype(dtype)


def _log_beta(a: jax.Array, b: jax.Array) -> jax.Array:
    """log B(α, β), from B(α + 1, β + 1), since the gradient of JAX's `betaln` is NaN near 0."""
    return betaln(a + 1.0, b + 1.0) + jnp.log1p(a + b) + jnp.log(a + b) - jnp.log(a) - jnp.log(b)


def _beta_log_prob(params: Beta, x: jax.Array) -> jax.Array:
    (a, b, x), dtype = _beta(params, x)
    _check_shape("beta: x", x, a.shape)
    limits = jnp.finfo(a.dtype)
    least = limits.tiny / limits.epsneg  # so that (α − 1) / x is finite
    last = 1 - jnp.finfo(dtype).epsneg.astype(a.dtype)
    inside = jnp.clip(x, least, last)
    return jnp.sum((a - 1.0) * jnp.log(inside) + (b - 1.0) * jnp.log1p(-inside) - _log_beta(a, b), axis=-1).astype(dtype)


def _beta_log_means(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """E log x and E log(1 − x), the expectations in entropy and KL."""
    return digamma(a) - digamma(a + b), digamma(b) - digamma(a + b)


def _beta_entropy(params: Beta) -> jax.Array:
    (a, b), dtype = _beta(params)
    log_x, log_1_minus_x = _beta_log_means(a, b)
    return jnp.sum(_log_beta(a, b) - (a - 1.0) * log_x - (b - 1.0) * log_1_minus_x, axis=-1).astype(dtype)


def _beta_kl(params: Beta, other: Beta) -> jax.Array:
    (a, b, c, d), dtype = _beta(params, *other)
    _check_shape("beta: the other alpha", c, a.shape)
    _check_shape("beta: the other beta", d, a.shape)
    log_x, log_1_minus_x = _beta_log_means(a, b)
    return jnp.sum(_log_beta(c, d) - _log_beta(a, b) + (a - c) * log_x + (b - d) * log_1_minus_x, axis=-1).astype(dtype)


beta = Distribution(
    noise=lambda key, shape: jax.random.split(key, shape),
    sample=_beta_sample,
    mode=_beta_mode,
    log_prob=_beta_log_prob,
    entropy=_beta_entropy,
    kl=_beta_kl,
)
"""Independent Beta distributions: actions in (0, 1), given (α, β) > 0, each `[..., m]` (Chou et al. 2017).

log π(x) = Σ (α − 1) log x + (β − 1) log(1 − x) − log B(α, β); `entropy` and `kl` are the closed forms with the
digamma function. All functions are differentiable in the parameters and in x; `sample` by implicit reparameterisation
(Figurnov et al. 2018). A sample may round to a bound; `log_prob` treats it as the last number before it, so it is finite.
In float32, `log_prob`, `entropy` and `kl` have rounding errors of about 3e-6 (1 + α + β).

Sampling consumes a varying number of random numbers, so the noise is typed PRNG keys, one for each sample (and `key`
must be typed). It is a rejection loop, whose end a GPU reports to the host: where speed matters, sample outside
inner loops, or use `tanh_gaussian`. `mode` is (α − 1) / (α + β − 2) inside the bounds; if neither parameter exceeds 1,
it is the bound with the larger parameter, or ½ if they are equal."""
