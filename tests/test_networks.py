"""Orthogonal matrices and their distribution; networks against a forward pass in NumPy, and their shapes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl.networks import orthogonal, policy, q_network
from jaxrl.types import Box, Discrete

ONE_IN_A_MILLION = 1e-6
MATRICES = [(1, 1), (4, 4), (7, 3), (3, 7), (1, 5), (5, 1), (64, 64), (84, 120)]

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@partial(jax.jit, static_argnums=1)
def matrix(key, shape, scale):
    return orthogonal(scale)(key, shape)


# --- orthogonal


@pytest.mark.parametrize("shape", MATRICES)
@pytest.mark.parametrize("scale", [1.0, float(np.sqrt(2)), 0.01])
def test_rows_or_columns_are_orthogonal_with_the_length_of_the_scale(shape, scale):
    w = np.asarray(matrix(jax.random.key(0), shape, scale), np.float64)
    assert w.shape == shape
    gram = w @ w.T if shape[0] < shape[1] else w.T @ w
    np.testing.assert_allclose(gram / scale**2, np.eye(min(shape)), atol=2e-6)


def test_matrices_are_float32_by_default_and_otherwise_as_asked():
    assert orthogonal(1.0)(jax.random.key(0), (2, 2)).dtype == jnp.float32
    assert orthogonal(1.0)(jax.random.key(0), (2, 2), jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", MATRICES)
def test_each_key_has_its_matrix(shape):
    keys = jax.random.split(jax.random.key(0), 20)
    matrices = {matrix(key, shape, 1.0).tobytes() for key in keys}
    assert len(matrices) == (2 if shape == (1, 1) else 20)


@pytest.mark.parametrize("shape", [(3, 3), (3, 2), (2, 3)])
def test_the_distribution_is_uniform_over_all_rotations_and_reflections(shape):
    """An entry of a uniformly rotated orthonormal frame in three dimensions is uniform in (−1, 1) (Archimedes)."""
    num = 2_000
    draw = jax.jit(jax.vmap(lambda key: orthogonal(1.0)(key, shape)))
    matrices = np.asarray(draw(jax.random.split(jax.random.key(0), num)), np.float64)
    grams = np.einsum("nij,nkj->nik" if shape[0] < shape[1] else "nji,njk->nik", matrices, matrices)
    np.testing.assert_allclose(grams, np.broadcast_to(np.eye(min(shape)), grams.shape), atol=2e-6)
    for i in np.ndindex(shape):
        assert scipy.stats.kstest(matrices[:, *i], scipy.stats.uniform(-1, 2).cdf).pvalue > ONE_IN_A_MILLION
    # Two different entries are uncorrelated: over N matrices a correlation deviates by about 1 / sqrt(N).
    correlations = np.corrcoef(matrices.reshape(num, -1).T) - np.eye(np.prod(shape))
    assert np.abs(correlations).max() < scipy.stats.norm.isf(ONE_IN_A_MILLION / 2) / np.sqrt(num)
    if shape == (3, 3):
        low, high = scipy.stats.binom(num, 0.5).interval(1 - ONE_IN_A_MILLION)
        assert low <= np.sum(np.linalg.det(matrices) > 0) <= high


# --- networks

SPACES = {
    "discrete": Discrete(5),
    "vector": Box(-1.0, 1.0, (3,)),
    "matrix": Box(-1.0, 1.0, (2, 3)),
    "scalar": Box(-1.0, 1.0, ()),
    "bytes": Box(0, 255, (6, 5, 2), np.uint8),
    "bits": Box(0, 1, (6, 5, 2), np.bool_),
}
IMAGES = ("bytes", "bits")
BATCHES = [(), (4,), (3, 4)]


def observations(name, batch, seed=0):
    space, rng = SPACES[name], np.random.default_rng(seed)
    shape = (*batch, *space.shape)
    if isinstance(space, Discrete):
        return np.asarray(rng.integers(space.n, size=shape), np.int32)
    if np.issubdtype(space.dtype, np.floating):
        return np.asarray(rng.uniform(-1, 1, shape), np.float32)
    return np.asarray(rng.integers(int(space.high.max()), size=shape, endpoint=True), space.dtype)


def init_and_apply(network, obs, seed=0):
    params = jax.jit(network.init)(jax.random.key(seed), obs)
    return params, jax.jit(network.apply)(params, obs)


def apply_random_params(network, obs):
    """With parameters from NumPy: no initialiser to compile, and biases that are not 0."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(network.init, jax.random.key(0), obs)
    params = jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape) / np.sqrt(8), x.dtype), shapes)
    return params, jax.jit(network.apply)(params, obs)


