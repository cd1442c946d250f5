"""Losses against loops written from the equations of the papers.

All numbers drawn here are small multiples of 1/4, so float32 computes with them exactly, whatever the
order of the operations: results are compared for equality, and ties between actions are common.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxrl import losses

SHAPES = [(), (5,), (3, 4)]
NUM_ACTIONS = [1, 3, 32, 33]  # from 33 on, `losses` takes another path


def first_argmax(values):
    best = 0
    for a in range(len(values)):
        if values[a] > values[best]:
            best = a
    return best


def q_learning_loop(q_tm1, a_tm1, r_t, discount_t, q_t):
    """Watkins & Dayan (1992): r + γ max_b Q(s', b) − Q(s, a)."""
    error = np.zeros(r_t.shape)
    for i in np.ndindex(r_t.shape):
        error[i] = r_t[i] + discount_t[i] * max(q_t[i].tolist()) - q_tm1[i][a_tm1[i]]
    return error


def double_q_learning_loop(q_tm1, a_tm1, r_t, discount_t, q_t_value, q_t_selector):
    """Van Hasselt et al. (2016), eq. 4: r + γ Q(s', argmax_b Q(s', b; θ); θ') − Q(s, a; θ)."""
    error = np.zeros(r_t.shape)
    for i in np.ndindex(r_t.shape):
        value = q_t_value[i][first_argmax(q_t_selector[i])]
        error[i] = r_t[i] + discount_t[i] * value - q_tm1[i][a_tm1[i]]
    return error


class Problem(NamedTuple):
    """Arguments of `double_q_learning`; those of `q_learning` without the last."""

    q_tm1: np.ndarray
    a_tm1: np.ndarray
    r_t: np.ndarray
    discount_t: np.ndarray
    q_t: np.ndarray
    q_t_selector: np.ndarray


def make_problem(shape, num_actions, seed=0):
    rng = np.random.default_rng(seed)

    def quarters(shape, low, high):
        return np.asarray(rng.integers(4 * low, 4 * high, shape, endpoint=True) / 4, np.float32)

    def q_values():
        return quarters((*shape, num_actions), -2, 2)

    actions = np.asarray(rng.integers(num_actions, size=shape), np.int32)
    return Problem(q_values(), actions, quarters(shape, -3, 3), quarters(shape, 0, 1), q_values(), q_values())


problems = st.builds(make_problem, st.sampled_from(SHAPES), st.sampled_from(NUM_ACTIONS), st.integers(0, 2**32 - 1))
each_path = pytest.mark.parametrize("num_actions", [3, 33])
few_examples = settings(deadline=None, max_examples=25)

q_learning = jax.jit(losses.q_learning)
double_q_learning = jax.jit(losses.double_q_learning)
select = jax.jit(losses.select)
greedy = jax.jit(losses.greedy)


@few_examples
@given(problems)
def test_q_learning_is_the_equation(problem):
    args = problem[:5]
    error = q_learning(*args)
    np.testing.assert_array_equal(error, q_learning_loop(*args))
    assert error.dtype == jnp.float32


@few_examples
@given(problems)
def test_double_q_learning_is_the_equation(problem):
    error = double_q_learning(*problem)
    np.testing.assert_array_equal(error, double_q_learning_loop(*problem))
    assert error.dtype == jnp.float32


@few_examples
@given(problems)
def test_greedy_is_the_first_of_the_largest(problem):
    action = greedy(problem.q_tm1)
    expected = [first_argmax(problem.q_tm1[i]) for i in np.ndindex(problem.r_t.shape)]
    np.testing.assert_array_equal(np.ravel(action), expected)
    assert action.shape == problem.r_t.shape
    assert action.dtype == jnp.int32


@few_examples
@given(problems)
def test_select_picks_the_indexed_value(problem):
    chosen = select(problem.q_tm1, problem.a_tm1)
    expected = [problem.q_tm1[i][problem.a_tm1[i]] for i in np.ndindex(problem.r_t.shape)]
    np.testing.assert_array_equal(np.ravel(chosen), expected)
    assert chosen.shape == problem.r_t.shape


@pytest.mark.parametrize("num_actions", NUM_ACTIONS)
def test_select_reads_every_position(num_actions):
    index = np.arange(num_actions, dtype=np.int32)
    values = np.broadcast_to(10 + index, (num_actions, num_actions))
    np.testing.assert_array_equal(select(values, index), 10 + index)


@each_path
@pytest.mark.parametrize("index_dtype", [np.int32, np.uint8])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_select_keeps_the_dtype_of_the_values(num_actions, dtype, index_dtype):
    chosen = select(jnp.arange(num_actions).astype(dtype), np.asarray(2, index_dtype))
    assert chosen == jnp.asarray(2, dtype)
    assert chosen.dtype == dtype


@each_path
def test_greedy_breaks_ties_by_the_lowest_index(num_actions):
    values = np.zeros((4, num_actions), np.float32)
    values[1, 1:] = 1.0
    values[2, [0, -1]] = 2.0
    values[3] = -np.inf  # every action masked: still a tie
    assert greedy(values).tolist() == [0, 1, 0, 0]


@each_path
def test_greedy_never_picks_a_masked_action(num_actions):
    values = np.full(num_actions, -np.inf, np.float32)
    values[2] = -1e30
    assert greedy(values) == 2


@each_path
def test_bootstrapping_stops_where_the_episode_terminated(num_actions):
    problem = make_problem((3, 4), num_actions)
    args = problem._replace(discount_t=np.zeros((3, 4), np.float32), q_t=np.full_like(problem.q_t, 1e30))
    expected = problem.r_t - np.take_along_axis(problem.q_tm1, problem.a_tm1[..., None], -1)[..., 0]
    np.testing.assert_array_equal(q_learning(*args[:5]), expected)
    np.testing.assert_array_equal(double_q_learning(*args), expected)


@each_path
@pytest.mark.parametrize("loss", [losses.q_learning, losses.double_q_learning])
def test_gradient_flows_into_the_chosen_value_and_nothing_else(loss, num_actions):
    problem = make_problem((3, 4), num_actions)
    args = problem if loss is losses.double_q_learning else problem[:5]
    weights = np.arange(12, dtype=np.float32).reshape(3, 4)

    def weighted(floats):
        return jnp.sum(weights * loss(floats[0], problem.a_tm1, *floats[1:]))

    grad_q_tm1, *others = jax.jit(jax.grad(weighted))((args[0], *args[2:]))
    expected = np.zeros((3, 4, num_actions), np.float32)
    np.put_along_axis(expected, problem.a_tm1[..., None], -weights[..., None], -1)
    np.testing.assert_array_equal(grad_q_tm1, expected)
    for grad in others:  # r_t, discount_t and every estimate of the successor
        np.testing.assert_array_equal(grad, np.zeros_like(grad))


@each_path
def test_gradients_agree_with_finite_differences(num_actions):
    problem = make_problem((5,), num_actions)
    check_grads(lambda values: losses.select(values, problem.a_tm1), (problem.q_tm1,), order=1)

    def squared_error(q_tm1):
        return jnp.square(losses.q_learning(q_tm1, *problem[1:5]))

    check_grads(squared_error, (problem.q_tm1,), order=1, atol=1e-2, rtol=1e-2)


@few_examples
@given(st.sampled_from(SHAPES), st.integers(0, 2**32 - 1))
def test_policy_gradient_is_minus_log_probability_times_advantage(shape, seed):
    problem = make_problem(shape, 1, seed)
    log_prob, advantage = problem.r_t, problem.discount_t
    loss = losses.policy_gradient(log_prob, advantage)
    expected = np.zeros(shape)
    for i in np.ndindex(shape):
        expected[i] = -log_prob[i] * advantage[i]
    np.testing.assert_array_equal(loss, expected)


def test_policy_gradient_is_williams_estimator():
    """For a softmax, ∂ log π(a) / ∂ logit_b is [a = b] − π(b) (Williams 1992, section 4); the loss descends."""
    rng = np.random.default_rng(0)
    logits, advantage = rng.normal(size=(6, 4)), rng.normal(size=6)
    action = rng.integers(4, size=6)
    expected = np.zeros((6, 4))
    for i in range(6):
        probability = np.exp(logits[i]) / np.exp(logits[i]).sum()
        for b in range(4):
            expected[i, b] = -advantage[i] * ((action[i] == b) - probability[b])

    def loss(logits):
        log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None].astype(np.int32), 1)[:, 0]
        return jnp.sum(losses.policy_gradient(log_prob, advantage.astype(np.float32)))

    np.testing.assert_allclose(jax.grad(loss)(logits.astype(np.float32)), expected, atol=1e-6)


