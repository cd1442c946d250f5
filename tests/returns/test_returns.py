"""Returns and advantages of all kinds against sums written from the papers, in both forms of the recursion.

More of `lambda_returns` and `discounted_returns` is in test_lambda_returns.py.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxrl import returns
from tests import calls
from tests.returns.forms import in_form

NAMES = ["lambda_returns", "generalized_advantage_estimation", "vtrace", "retrace", "q_lambda"]
FORMS = {
    (form, name): in_form(form, getattr(returns, name))
    for form in ("sequential", "logarithmic")
    for name in [*NAMES, "discounted_returns"]
}
n_step_returns = jax.jit(returns.n_step_returns, static_argnames="n")
each_function = pytest.mark.parametrize("name", NAMES)
each_form = pytest.mark.parametrize("form", ["sequential", "logarithmic"])
few_examples = settings(deadline=None, max_examples=30)
close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
lambdas = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))


def compare(function, name, args):
    results, expected = function(**args), calls.oracle(name)(**args)
    for result, wanted in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        assert result.shape == wanted.shape
        close(result, wanted)


def with_lambda(name, lambda_):
    return {} if name == "discounted_returns" else {"lambda_": np.float32(lambda_)}


# --- The definitions ---------------------------------------------------------------------------------------------


@each_form
@each_function
@few_examples
@given(st.sampled_from([(1,), (2, 1), (7,), (6, 2, 2)]), lambdas, st.integers(0, 2**32 - 1))
def test_is_the_definition(name, form, shape, lambda_, seed):
    compare(FORMS[form, name], name, {**calls.draw(name, shape, seed), **with_lambda(name, lambda_)})


@few_examples
@given(st.sampled_from([(1,), (5, 3)]), st.integers(0, 2**32 - 1), st.data())
def test_n_step_returns_are_the_definition(shape, seed, data):
    n = data.draw(st.integers(1, shape[0] + 3))
    compare(n_step_returns, "n_step_returns", {**calls.draw("n_step_returns", shape, seed), "n": n})


LENGTH = 5


def every_cut(name):
    """No termination or one at each step, times no truncation or one at each step: as many columns, both at once among them."""
    args = calls.draw(name, (LENGTH, (LENGTH + 1) ** 2), 1)
    ends = np.array([[[t == i, t == j] for i in range(LENGTH + 1) for j in range(LENGTH + 1)] for t in range(LENGTH)])
    return {**args, "discount_t": np.where(ends[..., 0], np.float32(0), np.float32(0.9)), "truncated": ends[..., 1]}


@each_form
@each_function
@pytest.mark.parametrize("lambda_", [0.0, 0.6, 1.0])
def test_terminations_and_truncations_at_every_step(name, form, lambda_):
    compare(FORMS[form, name], name, {**every_cut(name), **with_lambda(name, lambda_)})


@pytest.mark.parametrize("n", range(1, LENGTH + 4))
def test_terminations_and_truncations_at_every_step_of_n(n):
    compare(n_step_returns, "n_step_returns", {**every_cut("n_step_returns"), "n": n})


@each_function
def test_nothing_truncated_is_the_default(name):
    args = {**calls.draw(name, (LENGTH, 2)), **with_lambda(name, 0.6)}
    del args["truncated"]
    compare(jax.jit(getattr(returns, name)), name, args)
    if name == "lambda_returns":
        del args["lambda_"]
        compare(n_step_returns, "n_step_returns", {**args, "n": 3})


@each_form
@pytest.mark.parametrize("thresholds", [(1.5, 0.8, 2.0), (0.5, 2.0, 1.0), (1e9, 1e9, 1e9)])
def test_vtrace_clips_each_of_its_ratios(form, thresholds):
    clips = dict(zip(["clip_rho", "clip_c", "clip_pg_rho"], map(np.float32, thresholds), strict=True))
    compare(FORMS[form, "vtrace"], "vtrace", {**every_cut("vtrace"), **clips, "lambda_": np.float32(0.8)})


@each_form
def test_lambda_may_differ_between_steps(form):
    args = every_cut("lambda_returns")
    lambda_ = np.random.default_rng(0).choice(np.float32([0.0, 0.3, 0.8, 1.0]), args["r_t"].shape)
    compare(FORMS[form, "lambda_returns"], "lambda_returns", {**args, "lambda_": lambda_})


@each_form
def test_watkins_counts_ties_as_greedy(form):
    """Whole numbers, so that there are many; each action of the largest value carries the trace on."""
    rng = np.random.default_rng(0)
    args = {**every_cut("q_lambda"), "lambda_": np.float32(0.7)}
    args["q_t"] = rng.integers(0, 2, args["q_t"].shape).astype(np.float32)
    compare(FORMS[form, "q_lambda"], "q_lambda", args)


@pytest.mark.parametrize("name", [*NAMES, "n_step_returns"])
def test_gradients_agree_with_finite_differences(name):
    with jax.enable_x64(True):
        args = calls.draw(name, (LENGTH, 2), 3, np.float64)
        args["discount_t"] = np.random.default_rng(0).uniform(0.3, 1, (LENGTH, 2))
        floats = {k: args.pop(k) for k in calls.CALLS[name].floats}
        kwargs = calls.CALLS[name].kwargs

        @jax.jit
        def function(floats):
            leaves = jax.tree.leaves(getattr(returns, name)(**floats, **args, **kwargs))
            return sum(jnp.sum(x * (1 + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape))) for x in leaves)

        check_grads(function, (floats,), order=1, modes=["rev"])
        for argument, gradient in jax.grad(function)(floats).items():
            assert np.abs(gradient).max() > 0, argument
