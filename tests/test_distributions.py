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
from jax.test_util import check_grads

from jaxrl.distributions import (
    beta,
    boltzmann,
    categorical,
    diagonal_gaussian,
    epsilon_greedy,
    mask_illegal,
    tanh_gaussian,
    tanh_log_prob_at,
)

SHAPES = [(), (5,), (3, 4)]
ONE_IN_A_MILLION = 1e-6
NUM_SAMPLES = 100_000

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
categorical_log_prob = jax.jit(categorical.log_prob)
categorical_entropy = jax.jit(categorical.entropy)
gaussian_log_prob = jax.jit(diagonal_gaussian.log_prob)
tanh_log_prob = jax.jit(tanh_gaussian.log_prob)
few_examples = settings(deadline=None, max_examples=25)
DISTRIBUTIONS = {
    "categorical": categorical,
    "epsilon_greedy": epsilon_greedy,
    "boltzmann": boltzmann,
    "gaussian": diagonal_gaussian,
    "tanh": tanh_gaussian,
    "beta": beta,
}
every_distribution = pytest.mark.parametrize("name", DISTRIBUTIONS)
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


def some_params(name, shape=(), size=3, seed=0):
    """Parameters of the distribution `name`, well inside their domains, with an event of `size` and the rest of `shape`."""
    rng = np.random.default_rng(seed)
    if name == "categorical":
        return rng.normal(size=(*shape, size)).astype(np.float32)
    if name in ("epsilon_greedy", "boltzmann"):
        return rng.normal(size=(*shape, size)).astype(np.float32), rng.uniform(0.3, 0.9, size=shape).astype(np.float32)
    if name == "beta":
        alpha, beta = rng.uniform(0.6, 6.0, size=(2, *shape, size)).astype(np.float32)
        return alpha, beta
    return gaussian_params(shape, seed, size)