def output_shapes(network, name, batch):
    """What it gives, without compiling anything."""
    return jax.eval_shape(network.init_with_output, jax.random.key(0), observations(name, batch))[0]


def dense(params, name, x):
    return x @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"], np.float64)


def convolution(params, name, x):
    """3×3, without padding, of `[B, H, W, C]`."""
    kernel, bias = (np.asarray(params[name][part], np.float64) for part in ("kernel", "bias"))
    batch, height, width, _ = x.shape
    out = np.zeros((batch, height - 2, width - 2, len(bias)))
    for i in range(height - 2):
        for j in range(width - 2):
            out[:, i, j] = np.einsum("bhwc,hwco->bo", x[:, i : i + 3, j : j + 3], kernel) + bias
    return out


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", SPACES)
def test_q_networks_give_a_value_for_each_action(name, batch):
    network = q_network(SPACES[name], Discrete(3), hidden=(8,), channels=(4,) if name in IMAGES else ())
    q = output_shapes(network, name, batch)
    assert q.shape == (*batch, 3)
    assert q.dtype == jnp.float32


@pytest.mark.parametrize("name", ["discrete", "matrix", "bytes"])
def test_each_observation_of_a_batch_has_its_own_output(name):
    network = q_network(SPACES[name], Discrete(3), hidden=(8,), channels=(4,) if name in IMAGES else ())
    obs = observations(name, (3, 4))
    params, q = apply_random_params(network, obs)
    alone = jax.jit(network.apply)
    for i in [(0, 0), (1, 3), (2, 1)]:
        np.testing.assert_allclose(q[i], alone(params, obs[i]), rtol=1e-4, atol=1e-4)
    assert len(np.unique(np.asarray(q).reshape(12, 3), axis=0)) > 1


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_q_network_is_a_multilayer_perceptron(activation):
    obs = observations("matrix", (4,))
    params, q = apply_random_params(q_network(SPACES["matrix"], Discrete(3), hidden=(8, 7), activation=activation), obs)
    function = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}[activation]
    x = obs.reshape(4, 6).astype(np.float64)
    x = function(dense(params["params"], "Dense_0", x))
    x = function(dense(params["params"], "Dense_1", x))
    close(q, dense(params["params"], "Dense_2", x))


def test_discrete_observations_are_one_hot():
    obs = np.arange(5, dtype=np.int32)
    params, q = apply_random_params(q_network(SPACES["discrete"], Discrete(3), hidden=()), obs)
    close(q, dense(params["params"], "Dense_0", np.eye(5)))