def test_no_gradient_flows_into_the_advantage():
    def loss(x):
        return losses.policy_gradient(3 * x, 5 * x)

    assert jax.grad(loss)(jnp.float32(2.0)) == -3 * 5 * 2


@each_path
def test_vmap_equals_the_batch(num_actions):
    problem = make_problem((5,), num_actions)
    np.testing.assert_array_equal(jax.vmap(losses.double_q_learning)(*problem), losses.double_q_learning(*problem))


# A shape that would broadcast is the dangerous mistake: [B] against [B, 1] gives a plausible [B, B].
@pytest.mark.parametrize("argument", ["a_tm1", "r_t", "discount_t", "q_t", "q_t_selector"])
@pytest.mark.parametrize("wrong", [(), (4,), (5, 1)])
def test_misfits_are_named_with_both_shapes(argument, wrong):
    problem = make_problem((5,), 3)
    value = getattr(problem, argument)
    shape = (*wrong, 3) if argument.startswith("q_t") else wrong
    args = problem._replace(**{argument: np.zeros(shape, value.dtype)})
    name = "q_t_value" if argument == "q_t" else argument
    expected = (5, 3) if argument.startswith("q_t") else (5,)
    with pytest.raises(ValueError, match=f"double_q_learning.*{name}") as error:
        losses.double_q_learning(*args)
    assert str(expected) in str(error.value)
    assert str(shape) in str(error.value)
    if argument != "q_t_selector":
        with pytest.raises(ValueError, match=f"q_learning.*{argument}") as error:
            losses.q_learning(*args[:5])
        assert str(expected) in str(error.value)
        assert str(shape) in str(error.value)