def repeat(params, shape):
    """Unbatched parameters, repeated; a temperature or an ε stays a scalar."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))) if jnp.ndim(x) else x, params)


def draw(distribution, params, event, seed=0):
    """`NUM_SAMPLES` samples of a distribution with unbatched `params`."""

    @jax.jit
    def samples(params, key):
        return distribution.sample(repeat(params, (NUM_SAMPLES,)), distribution.noise(key, (NUM_SAMPLES, event)))

    return np.asarray(samples(params, jax.random.key(seed)))


def assert_mean(samples, expected, slack=0.0):
    """The central limit theorem's bound, from the samples' own standard deviation."""
    samples = np.asarray(samples, np.float64)
    bound = scipy.stats.norm.isf(ONE_IN_A_MILLION / 2) * samples.std() / np.sqrt(len(samples))
    assert abs(samples.mean() - expected) < bound + slack


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
        assert_mean(samples, expected, slack=1e-5)


def test_tanh_entropy_sums_over_the_dimensions():
    mean, log_std = params = gaussian_params((5,))
    noise = np.random.default_rng(4).normal(size=mean.shape).astype(np.float32)
    u = mean + np.exp(log_std) * noise
    close(tanh_gaussian.entropy(params, noise), diagonal_gaussian.entropy(params) + log_slope(u).sum(-1))


# --- action values


def policy(name, q, x):
    """π of one vector of action values, action by action."""
    legal = [a for a in range(len(q)) if q[a] > -np.inf]
    probability = np.zeros(len(q))
    for a in legal:
        if name == "epsilon_greedy":
            probability[a] = x / len(legal) + (1 - x) * (a == int(np.argmax(q)))
        else:
            probability[a] = 1 / sum(np.exp((float(q[b]) - float(q[a])) / x) for b in legal)
    return probability


over_action_values = pytest.mark.parametrize("name", ["epsilon_greedy", "boltzmann"])
action_value_functions = {
    name: jax.jit(lambda params, action, d=DISTRIBUTIONS[name]: (d.log_prob(params, action), d.entropy(params)))
    for name in ("epsilon_greedy", "boltzmann")
}


@over_action_values
@few_examples
@given(st.sampled_from([((), 4), ((5,), 1), ((3, 4), 4), ((2,), 33)]), st.integers(0, 2**32 - 1))
def test_policies_of_action_values(name, sizes, seed):
    shape, num_actions = sizes
    rng = np.random.default_rng(seed)
    q, x = some_params(name, shape, num_actions, seed)
    q = np.where(rng.random(q.shape) < 0.7, np.round(q, 1), -np.inf)  # rounded, so that some tie
    q = np.where((q == -np.inf).all(-1, keepdims=True), 0.0, q).astype(np.float32)
    action = rng.integers(num_actions, size=shape).astype(np.int32)
    log_prob, entropy = action_value_functions[name]((q, x), action)
    assert log_prob.shape == entropy.shape == shape
    for i in np.ndindex(shape):
        probability = policy(name, q[i], x[i])
        close(np.exp(log_prob[i]), probability[action[i]])
        assert np.isneginf(log_prob[i]) == (probability[action[i]] == 0)
        close(entropy[i], scipy.stats.entropy(probability))


@over_action_values
@pytest.mark.parametrize("num_actions", [5, 34])
def test_samples_of_action_values(name, num_actions):
    q = np.random.default_rng(0).normal(size=num_actions).astype(np.float32)
    q[[0, 3]], q[[1, 4]] = -np.inf, 3.0  # two are illegal, and the largest two tie
    counts = np.bincount(draw(DISTRIBUTIONS[name], (q, np.float32(0.6)), num_actions), minlength=num_actions)
    probability = policy(name, q, 0.6)
    assert not counts[[0, 3]].any()
    assert_frequencies(counts[probability > 0], probability[probability > 0])
    assert DISTRIBUTIONS[name].mode((q, 0.6)) == 1


@over_action_values
def test_one_epsilon_or_temperature_serves_all_states(name):
    q, _ = some_params(name, (4, 2))
    action = np.zeros((4, 2), np.int32)
    for x in (0.3, np.float32(0.3), np.full(2, 0.3, np.float32)):
        for one, each in zip(
            action_value_functions[name]((q, x), action),
            action_value_functions[name]((q, np.full((4, 2), 0.3, np.float32)), action),
            strict=True,
        ):
            np.testing.assert_array_equal(one, each)


def test_the_gradient_of_epsilon_greedy_is_in_epsilon_alone():
    q, epsilon = jnp.float32([1.0, 3.0, 2.0]), jnp.float32(0.3)
    for action, expected in ((0, 1 / 0.3), (1, (1 / 3 - 1) / (0.3 / 3 + 0.7))):
        by_q, by_epsilon = jax.grad(epsilon_greedy.log_prob)((q, epsilon), jnp.int32(action))
        np.testing.assert_array_equal(by_q, np.zeros(3))
        close(by_epsilon, expected)


@pytest.mark.parametrize("action", [0, 1, 2])
def test_the_gradient_of_epsilon_greedy_is_zero_where_epsilon_is(action):
    q = jnp.float32([1.0, 3.0, 2.0])
    assert jax.grad(lambda epsilon: epsilon_greedy.log_prob((q, epsilon), jnp.int32(action)))(0.0) == 0
    assert jax.grad(lambda epsilon: epsilon_greedy.entropy((q, epsilon)))(0.0) == 0
    assert np.isnan(epsilon_greedy.log_prob((q, jnp.nan), jnp.int32(1)))


def test_cold_boltzmann_becomes_greedy_step_by_step():
    """Down to what float32 can hold, the probabilities are the softmax's; a difference of 1e-15 counts at 1e-15."""
    q = np.float32([0.0, -1e-15, -1.0])
    for temperature in np.float32([1.0, 1e-3, 1e-14, 1e-15, 1e-16, 1e-18, 1e-30, 0.0]):
        probability = np.exp(jax.vmap(partial(boltzmann.log_prob, (q, temperature)))(jnp.arange(3)))
        close(probability, softmax(q / np.maximum(np.float64(temperature), 1e-19)))


def test_boltzmann_of_large_action_values_keeps_their_differences():
    q = np.float32(2.0**20) + np.float32([0.0, 0.125, 0.25])
    log_prob = jax.vmap(partial(boltzmann.log_prob, (q, 0.03)))(jnp.arange(3))
    close(log_prob, scipy.special.log_softmax(np.float64([0.0, 0.125, 0.25]) / 0.03))


# --- masks


def test_mask_illegal():
    logits = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    legal = np.array([[True, False, True], [False, False, True]])
    np.testing.assert_array_equal(mask_illegal(logits, legal), np.where(legal, logits, -np.inf))
    np.testing.assert_array_equal(mask_illegal(logits, legal[0]), np.where(legal[:1], logits, -np.inf))
    gradient = jax.grad(lambda x: jnp.sum(jnp.where(legal, mask_illegal(x, legal), 0.0)))(logits)
    np.testing.assert_array_equal(gradient, legal)