@pytest.mark.parametrize("name", IMAGES)
def test_channels_are_convolutions(name):
    obs = observations(name, (4,))
    params, q = apply_random_params(q_network(SPACES[name], Discrete(3), hidden=(8,), channels=(4, 3)), obs)
    encoder, x = params["params"]["Encoder_0"], obs.astype(np.float64)
    x = np.maximum(convolution(encoder, "Conv_0", x), 0)
    x = np.maximum(convolution(encoder, "Conv_1", x), 0)
    x = np.maximum(dense(params["params"], "Dense_0", x.reshape(4, -1)), 0)
    np.testing.assert_allclose(q, dense(params["params"], "Dense_1", x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["discrete", "vector", "bytes"])
def test_bfloat16_is_for_hidden_layers_and_convolutions_alone(name):
    """Products of bfloat16 up to the last layer; float32 in parameters, gradients, last layer and output."""
    network = q_network(SPACES[name], Discrete(3), hidden=(8, 8), channels=(4,) if name in IMAGES else (), dtype="bfloat16")
    obs = observations(name, (4,))
    params, q = init_and_apply(network, obs)
    grads = jax.eval_shape(jax.grad(lambda params: jnp.sum(network.apply(params, obs))), params)
    assert {x.dtype for x in jax.tree.leaves((params, grads, q))} == {np.dtype(np.float32)}
    equations = jax.make_jaxpr(network.apply)(params, obs).jaxpr.eqns
    products = [e.outvars[0].aval.dtype for e in equations if e.primitive.name in ("dot_general", "conv_general_dilated")]
    assert products == [jnp.bfloat16] * (3 if name in IMAGES else 2) + [np.float32]


def test_bfloat16_is_right_to_its_eight_bits():
    obs = observations("vector", (50,))
    params, exact = init_and_apply(policy(SPACES["vector"], Discrete(3), value=True, hidden=(16, 16)), obs)
    _, value = policy(SPACES["vector"], Discrete(3), value=True, hidden=(16, 16), dtype="bfloat16").apply(params, obs)
    error = np.abs(value - exact[1])
    # Each rounding is 2⁻⁹ of a number at most; here are six of them: inputs, weights and outputs of two layers.
    assert 0 < error.max() < 6 * 2**-9 * 4 * np.abs(exact[1]).max()


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ["discrete", "vector", "bytes"])
def test_policies_over_discrete_actions_give_logits(name, batch, value):
    network = policy(SPACES[name], Discrete(3), value=value, hidden=(8,), channels=(4,) if name in IMAGES else ())
    out = output_shapes(network, name, batch)
    logits = out[0] if value else out
    assert logits.shape == (*batch, 3)
    if value:
        assert len(out) == 2
        assert out[1].shape == batch


@pytest.mark.parametrize("state_dependent_std", [False, True])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("value", [False, True])
def test_policies_over_a_box_give_means_and_spreads(value, batch, state_dependent_std):
    network = policy(SPACES["vector"], Box(-1.0, 1.0, (2, 1)), value=value, hidden=(8,), state_dependent_std=state_dependent_std)
    out = output_shapes(network, "vector", batch)
    mean, log_std = out[0] if value else out
    assert mean.shape == log_std.shape == (*batch, 2)
    assert not value or out[1].shape == batch


@pytest.mark.parametrize(
    ("options", "expected"), [({}, -0.5), ({"log_std": -0.7}, -0.7), ({"state_dependent_std": True, "log_std": -0.7}, -0.7)]
)
def test_policies_start_near_their_middle(options, expected):
    network = policy(SPACES["vector"], Box(-1.0, 1.0, (2,)), hidden=(16,), **options)
    _, (mean, log_std) = init_and_apply(network, observations("vector", (50,)))
    # The last layer's columns have length 0.01, and 16 hidden units within ±1 a length of at most 4.
    assert 0 < np.abs(mean).max() < 0.04
    np.testing.assert_allclose(log_std, np.full((50, 2), expected), atol=0.04)


def test_the_spread_depends_on_the_state_only_where_asked_to():
    def spreads(state_dependent_std):
        network = policy(SPACES["vector"], Box(-1.0, 1.0, (2,)), hidden=(8,), state_dependent_std=state_dependent_std)
        params, (_, log_std) = apply_random_params(network, observations("vector", (50,)))
        return params["params"], np.asarray(log_std)

    params, shared = spreads(False)
    np.testing.assert_array_equal(shared, np.broadcast_to(params["log_std"], (50, 2)))
    params, own = spreads(True)
    assert "log_std" not in params
    assert len(np.unique(own[:, 0])) == 50
    assert not np.array_equal(own[:, 0], own[:, 1])


