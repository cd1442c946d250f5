"""Distributions against scipy.stats, sums and numeric integrals in float64, and the frequencies of samples.

A statistical check compares with what a correct sampler exceeds once in a million keys; the keys are
fixed, so it passes always or never.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.distributions import categorical, diagonal_gaussian, tanh_gaussian, tanh_log_prob_at

SHAPES = [(), (5,), (3, 4)]
ONE_IN_A_MILLION = 1e-6
NUM_SAMPLES = 100_000

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
categorical_log_prob = jax.jit(categorical.log_prob)
categorical_entropy = jax.jit(categorical.entropy)
gaussian_log_prob = jax.jit(diagonal_gaussian.log_prob)
tanh_log_prob = jax.jit(tanh_gaussian.log_prob)
few_examples = settings(deadline=None, max_examples=25)
gaussians = pytest.mark.parametrize("distribution", [diagonal_gaussian, tanh_gaussian], ids=["gaussian", "tanh"])


def softmax(logits):
    weights = np.exp(np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def log_slope(u):
    """log(1 − tanh²u) = −2 log cosh u, written so that nothing cancels or overflows."""
    u = np.abs(np.asarray(u, np.float64))
    return -2 * (u + np.log1p(np.exp(-2 * u)) - np.log(2))


def gaussian_log_density(mean, log_std, x):
    mean, log_std, x = (np.asarray(v, np.float64) for v in (mean, log_std, x))
    return scipy.stats.norm(mean, np.exp(log_std)).logpdf(x)


def tanh_log_density(mean, log_std, action):
    """log N(artanh a) − log(1 − a²) in float64, which resolves every float32 inside (−1, 1)."""
    action = np.asarray(action, np.float64)
    return gaussian_log_density(mean, log_std, np.arctanh(action)) - np.log1p(-(action**2))


def tanh_entropy_integral(mean, log_std):
    """−∫ p log p over one action dimension, as an integral over what goes into the tanh."""

    def integrand(u):
        log_p = gaussian_log_density(mean, log_std, u)
        return -np.exp(log_p) * (log_p - log_slope(u))

    std = np.exp(log_std)
    return scipy.integrate.quad(integrand, mean - 12 * std, mean + 12 * std, epsabs=1e-10, limit=200)[0]


def gaussian_params(shape, seed=0, m=3):
    rng = np.random.default_rng(seed)
    mean, log_std = rng.normal(size=(2, *shape, m)).astype(np.float32)
    return mean, 0.5 * log_std


def draw(distribution, params, event, seed=0):
    """`NUM_SAMPLES` samples of a distribution with unbatched `params`."""

    @jax.jit
    def samples(params, key):
        repeated = jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM_SAMPLES, event)), params)
        return distribution.sample(repeated, distribution.noise(key, (NUM_SAMPLES, event)))

    return np.asarray(samples(params, jax.random.key(seed)))


def assert_frequencies(counts, probabilities):
    """Pearson's chi-square test."""
    expected = counts.sum() * np.asarray(probabilities)
    statistic = np.sum((counts - expected) ** 2 / expected)
    assert statistic < scipy.stats.chi2.isf(ONE_IN_A_MILLION, len(counts) - 1)


# --- categorical


@few_examples
@given(st.sampled_from([((), 4), ((5,), 1), ((3, 4), 4), ((3, 4), 33)]), st.integers(0, 2**32 - 1))
def test_categorical_log_prob_and_entropy(sizes, seed):
    shape, num_actions = sizes
    rng = np.random.default_rng(seed)
    logits = (3 * rng.normal(size=(*shape, num_actions))).astype(np.float32)
    action = np.asarray(rng.integers(num_actions, size=shape), np.int32)
    log_prob, entropy = categorical_log_prob(logits, action), categorical_entropy(logits)
    assert log_prob.shape == entropy.shape == shape
    for i in np.ndindex(shape):
        probability = softmax(logits[i])
        one_hot = np.eye(num_actions)[action[i]]
        close(log_prob[i], scipy.stats.multinomial.logpmf(one_hot, 1, probability))
        close(entropy[i], scipy.stats.entropy(probability))


@pytest.mark.parametrize("num_actions", [4, 33])
def test_categorical_samples_follow_the_probabilities(num_actions):
    logits = np.random.default_rng(0).normal(size=num_actions).astype(np.float32)
    counts = np.bincount(draw(categorical, logits, num_actions), minlength=num_actions)
    assert_frequencies(counts, softmax(logits))


