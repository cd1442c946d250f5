"""Orthogonal matrices and their distribution; networks against a forward pass in NumPy, and their shapes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrl.networks import (
    Encoder,
    critic,
    deterministic_policy,
    ensemble,
    implicit_quantile_network,
    orthogonal,
    policy,
    q_network,
    recurrent_policy,
)
from jaxrl.policies import deterministic_head
from jaxrl.types import Box, Dict, Discrete, MultiDiscrete
from tests.precision import tolerance
from tests.problems import plain

ONE_IN_A_MILLION = 1e-6
MATRICES = [(1, 1), (4, 4), (7, 3), (3, 7), (1, 5), (5, 1), (64, 64), (84, 120)]

close = partial(np.testing.assert_allclose, **tolerance(1e-5, 1e-5))


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
BOX, IMAGE = SPACES["vector"], SPACES["bytes"]
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


def apply_random_params(network, *inputs):
    """With parameters from NumPy: no initialiser to compile, and biases that are not 0."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(network.init, jax.random.key(0), *inputs)
    params = jax.tree.map(lambda x: np.asarray(rng.normal(size=x.shape) / np.sqrt(8), x.dtype), shapes)
    return params, jax.jit(network.apply)(params, *inputs)


def output_shapes(network, name, batch):
    """The output's shapes, without compiling anything."""
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
        np.testing.assert_allclose(q[i], alone(params, obs[i]), **tolerance(1e-4, 1e-4))
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
    encoder, x = params["params"]["Encoder_0"], obs.astype(np.float64) / SPACES[name].high
    x = np.maximum(convolution(encoder, "Conv_0", x), 0)
    x = np.maximum(convolution(encoder, "Conv_1", x), 0)
    x = np.maximum(dense(params["params"], "Dense_0", x.reshape(4, -1)), 0)
    np.testing.assert_allclose(q, dense(params["params"], "Dense_1", x), **tolerance(1e-4, 1e-4))


# --- encoder


def encode(space, obs, **options):
    return np.asarray(Encoder(space, **options).apply({}, obs))


@pytest.mark.parametrize(
    ("box", "obs", "scaled"),
    [
        (Box(0, 255, (3,), np.uint8), [0, 51, 255], [0, 0.2, 1]),
        (Box(1, 11, (3,), np.int32), [1, 6, 11], [0, 0.5, 1]),
        (Box(-128, 127, (3,), np.int8), [-128, 127, -77], [0, 1, 0.2]),
        (Box(np.array([0, 4, 3]), np.array([4, 8, 3]), (3,), np.int16), [1, 5, 3], [0.25, 0.25, 0]),
        # The limits of 32 bits are no bounds.
        (Box(-(2**31), 2**31 - 1, (3,), np.int32), [7, -2, 3], [7, -2, 3]),
        (Box(np.array([0, 0, -(2**31)]), np.array([4, 2**31 - 1, 4]), (3,), np.int32), [1, 5, 3], [0.25, 5, 3]),
        (Box(False, True, (3,), bool), [False, True, True], [0, 1, 1]),
        (Box(0, 255, (3,), np.float32), [0, 51, 255], [0, 51, 255]),
    ],
)
def test_bounded_integers_are_scaled_by_their_bounds(box, obs, scaled):
    obs = np.array([obs, obs], box.dtype)
    np.testing.assert_allclose(encode(box, obs), [scaled, scaled], rtol=1e-6)
    assert encode(box, obs).dtype == np.float32
    np.testing.assert_array_equal(encode(box, obs, scale_observations=False), obs.astype(np.float32))


