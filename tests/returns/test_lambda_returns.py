"""λ-returns against sums written from their definition, in both forms that the recursion takes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxrl import returns
from tests.returns.forms import in_form


def n_step_return(r_t, discount_t, v_t, t, n):
    """G_{t:t+n}: n rewards and the value of the state after them (Sutton & Barto 2018, eq. 12.1)."""
    total, weight = 0.0, 1.0
    for k in range(t, t + n):
        total += weight * r_t[k]
        weight *= discount_t[k]
    return total + weight * v_t[t + n - 1]


def lambda_returns_by_definition(r_t, discount_t, v_t, lambda_, truncated=None):
    """The mixture of n-step returns (eq. 12.3), the longest of which reaches to the cut; for `[T]` or `[T, B]`."""
    r_t, discount_t, v_t = (np.asarray(x, np.float64) for x in (r_t, discount_t, v_t))
    cut = np.zeros(r_t.shape, bool) if truncated is None else np.array(truncated)
    cut[-1] = True
    if r_t.ndim == 2:
        columns = [lambda_returns_by_definition(*x, lambda_, c) for *x, c in zip(r_t.T, discount_t.T, v_t.T, cut.T, strict=True)]
        return np.stack(columns, axis=1)
    result = np.zeros(len(r_t))
    for t in range(len(r_t)):
        longest = 1 + int(np.argmax(cut[t:]))
        for n in range(1, longest):
            result[t] += (1 - lambda_) * lambda_ ** (n - 1) * n_step_return(r_t, discount_t, v_t, t, n)
        result[t] += lambda_ ** (longest - 1) * n_step_return(r_t, discount_t, v_t, t, longest)
    return result


FORMS = {name: in_form(name, returns.lambda_returns) for name in ("sequential", "logarithmic")}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
few_examples = settings(deadline=None, max_examples=25)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


def rollout(shape, seed=0, discount=0.9):
    rng = np.random.default_rng(seed)
    r_t, v_t = rng.normal(size=(2, *shape)).astype(np.float32)
    return r_t, np.full(shape, discount, np.float32), v_t


@st.composite
def rollouts(draw):
    """Arguments with terminations and truncations anywhere, also both at once."""
    shape = draw(st.sampled_from([(1,), (2,), (9,), (1, 3), (9, 3)]))
    r_t, discount_t, v_t = rollout(shape, draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.5, 0.99, 1.0])))
    size = int(np.prod(shape))
    flags = st.lists(st.booleans(), min_size=size, max_size=size)
    terminated, truncated = (np.reshape(draw(flags), shape) for _ in range(2))
    lambda_ = draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32)))
    return r_t, np.where(terminated, np.float32(0), discount_t), v_t, np.float32(lambda_), truncated


@each_form
@few_examples
@given(args=rollouts())
def test_lambda_returns_are_their_definition(form, args):
    *arrays, lambda_, truncated = args
    result = form(*arrays, lambda_, truncated=truncated)
    close(result, lambda_returns_by_definition(*arrays, lambda_, truncated))
    assert result.dtype == jnp.float32


@few_examples
@given(rollouts())
def test_both_forms_agree(args):
    *arrays, truncated = args
    results = [form(*arrays, truncated=truncated) for form in FORMS.values()]
    close(*results)


def test_the_form_follows_the_platform():
    """A loop of T steps on a CPU, none on accelerators, where each of its kernels would cost a launch."""

    def loops(platform):
        traced = jax.jit(lambda *args: returns.lambda_returns(*args, 0.9)).trace(*rollout((9, 3)))
        return "while" in traced.lower(lowering_platforms=(platform,)).as_text()

    assert loops("cpu")
    assert not loops("cuda")
    assert not loops("tpu")


@each_form
@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("position", range(6))
def test_termination_cuts_the_rollout_in_two(form, lambda_, position):
    r_t, discount_t, v_t = rollout((6,))
    discount_t[position] = 0.0
    result = form(r_t, discount_t, v_t, lambda_)
    close(result[position], r_t[position])
    close(result[: position + 1], lambda_returns_by_definition(*(x[: position + 1] for x in (r_t, discount_t, v_t)), lambda_))
    # Nothing after it counts: not even huge rewards would.
    r_t[position + 1 :] = 1e30
    np.testing.assert_array_equal(form(r_t, discount_t, v_t, lambda_)[: position + 1], result[: position + 1])


@each_form
@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("position", range(6))
def test_truncation_bootstraps_and_cuts_the_rollout_in_two(form, lambda_, position):
    arrays = r_t, _, v_t = rollout((6,))
    truncated = np.arange(6) == position
    result = form(*arrays, lambda_, truncated=truncated)
    close(result[position], r_t[position] + 0.9 * v_t[position])
    parts = [lambda_returns_by_definition(*(x[part] for x in arrays), lambda_) for part in cut_at(position, 6)]
    close(result, np.concatenate(parts))


def cut_at(position, length):
    parts = [slice(0, position + 1), slice(position + 1, length)]
    return parts if position + 1 < length else parts[:1]


@each_form
def test_termination_wins_over_truncation(form):
    r_t, discount_t, v_t = rollout((6,))
    discount_t[3] = 0.0
    truncated = np.arange(6) == 3
    with_both = form(r_t, discount_t, v_t, 0.7, truncated=truncated)
    np.testing.assert_array_equal(with_both[3], r_t[3])
    close(with_both, form(r_t, discount_t, v_t, 0.7))


@each_form
def test_a_single_step_is_bootstrapped(form):
    arrays = (np.float32([2.0]), np.float32([0.5]), np.float32([3.0]))
    for lambda_ in (0.0, 0.5, 1.0):
        assert form(*arrays, lambda_).tolist() == [3.5]


@each_form
def test_lambda_zero_is_the_one_step_target(form):
    r_t, discount_t, v_t = rollout((9, 3))
    close(form(r_t, discount_t, v_t, 0.0), r_t + discount_t * v_t)


@each_form
def test_lambda_one_is_monte_carlo_and_the_bootstrapped_tail(form):
    r_t, discount_t, v_t = rollout((9,), discount=0.8)
    # Horner's scheme: the polynomial in γ with coefficients r_t, r_{t+1}, …, r_{T-1}, v_{T-1}.
    expected = [np.polyval([v_t[-1], *r_t[t:][::-1]], 0.8) for t in range(9)]
    close(form(r_t, discount_t, v_t, 1.0), expected)
    close(returns.discounted_returns(r_t, discount_t, v_t), expected)


def test_lambda_one_is_the_default():
    arrays = rollout((9,))
    np.testing.assert_array_equal(returns.lambda_returns(*arrays), returns.lambda_returns(*arrays, 1.0))


@few_examples
@given(rollouts())
def test_discounted_returns_are_a_backward_sum(args):
    r_t, discount_t, v_t, _, truncated = args
    expected = np.zeros(r_t.shape)
    for t in reversed(range(len(r_t))):
        following = v_t[t] if t == len(r_t) - 1 else np.where(truncated[t], v_t[t], expected[t + 1])
        expected[t] = r_t[t] + discount_t[t] * following
    close(returns.discounted_returns(r_t, discount_t, v_t, truncated=truncated), expected)


def test_discounted_returns_see_values_only_at_cuts():
    r_t, discount_t, v_t = rollout((6,))
    truncated = np.arange(6) == 2
    for unread in (1e30, np.inf, np.nan):
        other = np.where([False, False, True, False, False, True], v_t, np.float32(unread))
        results = [returns.discounted_returns(r_t, discount_t, v, truncated=truncated) for v in (v_t, other)]
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("argument", [0, 1, 2])
def test_gradients_are_finite_where_unread_values_are_not(argument):
    r_t, discount_t, v_t = rollout((6,))
    args = [r_t, discount_t, np.append(np.full(5, np.inf, np.float32), v_t[-1])]
    gradient = jax.grad(lambda x: jnp.sum(returns.discounted_returns(*args[:argument], x, *args[argument + 1 :])))(args[argument])
    assert np.isfinite(gradient).all()


@each_form
@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
def test_gradient_flows_through_the_values(form, lambda_):
    r_t, discount_t, v_t = rollout((6,))
    discount_t[4] = 0.0
    truncated = np.arange(6) == 2

    def function(v_t):
        return form(r_t, discount_t, v_t, lambda_, truncated=truncated)

    # The returns are linear in the values, so differences of the definition give the derivative exactly.
    at = partial(lambda_returns_by_definition, r_t, discount_t, lambda_=lambda_, truncated=truncated)
    expected = np.stack([at(v_t=row) - at(v_t=np.zeros(6)) for row in np.eye(6)], axis=1)
    close(jax.jacrev(function)(v_t), expected)
    close(jax.jacfwd(function)(v_t), expected)
    check_grads(function, (v_t,), order=1, atol=1e-2, rtol=1e-2)


@each_form
def test_the_last_value_reaches_the_first_return_discounted_once_per_step(form):
    r_t, discount_t, v_t = rollout((6,))
    gradient = jax.grad(lambda v_t: form(r_t, discount_t, v_t, 1.0)[0])(v_t)
    close(gradient, [0, 0, 0, 0, 0, 0.9**6])


@each_form
def test_lambda_may_be_traced_and_batched(form):
    arrays = rollout((9,))
    lambdas = np.float32([0.0, 0.3, 1.0])
    result = jax.vmap(lambda lambda_: form(*arrays, lambda_))(lambdas)
    close(result, [lambda_returns_by_definition(*arrays, lambda_) for lambda_ in lambdas])


@each_form
def test_vmap_equals_the_batch(form):
    arrays = rollout((9, 3))
    close(jax.vmap(form, (1, 1, 1, None), out_axes=1)(*arrays, 0.7), form(*arrays, 0.7))


@pytest.mark.needs("rlax")
def test_agrees_with_rlax(rlax):
    r_t, discount_t, v_t = rollout((9,))
    discount_t[3] = 0.0
    close(returns.lambda_returns(r_t, discount_t, v_t, 0.7), rlax.lambda_returns(r_t, discount_t, v_t, 0.7))
    close(returns.discounted_returns(r_t, discount_t, v_t), rlax.discounted_returns(r_t, discount_t, v_t))


@each_form
@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_the_gradients_in_lambda_and_discount_are_right_at_their_ends(form, edge):
    """Where a weight is 0 its value is not in the result, and still in the derivative; against differences from inside."""
    r_t, _, v_t = (x.astype(np.float64) for x in rollout((4,)))

    def total(lambda_, discount):
        return np.sum(lambda_returns_by_definition(r_t, np.full(4, discount), v_t, lambda_) * np.arange(1, 5))

    def ours(lambda_, discount):
        return jnp.sum(form(np.float32(r_t), discount * jnp.ones(4), np.float32(v_t), lambda_) * jnp.arange(1.0, 5.0))

    step = 1e-6 if edge == 0 else -1e-6
    for lambda_, discount in [(edge, 0.9), (0.5, edge), (edge, edge)]:
        expected = [
            (total(lambda_ + step, discount) - total(lambda_, discount)) / step,
            (total(lambda_, discount + step) - total(lambda_, discount)) / step,
        ]
        np.testing.assert_allclose(jax.grad(ours, (0, 1))(lambda_, discount), expected, rtol=1e-3, atol=1e-3)
