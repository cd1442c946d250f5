"""Temporal-difference errors against loops written from the papers, their gradients, and what they are to each other."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxrl import losses
from tests import calls

LINEAR = ["td_learning", "sarsa", "expected_sarsa", "persistent_q_learning", "q_learning", "double_q_learning"]
NAMES = [*LINEAR, "munchausen_q_learning"]
HYPERPARAMETERS = {
    "persistent_q_learning": ["action_gap_scale"],
    "munchausen_q_learning": ["temperature", "munchausen_scale", "log_policy_min"],
}
functions = {name: jax.jit(getattr(losses, name), static_argnames=HYPERPARAMETERS.get(name, [])) for name in NAMES}
each_function = pytest.mark.parametrize("name", NAMES)
each_path = pytest.mark.parametrize("num_actions", [3, 33])
few_examples = settings(deadline=None, max_examples=30)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
CASES = [(name, kwargs) for name in NAMES for kwargs in ({}, *calls.CALLS[name].variants)]


@pytest.mark.parametrize(("name", "kwargs"), CASES)
@few_examples
@given(st.sampled_from(calls.SHAPES), st.integers(0, 2**32 - 1))
def test_is_the_equation(name, kwargs, shapes, seed):
    calls.check(name, functions, shapes, kwargs, seed)


@pytest.mark.parametrize("name", LINEAR)
@few_examples
@given(st.sampled_from([(), (5,), (3, 4)]), st.sampled_from([1, 3, 32, 33]), st.integers(0, 2**32 - 1))
def test_is_the_equation_to_the_bit_where_numbers_tie(name, shape, num_actions, seed):
    """On multiples of 1/4, with which float32 computes exactly in any order."""
    args = {
        k: v if v.dtype == np.int32 else np.rint(4 * v) / np.float32(4)
        for k, v in calls.draw(name, shape, seed, A=num_actions).items()
    }
    kwargs = {"action_gap_scale": 0.25} if name == "persistent_q_learning" else {}
    error = functions[name](**args, **kwargs)
    np.testing.assert_array_equal(error, calls.oracle(name)(**args, **kwargs))
    assert error.dtype == jnp.float32


def summed(name, actions, **kwargs):
    """The sum of the errors, weighted so that no two count alike, as a function of the float arguments."""

    def function(floats):
        errors = getattr(losses, name)(**floats, **actions, **kwargs)
        return jnp.sum(errors * (1 + jnp.arange(errors.size, dtype=errors.dtype).reshape(errors.shape)))

    return function


def split(name, args):
    floats = {k: v for k, v in args.items() if k in calls.CALLS[name].floats}
    return floats, {k: v for k, v in args.items() if k not in floats}


@each_path
@each_function
def test_gradient_flows_into_the_prediction_and_nothing_else(name, num_actions):
    floats, actions = split(name, calls.draw(name, (2, 3), A=num_actions))
    gradients = jax.jit(jax.grad(summed(name, actions, **calls.CALLS[name].kwargs)))(floats)
    prediction = gradients.pop(*calls.CALLS[name].learns)
    expected = np.zeros((2, 3, num_actions))
    weights = 1 + np.arange(6.0).reshape(2, 3)
    if name == "td_learning":
        expected = -weights
    else:
        np.put_along_axis(expected, actions["a_tm1"][..., None], -weights[..., None], -1)
    np.testing.assert_array_equal(prediction, expected)
    for gradient in gradients.values():
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@each_path
@each_function
def test_gradient_flows_into_the_target_where_asked(name, num_actions):
    kwargs = {**calls.CALLS[name].kwargs, **({"temperature": 0.5, "log_policy_min": -50.0} if "munchausen" in name else {})}
    with jax.enable_x64(True):
        floats, actions = split(name, calls.draw(name, (4,), 3, np.float64, A=num_actions))
        floats["discount_t"] = np.array([0.5, 0.9, 1.0, 0.9])
        function = jax.jit(summed(name, actions, stop_target_gradient=False, **kwargs))
        check_grads(function, (floats,), order=1, modes=["rev"])
        for argument, gradient in jax.grad(function)(floats).items():
            if argument == "q_t_selector":  # it says only which
                np.testing.assert_array_equal(gradient, np.zeros_like(gradient))
            else:
                assert np.abs(gradient).max() > 0, argument
        stopped = jax.jit(summed(name, actions, stop_target_gradient=True, **kwargs))
        np.testing.assert_allclose(stopped(floats), function(floats), rtol=1e-12)


def draw(name, num_actions, seed=0):
    return calls.draw(name, (6,), seed, A=num_actions)


def one_hot(index, length):
    return np.eye(length, dtype=np.float32)[index]


@each_path
def test_expected_sarsa_of_the_greedy_policy_is_q_learning(num_actions):
    args = draw("q_learning", num_actions)
    probs_t = one_hot(args["q_t"].argmax(-1), num_actions)
    close(functions["expected_sarsa"](**args, probs_t=probs_t), functions["q_learning"](**args))


@each_path
def test_expected_sarsa_of_a_deterministic_policy_is_sarsa(num_actions):
    args = draw("sarsa", num_actions)
    a_t = args.pop("a_t")
    close(functions["expected_sarsa"](**args, probs_t=one_hot(a_t, num_actions)), functions["sarsa"](**args, a_t=a_t))


@each_path
def test_expected_sarsa_is_the_mean_of_sarsa_over_the_policy(num_actions):
    args = draw("expected_sarsa", num_actions)
    probs_t = args.pop("probs_t")
    errors = [functions["sarsa"](**args, a_t=np.full(6, a, np.int32)) for a in range(num_actions)]
    close(functions["expected_sarsa"](**args, probs_t=probs_t), np.sum(probs_t.T * np.stack(errors), axis=0))


@each_path
def test_sarsa_is_td_learning_of_the_values_of_its_actions(num_actions):
    args = draw("sarsa", num_actions)
    rows = np.arange(6)
    v_tm1, v_t = args["q_tm1"][rows, args["a_tm1"]], args["q_t"][rows, args["a_t"]]
    close(functions["sarsa"](**args), functions["td_learning"](v_tm1, args["r_t"], args["discount_t"], v_t))


@each_path
def test_double_q_learning_with_one_estimate_is_q_learning(num_actions):
    args = draw("q_learning", num_actions)
    q_t = args.pop("q_t")
    close(functions["double_q_learning"](**args, q_t_value=q_t, q_t_selector=q_t), functions["q_learning"](**args, q_t=q_t))


@each_path
def test_persistent_q_learning_goes_from_q_learning_to_sarsa_that_repeats(num_actions):
    args = draw("q_learning", num_actions)
    ends = functions["q_learning"](**args), functions["sarsa"](**args, a_t=args["a_tm1"])
    close(functions["persistent_q_learning"](**args, action_gap_scale=0.0), ends[0])
    close(functions["persistent_q_learning"](**args, action_gap_scale=1.0), ends[1])
    close(functions["persistent_q_learning"](**args, action_gap_scale=0.25), 0.75 * ends[0] + 0.25 * ends[1])


@each_path
def test_munchausen_without_its_bonus_approaches_q_learning_as_the_temperature_falls(num_actions):
    args = draw("munchausen_q_learning", num_actions)
    expected = functions["q_learning"](**{k: v for k, v in args.items() if k != "q_tm1_target"})
    gaps = []
    for temperature in (1.0, 0.1, 1e-4):
        error = functions["munchausen_q_learning"](**args, temperature=temperature, munchausen_scale=0.0)
        gaps.append(np.abs(error - expected).max())
        assert gaps[-1] <= temperature * np.log(num_actions) + 1e-5  # the soft maximum exceeds it by at most τ ln A
    assert gaps == sorted(gaps, reverse=True)


@each_path
def test_munchausen_without_its_bonus_is_the_soft_maximum(num_actions):
    args = draw("munchausen_q_learning", num_actions)
    soft = 0.5 * np.log(np.exp(args["q_t"].astype(np.float64) / 0.5).sum(-1))
    expected = functions["td_learning"](
        args["q_tm1"][np.arange(6), args["a_tm1"]], args["r_t"], args["discount_t"], soft.astype(np.float32)
    )
    close(functions["munchausen_q_learning"](**args, temperature=0.5, munchausen_scale=0.0), expected)


@each_path
def test_munchausen_becomes_advantage_learning_as_the_temperature_falls(num_actions):
    """Vieillard et al. (2020): τ ln π(a) tends to q(a) − max q, Baird's advantage."""
    args = draw("munchausen_q_learning", num_actions)
    target = args["q_tm1_target"]
    gap = target[np.arange(6), args["a_tm1"]] - target.max(-1)
    expected = functions["q_learning"](**{k: v for k, v in args.items() if k != "q_tm1_target"}) + 0.7 * gap
    error = functions["munchausen_q_learning"](**args, temperature=1e-6, munchausen_scale=0.7, log_policy_min=-1e3)
    np.testing.assert_allclose(error, expected, atol=1e-4)


def test_munchausen_bonus_is_clipped_from_below():
    """An action that the policy all but never takes costs α |l0|, not more."""
    q_tm1 = jnp.array([0.0, 0.0])
    q_target = jnp.array([100.0, 0.0])
    error = functions["munchausen_q_learning"](q_tm1, jnp.array(1), jnp.array(0.0), jnp.array(0.0), q_tm1, q_target)
    np.testing.assert_allclose(error, -0.9, rtol=1e-6)


@each_path
@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.needs("rlax")
def test_agrees_with_rlax(rlax, name, num_actions):
    args = [*draw(name, num_actions).values()]
    more = [*calls.CALLS[name].kwargs.values()]
    close(functions[name](*args, **calls.CALLS[name].kwargs), jax.vmap(lambda *a: getattr(rlax, name)(*a, *more))(*args))