def test_entries_of_a_dict_are_encoded_by_their_kind_and_concatenated():
    space = Dict(
        {"place": Discrete(3), "a": MultiDiscrete((2, 3)), "deep": Dict({"x": Box(-1, 1, (2, 2))}), "b": SPACES["bytes"]}
    )
    rng = np.random.default_rng(0)
    image, x = rng.integers(256, size=(4, 6, 5, 2)).astype(np.uint8), rng.normal(size=(4, 2, 2)).astype(np.float32)
    obs = {"place": np.int32([0, 2, 1, 1]), "a": np.int32([[0, 0], [1, 2], [0, 1], [1, 0]]), "deep": {"x": x}, "b": image}
    parts = [np.eye(2)[obs["a"][:, 0]], np.eye(3)[obs["a"][:, 1]], image.reshape(4, -1) / 255, x.reshape(4, 4)]
    close(encode(space, obs), np.concatenate([*parts, np.eye(3)[obs["place"]]], axis=1))
    params, q = apply_random_params(q_network(space, Discrete(3), hidden=(), channels=(2,)), obs)
    encoder = params["params"]["Encoder_0"]
    assert set(encoder) == {"obs_b"}
    parts[2] = np.maximum(convolution(encoder["obs_b"], "Conv_0", image / 255), 0).reshape(4, -1)
    close(q, dense(params["params"], "Dense_0", np.concatenate([*parts, np.eye(3)[obs["place"]]], axis=1)))


# --- illegal actions


def masked_space(size):
    return Dict({"x": Box(-1, 1, (3,)), "action_mask": Box(False, True, (size,), bool)})


MASKED = {
    "q": lambda space: q_network(space, Discrete(4), hidden=(8,)),
    "dueling q": lambda space: q_network(space, Discrete(4), hidden=(8,), dueling=True),
    "policy": lambda space: policy(space, Discrete(4), hidden=(8,)),
    "parts": lambda space: policy(space, MultiDiscrete((3, 1)), hidden=(8,)),
}


@pytest.mark.parametrize("build", MASKED.values(), ids=MASKED)
def test_illegal_actions_get_minus_infinity_and_the_mask_is_not_an_input(build):
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    legal = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 1]], bool)
    network = build(masked_space(4))
    params, free = apply_random_params(network, {"x": x, "action_mask": np.ones_like(legal)})
    out = jax.jit(network.apply)(params, {"x": x, "action_mask": legal})
    np.testing.assert_allclose(out, np.where(legal, free, -np.inf), rtol=1e-6)
    more_axes = network.apply(params, {"x": x.reshape(2, 2, 3), "action_mask": legal.reshape(2, 2, 4)})
    np.testing.assert_allclose(more_axes, out.reshape(2, 2, 4), rtol=1e-5)
    without = jax.eval_shape(build(Dict({"x": Box(-1, 1, (3,))})).init, jax.random.key(0), {"x": x})
    assert params["params"].keys() == without["params"].keys()


def test_where_nothing_is_legal_nothing_is_masked():
    """As after the end of a game, whose values are multiplied by a discount of 0."""
    x, network = np.ones((3, 3), np.float32), policy(masked_space(5), MultiDiscrete((3, 2)), hidden=())
    legal = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0]], bool)
    _, logits = apply_random_params(network, {"x": x, "action_mask": legal})
    expected = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [0, 1, 0, 1, 1]], bool)
    np.testing.assert_array_equal(np.isfinite(logits), expected)


def test_a_critic_beside_a_masked_policy_has_a_value():
    network = policy(masked_space(4), Discrete(4), hidden=(8,), value=True)
    obs = {"x": np.ones((2, 3), np.float32), "action_mask": np.array([[1, 0, 0, 0], [0, 1, 1, 0]], bool)}
    _, (logits, value) = apply_random_params(network, obs)
    np.testing.assert_array_equal(np.isfinite(logits), obs["action_mask"])
    assert value.shape == (2,)
    assert np.all(np.isfinite(value))


# --- dueling, LayerNorm, precision


