"""Noisy layers, heads with several numbers for each action, and implicit quantiles, against NumPy and loops."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl.networks import distributional_q_network, implicit_quantile_network, q_network
from jaxrl.types import Dict, Discrete
from tests.test_networks import (
    BATCHES,
    IMAGES,
    SPACES,
    apply_random_params,
    close,
    dense,
    init_and_apply,
    masked_space,
    observations,
)

ONE_IN_A_MILLION = 1e-6

# --- noisy networks: the noise is one array, which holds the factors of each layer, sorted by name, its inputs before its outputs


def noisy_dense(params, x, eps_in, eps_out):
    """`[N, in]` to `[N, out]` with the weights of each row written out; factors `[N, in]` and `[N, out]`."""
    kernel, kernel_scale, bias, bias_scale = (
        np.asarray(params[name], np.float64) for name in ("kernel", "kernel_scale", "bias", "bias_scale")
    )
    rows = []
    for row, e_in, e_out in zip(x, eps_in, eps_out, strict=True):
        rows.append(row @ (kernel + kernel_scale * np.outer(e_in, e_out)) + bias + bias_scale * e_out)
    return np.array(rows)


def split(noise, *sizes):
    return np.split(np.asarray(noise, np.float64), np.cumsum(sizes)[:-1], axis=-1)


@pytest.mark.parametrize("per_row", [False, True])
def test_a_noisy_network_perturbs_the_weights_of_all_its_layers(per_row):
    obs = observations("vector", (4,))
    network = q_network(SPACES["vector"], Discrete(2), hidden=(5,), noisy=True)
    noise = network.noise(jax.random.key(0), (4,) if per_row else ())
    assert noise.shape == ((4, 15) if per_row else (15,))
    params, _ = apply_random_params(network, obs)
    layers, factors = params["params"], split(np.broadcast_to(noise, (4, 15)), 3, 5, 5, 2)
    assert set(layers) == {"NoisyDense_0", "NoisyDense_1"}
    x = np.maximum(noisy_dense(layers["NoisyDense_0"], obs.astype(np.float64), *factors[:2]), 0)
    close(jax.jit(network.apply)(params, obs, noise), noisy_dense(layers["NoisyDense_1"], x, *factors[2:]))


def test_gradients_of_shared_noise_are_those_of_the_same_noise_in_each_row():
    obs = observations("vector", (4,))
    network = q_network(SPACES["vector"], Discrete(2), hidden=(5,), noisy=True, dueling=True)
    params, _ = apply_random_params(network, obs)
    noise = network.noise(jax.random.key(0), ())
    loss = jax.jit(jax.grad(lambda params, noise: jnp.sum(jnp.sin(network.apply(params, obs, noise)))))
    jax.tree.map(close, loss(params, noise), loss(params, jnp.tile(noise, (4, 1))))


def test_without_noise_a_noisy_network_has_its_mean_weights():
    obs = observations("vector", (4,))
    params, q = apply_random_params(q_network(SPACES["vector"], Discrete(2), hidden=(5,), noisy=True), obs)
    x = np.maximum(dense(params["params"], "NoisyDense_0", obs), 0)
    close(q, dense(params["params"], "NoisyDense_1", x))


def test_noise_broadcasts_along_leading_axes():
    """Noise `[B, units]` for observations `[T, B, ...]`."""
    obs = observations("vector", (3, 4))
    network = q_network(SPACES["vector"], Discrete(2), hidden=(5,), noisy=True)
    params, _ = apply_random_params(network, obs)
    noise = network.noise(jax.random.key(0), (4,))
    q = network.apply(params, obs, noise)
    for t in range(3):
        close(q[t], network.apply(params, obs[t], noise))


def test_the_weights_of_a_noisy_network_begin_as_in_the_paper():
    """Fortunato et al. 2018, section 3.2: means uniform in ± 1 / √p, scales 0.5 / √p, with p inputs."""
    network = q_network(SPACES["vector"], Discrete(2), hidden=(64, 64), noisy=True)
    params = network.init(jax.random.key(0), observations("vector", (1,)))["params"]
    for layer, num_inputs in (("NoisyDense_0", 3), ("NoisyDense_1", 64)):
        found, bound = jax.tree.map(np.asarray, params[layer]), 1 / np.sqrt(num_inputs)
        for mean in (found["kernel"], found["bias"]):
            assert scipy.stats.kstest(mean.ravel(), scipy.stats.uniform(-bound, 2 * bound).cdf).pvalue > ONE_IN_A_MILLION
            assert np.abs(mean).max() <= bound
        for scale in (found["kernel_scale"], found["bias_scale"]):
            np.testing.assert_allclose(scale, 0.5 * bound, rtol=1e-6)


def test_noise_is_the_signed_root_of_a_normal_number():
    network = q_network(SPACES["vector"], Discrete(2), hidden=(5,), noisy=True)
    noise = np.asarray(network.noise(jax.random.key(0), (500,)))
    assert (noise.shape, noise.dtype) == ((500, 15), np.float32)
    normal = np.sign(noise) * noise**2
    assert scipy.stats.kstest(normal.ravel(), scipy.stats.norm.cdf).pvalue > ONE_IN_A_MILLION
    correlations = np.corrcoef(noise.T) - np.eye(15)  # over n draws, each deviates by about 1 / √n
    assert np.abs(correlations).max() < scipy.stats.norm.isf(ONE_IN_A_MILLION / 2) / np.sqrt(500)


def test_the_initial_weights_are_those_of_the_paper():
    """μ uniform within ±1/√p and σ = 0.5/√p for p inputs (Fortunato et al. 2018, section 3.2)."""
    network, obs = q_network(SPACES["vector"], Discrete(2), hidden=(400,), noisy=True), observations("vector", (4,))
    params, _ = init_and_apply(network, obs)
    assert set(params) == {"params"}
    for layer, inputs in (("NoisyDense_0", 3), ("NoisyDense_1", 400)):
        layer, bound = params["params"][layer], 1 / math.sqrt(inputs)
        np.testing.assert_allclose(layer["kernel_scale"], np.full_like(layer["kernel"], 0.5 * bound), rtol=1e-6)
        np.testing.assert_allclose(layer["bias_scale"], np.full_like(layer["bias"], 0.5 * bound), rtol=1e-6)
        uniform = scipy.stats.uniform(-bound, 2 * bound).cdf
        assert scipy.stats.kstest(np.ravel(layer["kernel"]), uniform).pvalue > ONE_IN_A_MILLION
        assert np.all(np.abs(layer["bias"]) <= bound)


def test_mean_and_variance_of_a_noisy_layer():
    """y = x μ + b + Σ_i x_i σ_i ε_i ε' + σ_b ε': its mean is that of the weights; with m = E f(ε)² = √(2/π), its variance is
    m² Σ_i (x_i σ_i)² + m σ_b²."""
    network, obs = q_network(SPACES["vector"], Discrete(1), hidden=(), noisy=True), observations("vector", ())
    params, _ = apply_random_params(network, obs)
    num, layer, m = 200_000, params["params"]["NoisyDense_0"], math.sqrt(2 / math.pi)
    y = np.asarray(network.apply(params, np.tile(obs, (num, 1)), network.noise(jax.random.key(0), (num,))), np.float64)[:, 0]
    variance = m**2 * np.sum((obs * layer["kernel_scale"][:, 0]) ** 2) + m * layer["bias_scale"][0] ** 2
    np.testing.assert_allclose(y.mean(), float(network.apply(params, obs)[0]), atol=5 * math.sqrt(variance / num))
    error = y.std() * math.sqrt((scipy.stats.kurtosis(y) + 2) / num)  # of the standard deviation, times two
    np.testing.assert_allclose(y.std(), math.sqrt(variance), atol=5 * error)


@pytest.mark.parametrize("name", ["discrete", "matrix", "bytes"])
@pytest.mark.parametrize("build", [q_network, distributional_q_network])
def test_noisy_networks_take_any_observations(build, name):
    options = {"hidden": (8, 7), "channels": (4,) if name in IMAGES else (), "layer_norm": True, "dueling": True}
    network, obs = build(SPACES[name], Discrete(3), noisy=True, dtype="bfloat16", **options), observations(name, (4,))
    params = jax.eval_shape(network.init, jax.random.key(0), obs)
    for batch in ((), (4,)):
        noise = jax.eval_shape(lambda batch=batch: network.noise(jax.random.key(0), batch))
        out = jax.eval_shape(network.apply, params, obs, noise)
        assert (out.shape, out.dtype) == ((4, 3) if build is q_network else (4, 3, 51), jnp.float32)
    grads = jax.eval_shape(jax.grad(lambda params: jnp.sum(network.apply(params, obs, jnp.zeros(noise.shape)))), params)
    assert {x.dtype for x in jax.tree.leaves(grads)} == {np.dtype(np.float32)}


# --- heads with several numbers for each action


@pytest.mark.parametrize("batch", BATCHES)
def test_distributional_networks_are_multilayer_perceptrons(batch):
    obs = observations("vector", batch)
    params, out = apply_random_params(distributional_q_network(SPACES["vector"], Discrete(3), num_atoms=4, hidden=(8,)), obs)
    mlp = params["params"]["mlp"]
    x = np.maximum(dense(mlp, "Dense_0", obs), 0)
    close(out, dense(mlp, "Dense_1", x).reshape(*batch, 3, 4))


@pytest.mark.parametrize("noisy", [False, True])
def test_dueling_streams_add_a_value_and_advantages_of_mean_zero_for_each_atom(noisy):
    obs = observations("vector", (4,))
    network = distributional_q_network(SPACES["vector"], Discrete(3), num_atoms=5, hidden=(8, 7), dueling=True, noisy=noisy)
    params, out = apply_random_params(network, obs)
    layer, params = "NoisyDense" if noisy else "Dense", params["params"]
    x = np.maximum(dense(params["body"], f"{layer}_0", obs), 0)
    value, advantage = (dense(params, f"{layer}_{i + 1}", np.maximum(dense(params, f"{layer}_{i}", x), 0)) for i in (0, 2))
    assert (value.shape, advantage.shape) == ((4, 5), (4, 15))
    expected = np.empty((4, 3, 5))
    for n in range(4):
        for k in range(5):
            advantages = [advantage[n, 5 * a + k] for a in range(3)]
            expected[n, :, k] = value[n, k] + advantages - np.mean(advantages)
    close(out, expected)


# --- implicit quantiles


def implicit(params, obs, tau, hidden):
    """One observation and one level at a time."""
    params, out = params["params"], []
    for x, levels in zip(obs.astype(np.float64), tau, strict=True):
        if len(hidden) == 2:
            x = np.maximum(dense(params["body"], "Dense_0", x), 0)
        quantiles = []
        for level in levels:
            cosines = np.array([math.cos(math.pi * i * level) for i in range(6)])
            y = x * np.maximum(dense(params, "embedding", cosines), 0)
            if hidden:
                y = np.maximum(dense(params, "Dense_0", y), 0)
            quantiles.append(dense(params, "Dense_1" if hidden else "Dense_0", y))
        out.append(np.transpose(quantiles))
    return np.array(out)


@pytest.mark.parametrize("hidden", [(), (7,), (8, 7)])
def test_implicit_quantiles_are_a_product_of_features_and_cosines(hidden):
    obs, tau = observations("vector", (4,)), np.random.default_rng(1).uniform(size=(4, 9)).astype(np.float32)
    network = implicit_quantile_network(SPACES["vector"], Discrete(3), embedding_size=6, hidden=hidden)
    params, out = apply_random_params(network, obs, tau)
    assert out.shape == (4, 3, 9)
    close(out, implicit(params, obs, tau, hidden))
    close(network.apply(params, obs, tau[0]), implicit(params, obs, np.tile(tau[0], (4, 1)), hidden))  # the same for all


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ["discrete", "matrix", "bytes"])
def test_implicit_quantile_networks_take_any_batch(name, batch):
    options = {"hidden": (8, 7), "channels": (4,) if name in IMAGES else (), "layer_norm": True}
    network, obs = implicit_quantile_network(SPACES[name], Discrete(3), dtype="bfloat16", **options), observations(name, batch)
    for tau in (jnp.zeros((*batch, 5)), jnp.zeros(5)):
        out = jax.eval_shape(network.init_with_output, jax.random.key(0), obs, tau)[0]
        assert (out.shape, out.dtype) == ((*batch, 3, 5), jnp.float32)


# --- illegal actions, and wrong arguments

TAU = np.linspace(0.1, 0.9, 5, dtype=np.float32)
MASKED = {
    "plain": (partial(distributional_q_network, num_atoms=5), ()),
    "dueling": (partial(distributional_q_network, num_atoms=5, dueling=True), ()),
    "noisy": (partial(distributional_q_network, num_atoms=5, noisy=True), ()),
    "implicit": (implicit_quantile_network, (TAU,)),
}


@pytest.mark.parametrize(("build", "inputs"), MASKED.values(), ids=MASKED)
def test_all_numbers_of_an_illegal_action_are_minus_infinity(build, inputs):
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    legal = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 1], [0, 0, 0, 0]], bool)
    network = build(masked_space(4), Discrete(4), hidden=(8,))
    params, free = apply_random_params(network, {"x": x, "action_mask": np.ones_like(legal)}, *inputs)
    out = network.apply(params, {"x": x, "action_mask": legal}, *inputs)
    legal[3] = True  # where nothing is legal, nothing is masked
    np.testing.assert_allclose(out, np.where(legal[..., None], free, -np.inf), rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: distributional_q_network(SPACES["vector"], SPACES["vector"]), "needs a Discrete action space, got Box"),
        (lambda: implicit_quantile_network(SPACES["vector"], SPACES["vector"]), "needs a Discrete action space, got Box"),
        (lambda: distributional_q_network(SPACES["vector"], Discrete(2), num_atoms=0), "num_atoms must be at least 1"),
        (lambda: implicit_quantile_network(SPACES["vector"], Discrete(2), embedding_size=0), "embedding_size must be at least 1"),
        (lambda: distributional_q_network(masked_space(3), Discrete(4)), "'action_mask' must be"),
        (lambda: implicit_quantile_network(Dict({"x": SPACES["vector"]}), Discrete(4), channels=(3,)), "needs observations"),
    ],
)
def test_wrong_inputs_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