@pytest.mark.parametrize("name", ["categorical", "epsilon_greedy", "boltzmann"])
def test_under_a_mask_all_is_as_among_the_legal_actions(name):
    """Values, gradients, samples and modes, for every mask of four actions; `kl` included, also towards other parameters."""
    distribution = DISTRIBUTIONS[name]

    def build(values):  # 0.7 as temperature or ε
        return values if name == "categorical" else (values, 0.7)

    @jax.jit
    def evaluate(p, q, action):
        def functions(p, q):
            return distribution.log_prob(build(p), action), distribution.entropy(build(p)), distribution.kl(build(p), build(q))

        return functions(p, q), jax.jacrev(functions, (0, 1))(p, q)

    draw_samples = jax.jit(distribution.sample)
    values = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    for bits in range(1, 16):
        legal = np.array([bool(bits >> i & 1) for i in range(4)])
        masked = mask_illegal(values, legal)
        noise = np.random.default_rng(bits).gumbel(size=(20, 4)).astype(np.float32)
        p, reduced = repeat(build(masked[0]), (20,)), repeat(build(values[0, legal]), (20,))
        sample, expected_sample = draw_samples(p, noise), draw_samples(reduced, noise[:, legal])
        np.testing.assert_array_equal(sample, np.flatnonzero(legal)[expected_sample])
        assert distribution.mode(build(masked[0])) == np.flatnonzero(legal)[distribution.mode(build(values[0, legal]))]
        results, gradients = evaluate(*masked, jnp.int32(np.flatnonzero(legal)[-1]))
        expected, expected_gradients = evaluate(*values[:, legal], jnp.int32(legal.sum() - 1))
        close(results, expected)
        for gradient, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected_gradients), strict=True):
            close(gradient[legal], wanted)
            np.testing.assert_array_equal(gradient[~legal], np.zeros((~legal).sum()))


def test_divergence_from_a_policy_that_never_does_what_this_one_may_is_infinite():
    logits, fewer = jnp.float32([0.0, 1.0, 2.0]), jnp.float32([0.0, -jnp.inf, 2.0])
    assert categorical.kl(logits, fewer) == jnp.inf
    probability = softmax(np.float64([0.0, 2.0]))
    close(categorical.kl(fewer, logits), np.sum(probability * (np.log(probability) - np.log(softmax(logits)[[0, 2]]))))
    assert categorical.kl(jnp.float32([0.0, -1e9, 2.0]), fewer) == jnp.inf  # possible, though its probability underflows
    assert epsilon_greedy.kl((logits, 0.1), (logits, 0.0)) == jnp.inf
    close(epsilon_greedy.kl((logits, 0.0), (logits, 0.3)), -np.log(0.8))
    for params, other in ((fewer, logits), (logits, fewer), (fewer, fewer)):
        for gradient in jax.grad(categorical.kl, (0, 1))(params, other):
            assert np.isfinite(gradient).all()


# --- Beta


beta_functions = jax.jit(lambda params, x: (beta.log_prob(params, x), beta.entropy(params)))


