"""GRU networks against NumPy; unrolling along a rollout against a loop over single environments, with every pattern of resets."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from numpy.testing import assert_allclose

from jaxrl._src.checks import check_network_output
from jaxrl.networks import recurrent_policy, recurrent_q_network
from jaxrl.policies import policy_head
from jaxrl.recurrence import reset_carry, successor_outputs, unroll_network
from jaxrl.types import Box, Dict, Discrete, MultiDiscrete
from tests.precision import tolerance

T = 4
DONE = np.array(list(itertools.product([False, True], repeat=T))).T  # [T, B]: each column is one pattern of episode ends
B = DONE.shape[1]
BOX = Box(-1, 1, (3,))
MASKED = Dict({"x": BOX, "action_mask": Box(False, True, (4,), bool)})


class Toy(NamedTuple):
    """A recurrent network with a tree for a carry, whose initial value is not zero."""

    def initial_carry(self, num_envs):
        return {"age": jnp.full(num_envs, 3, jnp.int32), "sum": jnp.full((num_envs, 1, 2), 0.5, jnp.float32)}

    def init(self, key, obs, carry):
        return jax.random.normal(key, (3, 2), jnp.float32)

    def apply(self, params, obs, carry):
        total = jnp.tanh(carry["sum"] + (obs @ params)[:, None])
        return {"out": total[:, 0], "age": carry["age"]}, {"age": carry["age"] + 1, "sum": total}


NETWORKS = {
    "toy": Toy(),
    "policy": recurrent_policy(BOX, Box(-1, 1, (2,)), value=True, hidden=(5,), num_units=6),
    "q": recurrent_q_network(BOX, Discrete(2), hidden=(), num_units=6),
}


def rollout(network, seed=0):
    """Random parameters, `obs` and `next_obs` `[T, B, 3]`, and a carry `[B, ...]` that is not the initial one."""
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, T, B, 3)).astype(np.float32)
    carry = network.initial_carry(B)
    shapes = jax.eval_shape(network.init, jax.random.key(0), obs[0], carry)
    params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) / 2, x.dtype), shapes)
    carry = jax.tree.map(lambda x: x + jnp.asarray(rng.uniform(1, 3, size=x.shape), x.dtype), carry)
    return params, obs, next_obs, carry


def unroll_by_loop(network, params, obs, next_obs, carry):
    """For each environment alone, step by step: outputs, carries and outputs at the successors, leaves `[T, B, ...]`."""
    apply, columns = jax.jit(network.apply), []
    for b in range(B):
        state, steps = jax.tree.map(lambda x, b=b: x[b : b + 1], carry), []
        for t in range(T):
            output, state = apply(params, obs[t, b : b + 1], state)
            successor, _ = apply(params, next_obs[t, b : b + 1], state)
            steps.append((output, state, successor))
            if DONE[t, b]:
                state = network.initial_carry(1)
        columns.append(jax.tree.map(lambda *x: np.stack(x), *steps))
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1), *columns)


@pytest.mark.parametrize("name", NETWORKS)
def test_unrolling_is_a_loop_over_single_environments(name):
    network = NETWORKS[name]
    params, obs, next_obs, carry = rollout(network)

    @jax.jit
    def unroll(params, obs, next_obs, carry):
        outputs, carries = unroll_network(network, params, obs, carry, DONE)
        return outputs, carries, successor_outputs(network, params, next_obs, carries)

    expected = unroll_by_loop(network, params, obs, next_obs, carry)
    jax.tree.map(lambda x, y: assert_allclose(x, y, rtol=1e-5, atol=1e-5), unroll(params, obs, next_obs, carry), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_two_stretches_are_one(name):
    network = NETWORKS[name]
    params, obs, _, carry = rollout(network)
    whole = unroll_network(network, params, obs, carry, DONE)
    first = unroll_network(network, params, obs[:1], carry, DONE[:1])
    carry = reset_carry(network, jax.tree.map(lambda x: x[-1], first[1]), DONE[0])
    rest = unroll_network(network, params, obs[1:], carry, DONE[1:])
    parts = jax.tree.map(lambda *x: np.concatenate(x), first, rest)
    jax.tree.map(lambda x, y: assert_allclose(x, y, rtol=1e-5, atol=1e-5), parts, whole)


def test_the_successor_of_a_step_within_an_episode_is_the_next_step():
    network = NETWORKS["q"]
    params, obs, _, carry = rollout(network)
    q, carries = unroll_network(network, params, obs, carry, DONE)
    next_q = successor_outputs(network, params, np.roll(obs, -1, axis=0), carries)
    same = np.isclose(next_q[:-1], q[1:], rtol=1e-4, atol=1e-4).all(-1)
    np.testing.assert_array_equal(same, ~DONE[:-1])


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_go_back_in_time_to_the_last_reset_and_no_further(name):
    network = NETWORKS[name]
    params, obs, _, carry = rollout(network)
    carry = jax.tree.map(lambda x: x * 0.1 if x.dtype == jnp.float32 else x, carry)  # no gate near its limit

    def outputs(obs, carry):
        leaves = jax.tree.leaves(unroll_network(network, params, obs, carry, DONE)[0])
        floats = [x.reshape(T, B, -1) for x in leaves if x.dtype == jnp.float32]
        return jnp.sum(jnp.concatenate(floats, axis=-1), axis=(1, 2))  # [T]; environments do not see each other

    floats = carry["sum"] if name == "toy" else carry
    rebuild = lambda floats: carry | {"sum": floats} if name == "toy" else floats
    by_obs, by_carry = jax.jit(jax.jacrev(lambda obs, floats: outputs(obs, rebuild(floats)), argnums=(0, 1)))(obs, floats)
    for t in range(T):
        for s in range(T):
            reached = (s <= t) & ~DONE[s:t].any(axis=0)
            np.testing.assert_array_equal(np.any(by_obs[t, s] != 0, axis=-1), reached)
        start = np.any(by_carry[t].reshape(B, -1) != 0, axis=-1)
        np.testing.assert_array_equal(start, ~DONE[:t].any(axis=0))


def test_only_the_carry_of_finished_episodes_is_reset():
    network = NETWORKS["toy"]
    _, _, _, carry = rollout(network)
    after, initial = reset_carry(network, carry, DONE[1]), network.initial_carry(B)
    for name in carry:
        assert after[name].dtype == carry[name].dtype
        for b in range(B):
            np.testing.assert_array_equal(after[name][b], (initial if DONE[1, b] else carry)[name][b])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"done": DONE.astype(np.float32)}, TypeError, "done must be of bools, got float32"),
        ({"done": DONE[0]}, ValueError, r"done must be \[T, B\], got shape \(16,\)"),
        ({"obs": np.zeros((T + 1, B, 3), np.float32)}, ValueError, r"obs must have leading axes \(4, 16\).* got \(5, 16, 3\)"),
        ({"carry": jnp.zeros((B - 1, 6))}, ValueError, r"carry must have leading axes \(16,\).* got \(15, 6\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    params, obs, _, carry = rollout(NETWORKS["q"])
    with pytest.raises(error, match=message):
        unroll_network(NETWORKS["q"], params, **{"obs": obs, "carry": carry, "done": DONE} | change)


@pytest.mark.parametrize("shape", [(B, T, 6), (T - 1, B, 6), (T, 6)])
def test_successors_that_do_not_fit_the_carries_are_refused(shape):
    params, _, next_obs, _ = rollout(NETWORKS["q"])
    axes = rf"leading axes \({shape[0]}, {shape[1]}\), to fit carries \({', '.join(map(str, shape))}\)"
    with pytest.raises(ValueError, match=rf"successor_outputs: next_obs must have {axes}; got \(4, 16, 3\)"):
        successor_outputs(NETWORKS["q"], params, next_obs, jnp.zeros(shape))


# --- GRU networks


def dense(params, name, x):
    return x @ np.asarray(params[name]["kernel"], np.float64) + np.asarray(params[name]["bias"], np.float64)


def gru(params, x, h):
    """The formula, for float64 arrays `[B, ...]`."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    inputs = np.split(dense(params, "input", x), 3, axis=1)
    recurrent = np.split(h @ np.asarray(params["recurrent"]["kernel"], np.float64), 3, axis=1)
    reset, update = sigmoid(inputs[0] + recurrent[0]), sigmoid(inputs[1] + recurrent[1])
    candidate = np.tanh(inputs[2] + reset * (recurrent[2] + np.asarray(params["candidate_bias"])))
    return (1 - update) * candidate + update * h