@pytest.mark.parametrize("hidden", [(), (7,), (8, 7)])
def test_dueling_streams_add_a_value_and_advantages_of_mean_zero(hidden):
    obs = observations("vector", (4,))
    params, q = apply_random_params(q_network(SPACES["vector"], Discrete(3), hidden=hidden, dueling=True), obs)
    params, x = params["params"], obs.astype(np.float64)
    if len(hidden) == 2:
        x = np.maximum(dense(params["body"], "Dense_0", x), 0)
    streams = [("Dense_0", "Dense_1"), ("Dense_2", "Dense_3")] if hidden else [("Dense_0",), ("Dense_1",)]
    value, advantage = (dense(params, names[-1], np.maximum(dense(params, names[0], x), 0) if hidden else x) for names in streams)
    assert value.shape == (4, 1)
    close(q, value + advantage - advantage.mean(-1, keepdims=True))


@pytest.mark.parametrize("name", ["vector", "bytes"])
def test_layer_norm_comes_before_each_activation(name):
    obs = observations(name, (4,))
    options = {"hidden": (8, 7), "channels": (4,) if name in IMAGES else (), "layer_norm": True}
    params, q = apply_random_params(q_network(SPACES[name], Discrete(3), **options), obs)

    def normalize(params, name, x):
        scale, bias = (np.asarray(params[name][part], np.float64) for part in ("scale", "bias"))
        return scale * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) + bias

    params, x = params["params"], obs.astype(np.float64)
    if name in IMAGES:
        encoder, x = params["Encoder_0"], x / 255
        x = np.maximum(normalize(encoder, "LayerNorm_0", convolution(encoder, "Conv_0", x)), 0).reshape(4, -1)
    for i in range(2):
        x = np.maximum(normalize(params, f"LayerNorm_{i}", dense(params, f"Dense_{i}", x)), 0)
    np.testing.assert_allclose(q, dense(params, "Dense_2", x), **tolerance(1e-4, 1e-4))


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("name", ["discrete", "vector", "bytes"])
def test_bfloat16_is_for_what_hidden_layers_and_convolutions_store(name, layer_norm):
    """Everything that is computed is float32. In bfloat16 are, of each layer, its result and two gradients of it."""
    options = {"hidden": (8, 8), "channels": (4,) if name in IMAGES else (), "layer_norm": layer_norm}
    network = q_network(SPACES[name], Discrete(3), dtype="bfloat16", **options)
    obs = observations(name, (4,))
    params, q = init_and_apply(network, obs)
    grads = jax.eval_shape(jax.grad(lambda params: jnp.sum(network.apply(params, obs))), params)
    assert {x.dtype for x in jax.tree.leaves((params, grads, q))} == {np.dtype(np.float32)}
    num_layers = 3 if name in IMAGES else 2
    assert stored_arrays(lambda params: network.apply(params, obs), params) == num_layers
    assert stored_arrays(jax.grad(lambda params: jnp.sum(network.apply(params, obs))), params) == 3 * num_layers


@pytest.mark.parametrize(
    ("network", "inputs", "forward", "backward"),
    [
        (recurrent_policy(BOX, Discrete(3), hidden=(8,), num_units=6, dtype="bfloat16"), (np.zeros((4, 6)),), 1 + 2, 3 + 2 * 2),
        (implicit_quantile_network(BOX, Discrete(3), hidden=(8, 7), dtype="bfloat16"), (np.full(5, 0.5),), 3, 2 * 3 + 3),
        (q_network(BOX, Discrete(3), hidden=(8,), noisy=True, dtype="bfloat16"), (), 1, 3),
    ],
    ids=["recurrent", "implicit quantiles", "noisy"],
)
def test_bfloat16_is_stored_by_every_kind_of_network(network, inputs, forward, backward):
    """Of a hidden layer three arrays, of one of the GRU's two products two, and of IQN's embedding three."""
    inputs = (np.zeros((4, *BOX.shape), np.float32), *(x.astype(np.float32) for x in inputs))
    params = jax.eval_shape(network.init, jax.random.key(0), *inputs)
    total = lambda params: sum(map(jnp.sum, jax.tree.leaves(network.apply(params, *inputs))))
    assert stored_arrays(total, params) == forward
    assert stored_arrays(jax.grad(total), params) == backward