@few_examples
@given(st.sampled_from(SHAPES), st.integers(0, 2**32 - 1))
def test_beta_log_prob_and_entropy(shape, seed):
    a, b = params = some_params("beta", shape, seed=seed)
    x = np.random.default_rng(seed).uniform(0.001, 0.999, a.shape).astype(np.float32)
    log_prob, entropy = beta_functions(params, x)
    assert log_prob.shape == entropy.shape == shape
    reference = scipy.stats.beta(a.astype(np.float64), b.astype(np.float64))
    np.testing.assert_allclose(log_prob, reference.logpdf(x.astype(np.float64)).sum(-1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(entropy, reference.entropy().sum(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (1.0, 3.0), (50.0, 2.0), (1000.0, 2000.0)])
def test_beta_is_accurate_to_the_rounding_of_its_terms(a, b):
    params, x = (np.float32([a]), np.float32([b])), np.float32([a / (a + b)])
    log_prob, entropy = beta_functions(params, x)
    assert log_prob == pytest.approx(scipy.stats.beta(a, b).logpdf(float(x[0])), abs=2e-6 + 3e-6 * (a + b))
    assert entropy == pytest.approx(scipy.stats.beta(a, b).entropy(), abs=2e-6 + 3e-6 * (a + b))


@pytest.mark.parametrize("x", [1e-30, 1e-12, 0.5, 1 - 2.0**-24])
def test_beta_log_prob_near_the_bounds(x):
    """Every number of float32 that is so near to 0, and the last before 1, has its own density."""
    params = (np.float32([0.5]), np.float32([0.7]))
    close(beta.log_prob(params, np.float32([x])), scipy.stats.beta(0.5, np.float64(params[1][0])).logpdf(np.float32(x).item()))


def test_beta_modes_maximise_the_density():
    grid = np.linspace(0, 1, 1001)
    for a, b in [(2, 3), (5, 1.5), (1, 2), (0.5, 2), (1, 0.5), (3, 0.5), (3, 1), (0.4, 0.7), (0.7, 0.4), (1.25, 1.25)]:
        density = (a - 1) * np.log(np.clip(grid, 1e-12, None)) + (b - 1) * np.log(np.clip(1 - grid, 1e-12, None))
        mode = float(beta.mode((jnp.float32([a]), jnp.float32([b])))[0])
        assert mode == pytest.approx(grid[np.argmax(density)], abs=1e-3)
    for a in (1.0, 0.5):
        mode, gradient = jax.value_and_grad(lambda a: beta.mode((a, a))[0])(jnp.float32([a]))
        assert mode == 0.5
        assert np.isfinite(gradient).all()


BETAS = (np.float32([0.5, 4.0, 1.0]), np.float32([0.7, 2.0, 3.0]))


@pytest.fixture(scope="module")
def beta_samples():
    """Samples x of `BETAS`, `[20000, 3]`, and the gradients of x and x² in (α, β)."""

    @jax.jit
    def evaluate(params, noise):
        def powers(params):
            x = beta.sample(params, noise)
            return (jnp.sum(x), jnp.sum(jnp.square(x))), x

        gradients, x = jax.jacrev(powers, has_aux=True)(params)
        return x, gradients

    params = repeat(BETAS, (20_000,))
    return evaluate(params, beta.noise(jax.random.key(0), params[0].shape))


def test_beta_samples_follow_the_distribution(beta_samples):
    samples = np.asarray(beta_samples[0], np.float64)
    assert samples.min() >= 0
    assert samples.max() <= 1
    for i, (a, b) in enumerate(np.transpose(BETAS)):
        assert scipy.stats.kstest(samples[:, i], scipy.stats.beta(a, b).cdf).pvalue > ONE_IN_A_MILLION
    for i, j in ((0, 1), (1, 2), (0, 2)):
        correlation = np.corrcoef(samples[:, i], samples[:, j])[0, 1]
        assert abs(correlation) < scipy.stats.norm.isf(ONE_IN_A_MILLION / 2) / np.sqrt(len(samples))


def test_beta_samples_are_reparameterised(beta_samples):
    """∂ E f(x) = E ∂ f(x(α, β, noise)), for f = x and x², whose expectations have closed forms."""

    def powers(a, b):
        return np.array([a / (a + b), a * (a + 1) / ((a + b) * (a + b + 1))])

    a, b, step = np.float64(BETAS[0]), np.float64(BETAS[1]), 1e-5
    expected = [
        (powers(a + step, b) - powers(a - step, b)) / (2 * step),
        (powers(a, b + step) - powers(a, b - step)) / (2 * step),
    ]
    for power in range(2):
        for parameter in range(2):
            for i in range(3):
                assert_mean(beta_samples[1][power][parameter][:, i], expected[parameter][power, i], slack=1e-6)


# --- divergences


def multivariate_gaussian_kl(params, other):
    """The general formula, with covariance matrices."""
    (mean, log_std), (other_mean, other_log_std) = (tuple(np.float64(x) for x in y) for y in (params, other))
    covariance, other_covariance = np.diag(np.exp(2 * log_std)), np.diag(np.exp(2 * other_log_std))
    inverse, difference = np.linalg.inv(other_covariance), other_mean - mean
    log_ratio = np.linalg.slogdet(other_covariance)[1] - np.linalg.slogdet(covariance)[1]
    return 0.5 * (np.trace(inverse @ covariance) + difference @ inverse @ difference - len(mean) + log_ratio)


def integral_of_beta_kl(params, other):
    """Each dimension's integral over t, where x = 1 / (1 + e^−t): there the integrand decays, and the trapezoid rule is exact."""
    t = np.linspace(-200, 200, 20_001)[:, None]
    log_x, log_1_minus_x = -np.logaddexp(0, -t), -np.logaddexp(0, t)

    def log_density(params):
        a, b = np.float64(params)
        return (a - 1) * log_x + (b - 1) * log_1_minus_x - scipy.special.betaln(a, b)

    log_p, log_q = log_density(params), log_density(other)
    return np.sum((t[1] - t[0]) * np.exp(log_p + log_x + log_1_minus_x) * (log_p - log_q))


def reference_kl(name, params, other):
    if name == "categorical":
        return scipy.stats.entropy(softmax(params), softmax(other))
    if name in ("epsilon_greedy", "boltzmann"):
        return scipy.stats.entropy(policy(name, *params), policy(name, *other))
    if name == "beta":
        return integral_of_beta_kl(params, other)
    return multivariate_gaussian_kl(params, other)


kl_functions = {name: jax.jit(distribution.kl) for name, distribution in DISTRIBUTIONS.items()}


@every_distribution
@settings(deadline=None, max_examples=10)
@given(shape=st.sampled_from([(), (5,), (2, 2)]), seed=st.integers(0, 2**31 - 1))
def test_kl(name, shape, seed):
    params, other = some_params(name, shape, seed=seed), some_params(name, shape, seed=seed + 2**31)
    kl = kl_functions[name](params, other)
    assert kl.shape == shape
    assert (kl >= 0).all()
    np.testing.assert_allclose(kl_functions[name](params, params), np.zeros(shape), atol=1e-6)
    for i in np.ndindex(shape):
        p, q = (jax.tree.map(lambda x, i=i: x[i], y) for y in (params, other))
        np.testing.assert_allclose(kl[i], reference_kl(name, p, q), rtol=1e-4, atol=1e-5)


def test_the_gaussian_kl_is_the_integral():
    p, q = scipy.stats.norm(0.3, 0.5), scipy.stats.norm(-0.4, 1.5)
    params, other = ((jnp.float32([x.mean()]), jnp.log(jnp.float32([x.std()]))) for x in (p, q))
    expected = scipy.integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -8, 8)[0]
    close(diagonal_gaussian.kl(params, other), expected)


def test_small_divergences_of_gaussians_keep_their_digits():
    """From log_std x on, to 0: about x². Computed from σ², it would drown in the roundings of 1."""
    x = np.float32([[2.0**-8], [2.0**-9], [2.0**-10], [-(2.0**-9)]])
    kl = diagonal_gaussian.kl((jnp.zeros_like(x), x), (jnp.zeros_like(x), jnp.zeros_like(x)))
    expected = 0.5 * np.expm1(2 * np.float64(x)) - np.float64(x)
    np.testing.assert_allclose(kl, expected[:, 0], rtol=1e-3)


def test_divergences_of_bfloat16_logits_are_computed_in_float32():
    """In bfloat16, log p and log q would differ by a few of its roundings."""
    logits, other = jnp.bfloat16([0.0, 1.0, 2.0]), jnp.bfloat16([0.0625, 1.0, 2.0])
    expected = scipy.stats.entropy(softmax(np.asarray(logits, np.float64)), softmax(np.asarray(other, np.float64)))
    kl = categorical.kl(logits, other)
    assert kl.dtype == jnp.bfloat16
    np.testing.assert_allclose(float(kl), expected, rtol=0.01)


# --- all of them


@every_distribution
def test_entropy_and_kl_are_expectations_over_the_samples(name):
    """H = −E log p and KL = E (log p − log q), with this library's own samples and densities."""
    distribution = DISTRIBUTIONS[name]
    params, other = some_params(name), some_params(name, seed=1)

    @jax.jit
    def evaluate(params, other, key):
        noise = distribution.noise(key, (NUM_SAMPLES, 3))
        p, q = repeat(params, (NUM_SAMPLES,)), repeat(other, (NUM_SAMPLES,))
        x = distribution.sample(p, noise)
        entropy = distribution.entropy(p, noise) if distribution is tanh_gaussian else distribution.entropy(p)
        return distribution.log_prob(p, x), distribution.log_prob(q, x), entropy, distribution.kl(p, q)

    log_p, log_q, entropy, kl = (np.asarray(x, np.float64) for x in evaluate(params, other, jax.random.key(0)))
    assert_mean(log_p + entropy, 0.0, slack=1e-5)
    assert_mean(log_p - log_q - kl, 0.0, slack=1e-5)


@every_distribution
def test_gradients_are_those_of_finite_differences(name):
    """In float64: of log_prob (in the action too), entropy, kl and reparameterised samples."""
    distribution = DISTRIBUTIONS[name]
    with jax.enable_x64(True):
        params, other = (jax.tree.map(jnp.float64, some_params(name, (2,), seed=seed)) for seed in (0, 1))
        noise = distribution.noise(jax.random.key(0), (2, 3))
        x = jnp.float64(np.random.default_rng(0).uniform(0.05, 0.95, size=(2, 3)))

        def over_actions(params, other):
            return distribution.kl(params, other), distribution.entropy(params), distribution.log_prob(params, jnp.array([0, 2]))

        def over_a_box(params, other, x):
            entropy = distribution.entropy(params, noise) if name == "tanh" else distribution.entropy(params)
            sample = None if name == "beta" else distribution.sample(params, noise)
            return distribution.kl(params, other), entropy, distribution.log_prob(params, x), sample

        function, arguments = (
            (over_a_box, (params, other, x)) if name in ("gaussian", "tanh", "beta") else (over_actions, (params, other))
        )
        check_grads(jax.jit(function), arguments, order=1, modes=["rev"], rtol=1e-6, atol=1e-6)


inf, log2, log3 = np.inf, np.log(2), np.log(3)
SMALL = np.log(1e-8)  # of the standard deviation 1e-8
# Parameters, an action, its log-probability and the entropy; None: unknown or beyond the dtype, only to be finite.
EDGES = {
    "categorical: one logit of 1e9": ("categorical", [1e9, -1e9, 0.0], 0, 0.0, 0.0),
    "categorical: the unlikeliest of them": ("categorical", [1e9, -1e9, 0.0], 1, None, 0.0),
    "categorical: two logits of 1e9": ("categorical", [1e9, 1e9, -1e9], 1, -log2, log2),
    "categorical: all logits -1e9": ("categorical", [-1e9, -1e9, -1e9], 2, -log3, log3),
    "categorical: one legal": ("categorical", [-inf, 0.7, -inf], 1, 0.0, 0.0),
    "categorical: one legal, of -1e9": ("categorical", [-inf, -1e9, -inf], 1, 0.0, 0.0),
    "epsilon_greedy: never explores": ("epsilon_greedy", ([1.0, 2.0, 3.0], 0.0), 2, 0.0, 0.0),
    "epsilon_greedy: always explores": ("epsilon_greedy", ([1.0, 2.0, 3.0], 1.0), 2, -log3, log3),
    "epsilon_greedy: one legal": ("epsilon_greedy", ([-inf, 2.0, -inf], 0.5), 1, 0.0, 0.0),
    "epsilon_greedy: one legal, never explores": ("epsilon_greedy", ([-inf, 2.0, -inf], 0.0), 1, 0.0, 0.0),
    "epsilon_greedy: values of 1e9": ("epsilon_greedy", ([1e9, -1e9, -inf], 0.5), 1, np.log(0.25), 2 * log2 - 0.75 * log3),
    "boltzmann: temperature 0": ("boltzmann", ([1.0, 2.0, 3.0], 0.0), 2, 0.0, 0.0),
    "boltzmann: temperature 0, a tie": ("boltzmann", ([2.0, 1.0, 2.0], 0.0), 2, -log2, log2),
    "boltzmann: temperature 1e-8": ("boltzmann", ([2.0, 1.0, 2.0], 1e-8), 2, -log2, log2),
    "boltzmann: temperature 1e-30": ("boltzmann", ([1.0, 2.0, 3.0], 1e-30), 2, 0.0, 0.0),
    "boltzmann: infinite temperature": ("boltzmann", ([-1e9, 1e9, -inf], inf), 1, -log2, log2),
    "boltzmann: values of 1e9": ("boltzmann", ([1e9, -1e9, 1e9], 1.0), 2, -log2, log2),
    "boltzmann: values of 1e9, temperature 0": ("boltzmann", ([1e9, -1e9, -inf], 0.0), 0, 0.0, 0.0),
    "boltzmann: one legal": ("boltzmann", ([-inf, 2.0, -inf], 1.0), 1, 0.0, 0.0),
    "boltzmann: one legal, temperature 0": ("boltzmann", ([-inf, 2.0, -inf], 0.0), 1, 0.0, 0.0),
    "gaussian: narrow": ("gaussian", ([0.5, -1.0], [SMALL, SMALL]), [0.5, -1.0], -2 * SMALL - np.log(2 * np.pi), None),
    "gaussian: narrow, and far": ("gaussian", ([0.5, -1.0], [SMALL, SMALL]), [1.5, 1.0], None, 2 * SMALL + np.log(2 * np.pi) + 1),
    "gaussian: wide": ("gaussian", ([0.0, 0.0], [20.0, 20.0]), [1e9, -1e9], None, 40 + np.log(2 * np.pi) + 1),
    "gaussian: means of 1e9": ("gaussian", ([1e9, -1e9], [0.0, 0.0]), [1e9, -1e9], -np.log(2 * np.pi), np.log(2 * np.pi) + 1),
    "tanh: on the bounds": ("tanh", ([0.5, -0.5], [0.0, 0.0]), [1.0, -1.0], None, None),
    "tanh: narrow, on the bounds": ("tanh", ([0.5, -0.5], [SMALL, SMALL]), [-1.0, 1.0], None, None),
    "tanh: narrow, at 0": ("tanh", ([0.0, 0.0], [SMALL, SMALL]), [0.0, 0.0], -2 * SMALL - np.log(2 * np.pi), None),
    "tanh: mean beyond where tanh rounds to 1": ("tanh", ([30.0, -30.0], [0.0, 0.0]), [1.0, -1.0], None, None),
    "beta: uniform, on the bounds": ("beta", ([1.0, 1.0], [1.0, 1.0]), [0.0, 1.0], 0.0, 0.0),
    "beta: no density on the bounds": ("beta", ([2.0, 3.0], [3.0, 2.0]), [0.0, 1.0], None, None),
    "beta: infinite density on the bounds": ("beta", ([0.5, 0.5], [0.5, 0.5]), [1.0, 0.0], None, 2 * np.log(np.pi / 4)),
    "beta: the smallest": ("beta", ([1e-3, 1e-8], [1e-3, 1e-8]), [0.0, 1.0], None, None),
    "beta: one small, one large": ("beta", ([1e-3, 1e3], [1e3, 1e-3]), [1.0, 0.0], None, None),
    "beta: the largest": ("beta", ([1e4, 1e6], [1e4, 2.0]), [0.0, 1.0], None, None),
}


def at_the_edge(distribution):
    """Everything that must be finite there: values, a sample, the mode, and the gradient of the sum of all that has one."""

    def evaluate(params, x, noise):
        def total(params, float_x):
            at = x if float_x is None else float_x
            entropy = distribution.entropy(params, *((noise,) if distribution is tanh_gaussian else ()))
            results = distribution.log_prob(params, at), entropy, distribution.kl(params, params)
            sample = distribution.sample(params, noise)
            return sum(results) + (0 if float_x is None else jnp.sum(sample)), (results, sample, distribution.mode(params))

        float_x = x if jnp.issubdtype(x.dtype, jnp.floating) else None
        gradients, values = jax.grad(total, (0, 1), has_aux=True)(params, float_x)
        return *values, gradients

    return jax.jit(evaluate)


at_edges = {name: at_the_edge(distribution) for name, distribution in DISTRIBUTIONS.items()}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float64])
@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge, dtype):
    name, params, x, expected_log_prob, expected_entropy = EDGES[edge]
    discrete = isinstance(x, int)
    with jax.enable_x64(dtype == jnp.float64):
        as_array = partial(jnp.asarray, dtype=dtype)
        params = jax.tree.map(as_array, params, is_leaf=lambda x: isinstance(x, list))
        x = jnp.int32(x) if discrete else as_array(x)
        noise = DISTRIBUTIONS[name].noise(jax.random.key(0), (3 if discrete else 2,))
        (log_prob, entropy, kl), sample, mode, gradients = at_edges[name](params, x, noise)
        assert {y.dtype for y in (log_prob, entropy, kl, *jax.tree.leaves(gradients))} == {jnp.dtype(dtype)}
        assert sample.dtype == mode.dtype == x.dtype
        for leaf in jax.tree.leaves((log_prob, entropy, kl, sample, mode, gradients)):
            assert np.isfinite(np.asarray(leaf, np.float64)).all()
        tolerance = {"float32": 1e-5, "bfloat16": 0.02, "float64": 1e-9}[jnp.dtype(dtype).name]
        if dtype == jnp.float64 or name != "beta":  # the terms of which its rounding keeps 3e-6 (α + β)
            np.testing.assert_allclose(np.float64(kl), 0.0, atol=tolerance)
        for result, expected in ((log_prob, expected_log_prob), (entropy, expected_entropy)):
            if expected is not None:
                np.testing.assert_allclose(np.float64(result), expected, rtol=tolerance, atol=tolerance)