def test_categorical_samples_are_independent_between_positions():
    pairs = draw(categorical, np.zeros(3, np.float32), 3).reshape(-1, 2)
    assert_frequencies(np.bincount(3 * pairs[:, 0] + pairs[:, 1], minlength=9), np.full(9, 1 / 9))


def test_categorical_mode_is_the_first_of_the_likeliest():
    logits = jnp.array([[0.0, 2.0, 2.0], [1.0, 0.0, -jnp.inf]])
    assert categorical.mode(logits).tolist() == [1, 0]
    assert categorical.mode(logits).dtype == jnp.int32


@pytest.mark.parametrize("num_actions", [4, 34])
def test_masked_actions_are_as_if_they_were_not_there(num_actions):
    rng = np.random.default_rng(0)
    possible = np.arange(num_actions) % 2 == 1
    logits = np.where(possible, rng.normal(size=num_actions), -np.inf).astype(np.float32)
    fewer = logits[possible]

    counts = np.bincount(draw(categorical, logits, num_actions), minlength=num_actions)
    assert not counts[~possible].any()
    assert_frequencies(counts[possible], softmax(fewer))
    close(categorical_entropy(logits), categorical_entropy(fewer))
    close(categorical_log_prob(logits, jnp.int32(3)), categorical_log_prob(fewer, jnp.int32(1)))
    assert categorical_log_prob(logits, jnp.int32(2)) == -jnp.inf

    @jax.jit
    def gradients(logits, action):
        return jax.grad(categorical.entropy)(logits), jax.grad(categorical.log_prob)(logits, action)

    for masked, reduced in zip(gradients(logits, jnp.int32(3)), gradients(fewer, jnp.int32(1)), strict=True):
        np.testing.assert_array_equal(masked[~possible], np.zeros((~possible).sum()))
        close(masked[possible], reduced)


def test_one_possible_action_is_certain():
    logits = jnp.array([-jnp.inf, 0.7, -jnp.inf])
    assert set(draw(categorical, logits, 3).tolist()) == {1}
    assert categorical.entropy(logits) == 0.0
    assert categorical.log_prob(logits, jnp.int32(1)) == 0.0
    for function in (categorical.entropy, lambda x: categorical.log_prob(x, jnp.int32(1))):
        np.testing.assert_array_equal(jax.grad(function)(logits), np.zeros(3))


def test_probabilities_that_underflow_leave_the_entropy_finite():
    logits = jnp.array([0.0, 0.0, -1e4])
    close(categorical.entropy(logits), np.log(2))
    assert np.isfinite(jax.grad(categorical.entropy)(logits)).all()


def test_categorical_gradients_are_those_of_the_softmax():
    logits = np.random.default_rng(0).normal(size=5).astype(np.float32)
    probability = softmax(logits)
    close(jax.grad(categorical.log_prob)(logits, jnp.int32(2)), np.eye(5)[2] - probability)
    entropy = -np.sum(probability * np.log(probability))
    close(jax.grad(categorical.entropy)(logits), -probability * (np.log(probability) + entropy))


# --- Gaussian and tanh of a Gaussian


@few_examples
@given(st.sampled_from(SHAPES), st.integers(0, 2**32 - 1))
def test_gaussian_log_prob_and_entropy(shape, seed):
    mean, log_std = params = gaussian_params(shape, seed)
    x = np.random.default_rng(seed).normal(size=mean.shape).astype(np.float32)
    log_prob, entropy = gaussian_log_prob(params, x), diagonal_gaussian.entropy(params)
    assert log_prob.shape == entropy.shape == shape
    np.testing.assert_allclose(log_prob, gaussian_log_density(mean, log_std, x).sum(-1), rtol=1e-4, atol=1e-4)
    close(entropy, scipy.stats.norm(mean, np.exp(log_std.astype(np.float64))).entropy().sum(-1))


def test_gaussian_entropy_is_the_integral():
    def integrand(x):
        log_p = gaussian_log_density(0.3, -0.7, x)
        return -np.exp(log_p) * log_p

    expected = scipy.integrate.quad(integrand, -8, 8)[0]
    close(diagonal_gaussian.entropy((jnp.float32([0.3]), jnp.float32([-0.7]))), expected)