def stored_arrays(fn, *args):
    """The number of arrays that are stored in bfloat16. Every matrix product must be float32."""
    stored, todo = 0, [jax.make_jaxpr(fn)(*args).jaxpr]
    while todo:
        for equation in todo.pop().eqns:
            dtype = equation.outvars[0].aval.dtype
            assert equation.primitive.name not in ("dot_general", "conv_general_dilated") or dtype == np.float32
            stored += equation.primitive.name == "optimization_barrier" and dtype == jnp.bfloat16
            todo += [getattr(x, "jaxpr", x) for x in equation.params.values() if hasattr(getattr(x, "jaxpr", x), "eqns")]
    return stored


def test_a_bfloat16_network_and_its_gradient_are_those_of_a_numpy_loop_that_rounds():
    network, obs = q_network(SPACES["vector"], Discrete(3), hidden=(16, 8), dtype="bfloat16"), observations("vector", (50,))
    params = jax.jit(network.init)(jax.random.key(0), obs)
    weight = np.random.default_rng(1).normal(size=(50, 3)).astype(np.float32)
    with jax.default_matmul_precision("highest"):
        q, grads = jax.jit(jax.value_and_grad(lambda params: jnp.sum(weight * network.apply(params, obs))))(params)
    rounded = lambda x: x.astype(jnp.bfloat16).astype(np.float32)
    layers = [jax.tree.map(np.asarray, params["params"][f"Dense_{i}"]) for i in range(3)]
    inputs, linear = [obs], []
    for layer in layers[:2]:
        linear.append(rounded(inputs[-1] @ layer["kernel"] + layer["bias"]))
        inputs.append(np.maximum(linear[-1], 0))
    np.testing.assert_allclose(q, np.sum(weight * (inputs[-1] @ layers[2]["kernel"] + layers[2]["bias"])), rtol=1e-5)
    g = weight
    for i in (2, 1, 0):
        product = rounded(g) if i < 2 else g
        expected = {"kernel": inputs[i].T @ product, "bias": g.sum(axis=0)}
        for name, x in expected.items():
            np.testing.assert_allclose(grads["params"][f"Dense_{i}"][name], x, rtol=1e-5, atol=1e-6 * np.abs(x).max())
        g = rounded(product @ layers[i]["kernel"].T) * (linear[i - 1] > 0) if i else g