def test_a_recurrent_policy_is_a_gru_between_layers():
    params, obs, _, carry = rollout(NETWORKS["policy"])
    ((mean, log_std), value), new_carry = jax.jit(NETWORKS["policy"].apply)(params, obs[0], carry)
    p = params["params"]
    h = gru(p["GRU_0"], np.tanh(dense(p["body"], "Dense_0", obs[0].astype(np.float64))), np.asarray(carry, np.float64))
    for got, expected in ((new_carry, h), (mean, dense(p, "actor", h)), (value, dense(p, "critic", h)[:, 0])):
        assert_allclose(got, expected, **tolerance(1e-4, 1e-4))
    np.testing.assert_array_equal(log_std, np.broadcast_to(p["log_std"], (B, 2)))


def test_the_gru_is_that_of_flax():
    params, obs, _, carry = rollout(NETWORKS["q"])
    p = params["params"]["GRU_0"]
    theirs = {}
    for i, gate in enumerate("rzn"):
        part = slice(6 * i, 6 * (i + 1))
        theirs[f"i{gate}"] = {"kernel": p["input"]["kernel"][:, part], "bias": p["input"]["bias"][part]}
        theirs[f"h{gate}"] = {"kernel": p["recurrent"]["kernel"][:, part]}
    theirs["hn"]["bias"] = p["candidate_bias"]
    expected, _ = nn.GRUCell(6).apply({"params": theirs}, carry, obs[0])
    assert_allclose(NETWORKS["q"].apply(params, obs[0], carry)[1], expected, rtol=1e-5, atol=1e-5)