@few_examples
@given(st.sampled_from(SHAPES), st.integers(0, 2**32 - 1))
def test_tanh_log_prob(shape, seed):
    mean, log_std = params = gaussian_params(shape, seed)
    action = np.random.default_rng(seed).uniform(-0.999, 0.999, mean.shape).astype(np.float32)
    log_prob = tanh_log_prob(params, action)
    assert log_prob.shape == shape
    np.testing.assert_allclose(log_prob, tanh_log_density(mean, log_std, action).sum(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ulps", [1, 2, 3, 1000])
@pytest.mark.parametrize("sign", [-1, 1])
def test_tanh_log_prob_near_the_bounds(sign, ulps):
    """The last float32 before ±1 differ by much in what went into the tanh; each has its own density."""
    action = np.float32([sign * (1 - ulps * 2.0**-24)])
    params = (np.float32([0.5]), np.float32([1.0]))
    close(tanh_log_prob(params, action), tanh_log_density(0.5, 1.0, action)[0])


@pytest.mark.parametrize("action", [-1.0, 1.0])
def test_tanh_log_prob_and_its_gradients_are_finite_at_the_bounds(action):
    params = (jnp.float32([0.5]), jnp.float32([1.0]))
    value, gradients = jax.value_and_grad(tanh_gaussian.log_prob, (0, 1))(params, jnp.float32([action]))
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_tanh_log_prob_at_is_exact_far_outside():
    u = np.linspace(-30, 30, 241, dtype=np.float32)
    params = (np.full((241, 1), 0.5, np.float32), np.full((241, 1), 1.0, np.float32))
    log_prob = jax.jit(tanh_log_prob_at)(params, u[:, None])
    np.testing.assert_allclose(log_prob, gaussian_log_density(0.5, 1.0, u) - log_slope(u), rtol=1e-6, atol=2e-5)
    # With mean = u only the tanh's slope depends on u, whose logarithm has the derivative −2 tanh u.
    slope = jax.grad(lambda u: jnp.sum(tanh_log_prob_at((u, params[1]), u)))(u[:, None])
    np.testing.assert_allclose(slope[:, 0], 2 * np.tanh(u.astype(np.float64)), rtol=1e-5, atol=1e-6)


def test_tanh_densities_of_an_action_and_of_its_origin_agree():
    params = gaussian_params((5,))
    u = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_allclose(tanh_gaussian.log_prob(params, np.tanh(u)), tanh_log_prob_at(params, u), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.5, -1.0), (-0.3, 0.3)])
def test_tanh_density_integrates_to_one(mean, log_std):
    actions, weights = np.polynomial.legendre.leggauss(400)
    params = tuple(np.full((400, 1), x, np.float32) for x in (mean, log_std))
    density = np.exp(tanh_log_prob(params, actions[:, None].astype(np.float32)))
    assert np.sum(weights * density) == pytest.approx(1, abs=1e-4)


@gaussians
def test_samples_follow_the_distribution(distribution):
    mean, log_std = np.float32([0.5, -1.0]), np.float32([-0.7, 0.2])
    samples = draw(distribution, (mean, log_std), 2).astype(np.float64)
    if distribution is tanh_gaussian:
        assert np.abs(samples).max() <= 1
        samples = np.arctanh(np.clip(samples, -1 + 1e-9, 1 - 1e-9))
    normal = scipy.stats.norm(mean, np.exp(log_std))
    deviations = scipy.stats.norm.isf(ONE_IN_A_MILLION / 2)
    assert (np.abs(samples.mean(0) - normal.mean()) < deviations * normal.std() / np.sqrt(NUM_SAMPLES)).all()
    spread = NUM_SAMPLES * samples.var(0) / normal.var()
    low, high = scipy.stats.chi2(NUM_SAMPLES - 1).interval(1 - ONE_IN_A_MILLION)
    assert ((low < spread) & (spread < high)).all()
    for i in range(2):
        assert scipy.stats.kstest(samples[:, i], scipy.stats.norm(mean[i], np.exp(log_std[i])).cdf).pvalue > ONE_IN_A_MILLION
    # Independent components: the correlation of N pairs has the standard deviation 1 / sqrt(N).
    assert abs(np.corrcoef(samples.T)[0, 1]) < deviations / np.sqrt(NUM_SAMPLES)


def test_modes():
    params = gaussian_params((5,))
    np.testing.assert_array_equal(diagonal_gaussian.mode(params), params[0])
    close(tanh_gaussian.mode(params), np.tanh(params[0]))


@gaussians
def test_samples_are_reparameterised(distribution):
    """∂ sample / ∂ mean = 1 and ∂ sample / ∂ log_std = std · noise, times the tanh's slope."""
    mean, log_std = params = gaussian_params((5,))
    noise = np.random.default_rng(2).normal(size=mean.shape).astype(np.float32)
    u = mean + np.exp(log_std) * noise
    slope = 1 - np.tanh(u) ** 2 if distribution is tanh_gaussian else 1.0
    by_mean, by_log_std = jax.grad(lambda params: jnp.sum(distribution.sample(params, noise)))(params)
    close(by_mean, np.broadcast_to(slope, mean.shape))
    close(by_log_std, slope * np.exp(log_std) * noise)