def test_bfloat16_is_right_to_its_eight_bits():
    obs = observations("vector", (50,))
    params, exact = init_and_apply(policy(SPACES["vector"], Discrete(3), value=True, hidden=(16, 16)), obs)
    _, value = policy(SPACES["vector"], Discrete(3), value=True, hidden=(16, 16), dtype="bfloat16").apply(params, obs)
    error = np.abs(value - exact[1])
    # Each rounding is 2⁻⁹ of a number at most; here are two of them: the results of two layers.
    assert 0 < error.max() < 2 * 2**-9 * 4 * np.abs(exact[1]).max()


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
        (lambda: policy(BOX, None), ValueError, "a policy needs a Discrete or MultiDiscrete action space or a Box, got None"),
        (
            lambda: q_network(Dict({"x": BOX}), Discrete(3), channels=(4,)),
            ValueError,
            r"needs observations \[H, W, C\], got Dict",
        ),
        (lambda: policy(masked_space(3), Discrete(4)), ValueError, r"'action_mask' must be a Box of bools of shape \[4\]"),
        (lambda: q_network(masked_space(3), Discrete(4)), ValueError, "'action_mask' must be"),
        (lambda: policy(masked_space(2), MultiDiscrete((2, 3))), ValueError, r"bools of shape \[5\]"),
        (lambda: policy(masked_space(2), BOX), ValueError, "an action mask needs a Discrete or MultiDiscrete"),
        (lambda: q_network(IMAGE, Discrete(3), channels=(0,)), ValueError, "channels must be at least 1"),
        (lambda: q_network(BOX, Discrete(3), hidden=(8, 0)), ValueError, "hidden must be at least 1"),
        (lambda: policy(BOX, BOX, hidden=(8.0,)), TypeError, "hidden must be an int"),
        (lambda: policy(BOX, BOX, hidden=64), TypeError, r"hidden must be a tuple of ints, such as \(64, 64\); got 64"),
        (lambda: q_network(BOX, Discrete(3), channels="16"), TypeError, "channels must be a tuple of ints"),
        (lambda: q_network((4,), Discrete(3)), TypeError, r"observation_space must be a space, .*; got \(4,\)"),
        (lambda: policy(None, Discrete(3)), TypeError, "observation_space must be a space"),
        (lambda: q_network(Dict({"action_mask": masked_space(3)["action_mask"]}), Discrete(3)), ValueError, "an entry beside"),
        (lambda: q_network(BOX, Discrete(3), activation=["relu"]), ValueError, "activation must be one of"),
        (lambda: policy(BOX, BOX, log_std=float("nan")), ValueError, "log_std must lie in"),
    ],
)
def test_wrong_inputs_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_as_many_convolutions_as_fit_are_taken():
    space = Box(0, 1, (5, 9, 1))
    network = q_network(space, Discrete(3), channels=(4, 4))
    obs = jnp.zeros((2, 5, 9, 1))
    assert jax.eval_shape(network.init_with_output, jax.random.key(0), obs)[0].shape == (2, 3)


# --- critics and ensembles

ACTIONS = {
    "box": Box(np.array([[15], [-2]]), np.array([[30], [2]]), (2, 1)),
    "one bound": Box(np.array([3, -np.inf]), np.array([np.inf, np.inf]), (2,)),
    "discrete": Discrete(3),
    "multidiscrete": MultiDiscrete((3, 2)),
}


def actions(name, batch, seed=0):
    space, rng = ACTIONS[name], np.random.default_rng(seed)
    if isinstance(space, Box):
        return rng.normal(size=(*batch, *space.shape)).astype(np.float32) * 5
    nvec = space.n if isinstance(space, Discrete) else np.array(space.nvec)
    return rng.integers(nvec, size=(*batch, *space.shape)).astype(np.int32)


@pytest.mark.parametrize("name", ACTIONS)
def test_a_critic_is_an_mlp_on_observation_and_action(name):
    obs, action = observations("vector", (4,)), actions(name, (4,))
    network = critic(SPACES["vector"], ACTIONS[name], hidden=(8,))
    params, value = apply_random_params(network, obs, action)
    encoded = {
        "box": lambda a: (a.reshape(4, 2) - [22.5, 0]) / [7.5, 2],
        "one bound": lambda a: a - [4, 0],
        "discrete": lambda a: np.eye(3)[a],
        "multidiscrete": lambda a: np.concatenate([np.eye(3)[a[:, 0]], np.eye(2)[a[:, 1]]], axis=1),
    }[name](action)
    params = params["params"]["mlp"]
    x = np.maximum(dense(params, "Dense_0", np.concatenate([encoded, obs], axis=1)), 0)
    close(value, dense(params, "Dense_1", x)[:, 0])


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", ["discrete", "matrix", "bytes"])
def test_critics_take_any_batch(name, action, batch):
    network = critic(SPACES[name], ACTIONS[action], hidden=(8,), channels=(4,) if name in IMAGES else (), layer_norm=True)
    value = jax.eval_shape(network.init_with_output, jax.random.key(0), observations(name, batch), actions(action, batch))[0]
    assert (value.shape, value.dtype) == (batch, jnp.float32)