def test_the_spread_has_a_gradient():
    network, obs = policy(SPACES["vector"], Box(-1.0, 1.0, (2,)), hidden=(8,)), observations("vector", (4,))
    params, _ = apply_random_params(network, obs)
    grads = jax.jit(jax.grad(lambda params: jnp.sum(network.apply(params, obs)[1])))(params)
    assert grads["params"]["log_std"].tolist() == [4.0, 4.0]


def test_actor_and_critic_share_nothing():
    network, obs = policy(SPACES["vector"], Discrete(3), value=True, hidden=(8,)), observations("vector", (4,))
    params, _ = apply_random_params(network, obs)

    @jax.jit
    def gradients(params):
        by_logits = jax.grad(lambda params: jnp.sum(jnp.square(network.apply(params, obs)[0])))(params)
        by_value = jax.grad(lambda params: jnp.sum(network.apply(params, obs)[1]))(params)
        return by_logits["params"], by_value["params"]

    by_logits, by_value = gradients(params)
    assert set(by_logits) == {"actor", "critic"}
    for grads, part in ((by_logits, "critic"), (by_value, "actor")):
        assert all(not leaf.any() for leaf in jax.tree.leaves(grads[part]))
    for grads, part in ((by_logits, "actor"), (by_value, "critic")):
        assert any(leaf.any() for leaf in jax.tree.leaves(grads[part]))


def test_two_keys_give_two_networks():
    obs = observations("vector", (4,))
    for network in (q_network(SPACES["vector"], Discrete(3), hidden=()), policy(SPACES["vector"], Discrete(3), hidden=())):
        (_, one), (_, other) = (init_and_apply(network, obs, seed) for seed in (0, 1))
        assert not np.allclose(one, other, atol=1e-6)


BOX, IMAGE = SPACES["vector"], SPACES["bytes"]


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: q_network(BOX, BOX), ValueError, "Discrete"),
        (lambda: q_network(BOX, Discrete(3), activation="sigmoid"), ValueError, "activation must be one of .*'relu'.*'sigmoid'"),
        (lambda: policy(BOX, Discrete(3), activation="sigmoid"), ValueError, "activation"),
        (lambda: q_network(BOX, Discrete(3), dtype="float16"), ValueError, "dtype must be one of .*'bfloat16'.*'float16'"),
        (lambda: q_network(BOX, Discrete(3), channels=(4,)), ValueError, r"channels=\(4,\) needs observations \[H, W, C\]"),
        (lambda: policy(Discrete(5), Discrete(3), channels=(4,)), ValueError, "channels"),
        (lambda: q_network(Box(0, 1, (4, 9, 1)), Discrete(3), channels=(4, 4)), ValueError, "leaves nothing .* fewer than 2"),
        (lambda: q_network(Box(0, 1, (5, 9, 1)), Discrete(3), channels=(4, 4, 4)), ValueError, "fewer than 3"),
        (lambda: policy(BOX, None), ValueError, "a policy needs a Discrete action space or a Box, got None"),
        (lambda: q_network(IMAGE, Discrete(3), channels=(0,)), ValueError, "channels must be at least 1"),
        (lambda: q_network(BOX, Discrete(3), hidden=(8, 0)), ValueError, "hidden .*must be at least 1"),
        (lambda: policy(BOX, BOX, hidden=(8.0,)), TypeError, "hidden .*must be an int"),
    ],
)
def test_wrong_inputs_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_as_many_convolutions_as_fit_are_taken():
    space = Box(0, 1, (5, 9, 1))
    network = q_network(space, Discrete(3), channels=(4, 4))
    obs = jnp.zeros((2, 5, 9, 1))
    assert network.apply(network.init(jax.random.key(0), obs), obs).shape == (2, 3)