def test_gaussian_score_has_its_closed_form():
    mean, log_std = params = gaussian_params((5,))
    x = np.random.default_rng(3).normal(size=mean.shape).astype(np.float32)
    z = (x - mean) / np.exp(log_std)
    by_mean, by_log_std = jax.grad(lambda params: jnp.sum(diagonal_gaussian.log_prob(params, x)))(params)
    close(by_mean, z / np.exp(log_std))
    close(by_log_std, z**2 - 1)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, -1.0), (1.0, 0.5), (4.0, 1.0)])
def test_tanh_entropy_estimate_and_its_gradient_are_unbiased(mean, log_std):
    def estimates(params):
        noise = tanh_gaussian.noise(jax.random.key(0), (NUM_SAMPLES, 1))
        return tanh_gaussian.entropy(jax.tree.map(lambda x: jnp.broadcast_to(x, (NUM_SAMPLES, 1)), params), noise)

    params = (jnp.float32(mean), jnp.float32(log_std))
    by_mean, by_log_std = jax.jit(jax.jacfwd(estimates))(params)
    step = 1e-4
    expectations = [
        (estimates(params), tanh_entropy_integral(mean, log_std)),
        (by_mean, (tanh_entropy_integral(mean + step, log_std) - tanh_entropy_integral(mean - step, log_std)) / (2 * step)),
        (by_log_std, (tanh_entropy_integral(mean, log_std + step) - tanh_entropy_integral(mean, log_std - step)) / (2 * step)),
    ]
    for samples, expected in expectations:
        samples = np.asarray(samples, np.float64)
        error = samples.std() / np.sqrt(NUM_SAMPLES)
        assert abs(samples.mean() - expected) < scipy.stats.norm.isf(ONE_IN_A_MILLION / 2) * error + 1e-5


def test_tanh_entropy_sums_over_the_dimensions():
    mean, log_std = params = gaussian_params((5,))
    noise = np.random.default_rng(4).normal(size=mean.shape).astype(np.float32)
    u = mean + np.exp(log_std) * noise
    close(tanh_gaussian.entropy(params, noise), diagonal_gaussian.entropy(params) + log_slope(u).sum(-1))


# --- all of them


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_samples(shape):
    logits, params = np.zeros((*shape, 4), np.float32), gaussian_params(shape)
    action = jax.jit(categorical.sample)(logits, categorical.noise(jax.random.key(0), logits.shape))
    assert action.shape == shape
    assert action.dtype == jnp.int32
    for distribution in (diagonal_gaussian, tanh_gaussian):
        assert distribution.sample(params, distribution.noise(jax.random.key(0), params[0].shape)).shape == (*shape, 3)


def test_densities_keep_bfloat16():
    logits = jnp.zeros((5, 4), jnp.bfloat16)
    params = (logits, logits)
    results = [
        categorical.log_prob(logits, jnp.zeros(5, jnp.int32)),
        categorical.entropy(logits),
        diagonal_gaussian.log_prob(params, logits),
        diagonal_gaussian.entropy(params),
        tanh_gaussian.log_prob(params, logits),
        tanh_log_prob_at(params, logits),
        tanh_gaussian.entropy(params, logits),
    ]
    assert {x.dtype for x in results} == {jnp.dtype(jnp.bfloat16)}
    assert all(np.isfinite(x.astype(np.float32)).all() for x in results)


def test_samples_of_bfloat16_parameters_stay_bfloat16():
    logits = jnp.zeros((5, 4), jnp.bfloat16)
    noise = diagonal_gaussian.noise(jax.random.key(0), (5, 4))
    assert noise.dtype == jnp.float32
    assert categorical.sample(logits, noise).dtype == jnp.int32
    for distribution in (diagonal_gaussian, tanh_gaussian):
        assert distribution.sample((logits, logits), noise).dtype == jnp.bfloat16
    assert tanh_gaussian.entropy((logits, logits), noise).dtype == jnp.bfloat16


def test_large_logits_keep_their_differences():
    logits = jnp.float32(1e7) + jnp.float32([0.0, 1.0, 2.0])
    expected = scipy.special.log_softmax(np.float64([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(categorical.log_prob(jnp.tile(logits, (3, 1)), jnp.arange(3)), expected, rtol=1e-6)