def test_a_critic_ignores_the_action_mask():
    network, action = critic(masked_space(3), Discrete(3), hidden=(8,)), np.int32([0, 1])
    obs = {"x": np.ones((2, 3), np.float32), "action_mask": np.zeros((2, 3), bool)}
    params, value = apply_random_params(network, obs, action)
    np.testing.assert_array_equal(value, network.apply(params, obs | {"action_mask": ~obs["action_mask"]}, action))


def test_a_critic_has_a_gradient_in_the_action():
    network, obs, action = critic(BOX, ACTIONS["box"], hidden=(8,)), observations("vector", (4,)), actions("box", (4,))
    params, _ = apply_random_params(network, obs, action)
    gradient = np.asarray(jax.jit(jax.grad(lambda action: jnp.sum(network.apply(params, obs, action))))(action))
    assert np.all(np.any(gradient != 0, axis=0))


def test_members_of_an_ensemble_are_independent_networks():
    obs, action, key = observations("vector", (4,)), actions("box", (4,)), jax.random.key(0)
    network = critic(BOX, ACTIONS["box"], hidden=(8,), layer_norm=True)
    members = ensemble(network, 3)
    params = jax.jit(members.init)(key, obs, action)
    values = np.asarray(jax.jit(members.apply)(params, obs, action))
    assert values.shape == (3, 4)
    for i, member_key in enumerate(jax.random.split(key, 3)):
        value, alone = jax.jit(network.init_with_output)(member_key, obs, action)
        jax.tree.map(close, jax.tree.map(lambda x, i=i: x[i], params), alone)
        close(values[i], value)
    # No two have a weight in common.
    kernels = [np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(params) if "kernel" in str(path)]
    assert len(kernels) == 2
    for kernel in kernels:
        assert all(np.all(kernel[i] != kernel[j]) for i in range(3) for j in range(i))


def test_an_ensemble_is_of_any_network():
    obs = {"x": np.ones((4, 3), np.float32), "action_mask": np.ones((4, 3), bool)}
    members = ensemble(policy(masked_space(3), Discrete(3), hidden=(8,), value=True), 2)
    logits, value = jax.eval_shape(lambda: members.apply(members.init(jax.random.key(0), obs), obs))
    assert (logits.shape, value.shape) == ((2, 4, 3), (2, 4))


def test_members_do_not_see_each_others_gradients():
    obs, action = observations("vector", (4,)), actions("box", (4,))
    members = ensemble(critic(BOX, ACTIONS["box"], hidden=(8,)), 2)
    params = jax.jit(members.init)(jax.random.key(0), obs, action)
    grads = plain(jax.jit(jax.grad(lambda params: jnp.sum(members.apply(params, obs, action)[0])))(params))
    assert all(not np.any(x[1]) for x in jax.tree.leaves(grads))
    assert any(np.any(x[0]) for x in jax.tree.leaves(grads))


def test_deterministic_policies_start_in_the_middle():
    network, obs = deterministic_policy(BOX, ACTIONS["box"], hidden=(16,)), observations("vector", (50,))
    _, output = init_and_apply(network, obs)
    assert output.shape == (50, 2)
    assert 0 < np.abs(output).max() < 0.1
    action = deterministic_head(ACTIONS["box"]).to_action(output)
    np.testing.assert_allclose(action, np.broadcast_to(np.float32([[22.5], [0]]), (50, 2, 1)), atol=0.8)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: critic(BOX, Dict({"x": Discrete(2)})), "a critic needs a Box, Discrete or MultiDiscrete action space, got Dict"),
        (lambda: critic(BOX, BOX, activation="sigmoid"), "activation"),
        (lambda: deterministic_policy(BOX, Discrete(2)), "a deterministic policy needs a Box"),
        (lambda: ensemble(q_network(BOX, Discrete(2)), 0), "num must be at least 1"),
    ],
)
def test_critics_refuse_wrong_inputs(build, message):
    with pytest.raises(ValueError, match=message):
        build()