def test_recurrent_weights_are_orthogonal_in_each_gate_and_start_near_the_middle():
    network, obs = NETWORKS["policy"], np.random.default_rng(0).normal(size=(B, 3)).astype(np.float32)
    carry = network.initial_carry(B)
    params = jax.jit(network.init)(jax.random.key(0), obs, carry)
    kernels = np.split(np.asarray(params["params"]["GRU_0"]["recurrent"]["kernel"]), 3, axis=1)
    for kernel in kernels:
        assert_allclose(kernel.T @ kernel, np.eye(6), atol=1e-5)
    assert not np.allclose(kernels[0], kernels[1], atol=1e-3)
    ((mean, _), _), _ = network.apply(params, obs, carry)
    assert 0 < np.abs(mean).max() < 0.02


SPACES = {"discrete": Discrete(4), "multidiscrete": MultiDiscrete((3, 1)), "box": Box(-1, 1, (2, 2))}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("options", [{}, {"value": True, "layer_norm": True, "state_dependent_std": True}])
def test_outputs_are_those_that_a_policy_head_takes(name, options, dtype):
    network = recurrent_policy(BOX, SPACES[name], hidden=(8,), num_units=6, dtype=dtype, **options)
    obs, carry = jnp.zeros((5, 3)), network.initial_carry(5)
    assert (carry.shape, carry.dtype) == ((5, 6), jnp.float32)
    output, after = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), obs, carry))[0]
    spec = policy_head(SPACES[name]).params_spec((5,))
    spec = (spec, jax.ShapeDtypeStruct((5,), jnp.float32)) if options else spec
    check_network_output("test", output, spec, "")
    assert {x.dtype for x in jax.tree.leaves((output, after))} == {np.dtype(np.float32)}
    assert after.shape == (5, 6)


@pytest.mark.parametrize(
    "build",
    [
        lambda: recurrent_policy(MASKED, Discrete(4), num_units=6),
        lambda: recurrent_policy(MASKED, MultiDiscrete((3, 1)), num_units=6),
        lambda: recurrent_q_network(MASKED, Discrete(4), num_units=6),
    ],
)
def test_illegal_actions_get_minus_infinity(build):
    network, legal = build(), np.array([[1, 0, 1, 1], [0, 1, 1, 1]], bool)
    obs, carry = {"x": jnp.ones((2, 3)), "action_mask": legal}, network.initial_carry(2)
    output, carry = jax.jit(network.init_with_output)(jax.random.key(0), obs, carry)[0]
    np.testing.assert_array_equal(np.isfinite(output), legal)
    assert np.all(np.isfinite(carry))


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: recurrent_q_network(BOX, BOX), ValueError, "Discrete action space"),
        (lambda: recurrent_q_network(MASKED, Discrete(3)), ValueError, "'action_mask' must be"),
        (lambda: recurrent_policy(BOX, Discrete(3), num_units=0), ValueError, "num_units must be at least 1"),
        (lambda: recurrent_q_network(BOX, Discrete(3), num_units=6.0), TypeError, "num_units must be an int"),
        (lambda: recurrent_policy(BOX, None), ValueError, "a policy needs a Discrete or MultiDiscrete action space or a Box"),
    ],
)
def test_wrong_arguments_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