MISFITS = {
    "action with an axis too many": (categorical.log_prob, [(2, 3), ("int", 2, 1)], r"action.*\(2,\).*int32\[2,1\]"),
    "action of floats": (categorical.log_prob, [(2, 3), (2,)], r"action.*integer.*\(2,\).*float32\[2\]"),
    "noise of another shape": (categorical.sample, [(2, 3), (4, 3)], r"noise.*\(2, 3\).*float32\[4,3\]"),
    "logits of different shapes": (categorical.kl, [(2, 3), (3,)], r"other.*\(2, 3\).*float32\[3\]"),
    "ε of another batch": (epsilon_greedy.entropy, [((2, 3), (3,))], r"epsilon.*\(2,\).*float32\[3\]"),
    "temperature for each action": (boltzmann.entropy, [((2, 3), (2, 3))], r"temperature.*\(2,\).*float32\[2,3\]"),
    "a mask of other actions": (mask_illegal, [(2, 3), ("bool", 4)], r"legal.*\(2, 3\).*bool\[4\]"),
    "a mask of numbers": (mask_illegal, [(2, 3), (2, 3)], r"legal.*bool.*\(2, 3\).*float32\[2,3\]"),
    "log_std of another size": (diagonal_gaussian.entropy, [((2, 3), (4,))], r"log_std.*\(2, 3\).*float32\[4\]"),
    "log_std with more axes than mean": (diagonal_gaussian.sample, [((3,), (2, 3)), (2, 3)], r"log_std.*\(3,\).*float32\[2,3\]"),
    "x without its last axis": (diagonal_gaussian.log_prob, [((2, 1), (2, 1)), (2,)], r"x.*\(2, 1\).*float32\[2\]"),
    "action that does not fit": (tanh_gaussian.log_prob, [((2, 3), (2, 3)), (3,)], r"action.*\(2, 3\).*float32\[3\]"),
    "noise that does not fit": (tanh_gaussian.sample, [((2, 3), (2, 3)), (3,)], r"noise.*\(2, 3\).*float32\[3\]"),
    "the other mean": (tanh_gaussian.kl, [((2, 3), (2, 3)), ((3,), (3,))], r"other mean.*\(2, 3\).*float32\[3\]"),
    "the other log_std": (diagonal_gaussian.kl, [((2, 3), (3,)), ((2, 3), (4,))], r"other log_std.*\(2, 3\).*float32\[4\]"),
    "α and β": (beta.entropy, [((2, 3), (3,))], r"beta: beta.*\(2, 3\).*float32\[3\]"),
    "numbers for keys": (beta.sample, [((3,), (3,)), (3,)], r"noise.*prng_key.*\(3,\).*float32\[3\]"),
    "x outside the batch": (beta.log_prob, [((2, 3), (2, 3)), (3,)], r"x.*\(2, 3\).*float32\[3\]"),
    "the other α": (beta.kl, [((2, 3), (2, 3)), ((3,), (3,))], r"other alpha.*\(2, 3\).*float32\[3\]"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_an_error_while_tracing(misfit):
    function, arguments, message = MISFITS[misfit]

    def build(x):
        if isinstance(x, list) or any(isinstance(part, tuple) for part in x):
            return tuple(build(part) for part in x)
        dtype, shape = (x[0], x[1:]) if x and isinstance(x[0], str) else ("float32", x)
        return jax.ShapeDtypeStruct(shape, {"int": jnp.int32, "bool": jnp.bool_}.get(dtype) or jnp.dtype(dtype))

    with pytest.raises(ValueError, match=message):
        jax.eval_shape(function, *build(arguments))


@pytest.mark.parametrize("name", ["gaussian", "tanh"])
def test_one_log_std_serves_all_states(name):
    mean, _ = gaussian_params((4, 2))
    log_std, distribution = np.float32([-1.0, 0.0, 0.5]), DISTRIBUTIONS[name]
    noise = distribution.noise(jax.random.key(0), mean.shape)
    repeated = np.broadcast_to(log_std, mean.shape)
    np.testing.assert_array_equal(distribution.sample((mean, log_std), noise), distribution.sample((mean, repeated), noise))
    x = np.full_like(mean, 0.5)
    np.testing.assert_array_equal(distribution.log_prob((mean, log_std), x), distribution.log_prob((mean, repeated), x))
    np.testing.assert_array_equal(
        distribution.kl((mean, log_std), (mean[::-1], repeated)), distribution.kl((mean, repeated), (mean[::-1], log_std))
    )


def test_samples_of_bfloat16_logits_with_an_offset_follow_the_probabilities():
    """At 100, bfloat16 has a spacing of ½, in which the noise must not be rounded."""
    counts = np.bincount(draw(categorical, jnp.full(3, 100, jnp.bfloat16), 3), minlength=3)
    assert_frequencies(counts, np.full(3, 1 / 3))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_samples(shape):
    logits = np.zeros((*shape, 4), np.float32)
    action = jax.jit(categorical.sample)(logits, categorical.noise(jax.random.key(0), logits.shape))
    assert action.shape == shape
    assert action.dtype == jnp.int32
    for name, distribution in DISTRIBUTIONS.items():
        noise = jax.eval_shape(partial(distribution.noise, shape=(*shape, 3)), jax.random.key(0))
        sample = jax.eval_shape(distribution.sample, some_params(name, shape), noise)
        continuous = name in ("gaussian", "tanh", "beta")
        assert (sample.shape, sample.dtype) == (((*shape, 3), jnp.float32) if continuous else (shape, jnp.int32))


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