@pytest.mark.parametrize("argument", ["q_t", "q_t_selector"])
def test_successors_have_as_many_actions(argument):
    args = make_problem((5,), 3)._replace(**{argument: np.zeros((5, 4), np.float32)})
    with pytest.raises(ValueError, match=rf"{argument}.*\(5, 3\).*\(5, 4\)"):
        losses.double_q_learning(*args)
    if argument == "q_t":
        with pytest.raises(ValueError, match=r"q_t.*\(5, 3\).*\(5, 4\)"):
            losses.q_learning(*args[:5])


def test_policy_gradient_names_both_shapes():
    with pytest.raises(ValueError, match=r"policy_gradient.*\(5,\).*\(5, 1\)"):
        losses.policy_gradient(jnp.zeros(5), jnp.zeros((5, 1)))


@pytest.fixture(scope="module")
def rlax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("rlax")


@each_path
def test_agrees_with_rlax(rlax, num_actions):
    problem = make_problem((5,), num_actions)
    np.testing.assert_array_equal(losses.q_learning(*problem[:5]), jax.vmap(rlax.q_learning)(*problem[:5]))
    np.testing.assert_array_equal(losses.double_q_learning(*problem), jax.vmap(rlax.double_q_learning)(*problem))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_policy_gradient_agrees_with_rlax(rlax):
    rng = np.random.default_rng(0)
    logits, advantage = rng.normal(size=(5, 3)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    action = rng.integers(3, size=5).astype(np.int32)

    def loss(logits):
        log_prob = losses.select(jax.nn.log_softmax(logits), action)
        return jnp.mean(losses.policy_gradient(log_prob, advantage))

    def rlax_loss(logits):
        return rlax.policy_gradient_loss(logits, action, advantage, np.ones(5, np.float32))

    np.testing.assert_allclose(jax.grad(loss)(logits), jax.grad(rlax_loss)(logits), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.bool_])
def test_actions_are_integers(dtype):
    args = make_problem((5,), 3)._replace(a_tm1=np.zeros(5, dtype))
    with pytest.raises(TypeError, match=r"actions must be integers, got (float32|bool)\[5\]"):
        losses.q_learning(*args[:5])
    with pytest.raises(TypeError, match="actions must be integers"):
        losses.quantile_q_learning(
            np.zeros((5, 3, 4), np.float32), args.a_tm1, args.r_t, args.discount_t, np.zeros((5, 3, 4), np.float32)
        )
