"""What carries no weight in a return may be infinite or NaN: it spoils neither the returns nor their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import calls
from tests.returns.test_returns import FORMS, LENGTH, NAMES, each_form, n_step_returns, with_lambda

WEIGHTED = [*NAMES, "discounted_returns", "n_step_returns"]
each_weighted = pytest.mark.parametrize("name", WEIGHTED)
# Of `lambda_`, or of n.
HYPERPARAMETERS = {"discounted_returns": [{}], "n_step_returns": [{"n": n} for n in (1, 2, 3, 8)]}


def poisoned(name, value, silent=False):
    """For each number but the discounts, a column in which it alone is `value`; in each, step 1 terminated, 3 was truncated."""
    args = {k: np.array(v[:, 0]) for k, v in calls.draw(name, (LENGTH, 1), 2).items()}
    args["discount_t"] = np.float32([0.9, 0.0, 0.8, 0.9, 0.9])
    args["truncated"] = np.arange(LENGTH) == 3
    if silent:
        args["rho_tm1"][[2, 4]] = 0.0
    columns = []
    for argument in calls.CALLS[name].floats:
        for i in np.ndindex(args[argument].shape):
            if argument != "discount_t":
                column = {k: np.array(v) for k, v in args.items()}
                column[argument][i] = value
                columns.append((column, (argument, i)))
    return {k: np.stack([column[k] for column, _ in columns], axis=1) for k in args}, [where for _, where in columns]


def disagreements(name, form, value, silent=False):
    """Where the oracles, which skip what has weight 0, come to a number and the library does not come to the same: for
    numbers that no return reads, and for those that another does."""
    args, where = poisoned(name, value, silent)
    unread, read_by_others = set(), set()
    for hyper in HYPERPARAMETERS.get(name, [with_lambda(name, x) for x in (0.0, 0.6, 1.0)]):
        function = n_step_returns if name == "n_step_returns" else FORMS[form, name]
        with np.errstate(invalid="ignore"):
            expected = jax.tree.leaves(calls.oracle(name)(**args, **hyper))
        nowhere = np.all([np.isfinite(x).all(axis=0) for x in expected], axis=0)
        for result, wanted in zip(jax.tree.leaves(function(**args, **hyper)), expected, strict=True):
            agrees = np.isclose(result, wanted, rtol=2e-5, atol=2e-5) | ~np.isfinite(wanted)
            for t, b in np.argwhere(~agrees):
                argument, i = where[b]
                place = f"{argument}{[int(k) for k in i]} in the return of step {t}, {hyper}"
                (unread if nowhere[b] else read_by_others).add(place)
    return sorted(unread), sorted(read_by_others)


@each_form
@each_weighted
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_no_return_reads_may_be_anything(name, form, value):
    wrong, _ = disagreements(name, form, value)
    assert not wrong, wrong


@each_form
@each_weighted
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_lies_beyond_the_end_or_a_cut_may_be_anything(name, form, value):
    """A return is of its own episode: it does not see what only the returns of the next one read."""
    _, wrong = disagreements(name, form, value)
    assert not wrong, wrong


@each_form
@pytest.mark.parametrize("name", ["vtrace", "retrace"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_a_ratio_of_zero_leaves_out_may_be_anything(name, form, value):
    wrong = [place for places in disagreements(name, form, value, silent=True) for place in places]
    already = [place for places in disagreements(name, form, value) for place in places]
    wrong = [place for place in wrong if place not in already]
    assert not wrong, wrong


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_a_value_that_no_n_step_return_reads_spoils_no_gradient_of_a_discount(n, value):
    """Those of the first n − 1 steps; the gradients are those for any other number in their place."""
    r_t, discount_t, v_t = np.ones(LENGTH, np.float32), np.full(LENGTH, 0.9, np.float32), np.ones(LENGTH, np.float32)
    gradient = jax.grad(lambda discount_t, v_t: jnp.sum(n_step_returns(r_t, discount_t, v_t, n)))
    unread = np.arange(LENGTH) < min(n, LENGTH) - 1
    expected = gradient(discount_t, v_t)
    np.testing.assert_array_equal(gradient(discount_t, np.where(unread, np.float32(value), v_t)), expected)
    assert np.all(np.isfinite(expected))


@each_form
@each_weighted
def test_what_no_return_reads_has_no_gradient_and_spoils_none(name, form):
    args, where = poisoned(name, np.nan)
    for hyper in HYPERPARAMETERS.get(name, [with_lambda(name, x) for x in (0.0, 0.6, 1.0)]):
        function = n_step_returns if name == "n_step_returns" else FORMS[form, name]
        with np.errstate(invalid="ignore"):
            expected = jax.tree.leaves(calls.oracle(name)(**args, **hyper))
        unread = np.all([np.isfinite(x).all(axis=0) for x in expected], axis=0)
        floats = {k: args[k] for k in calls.CALLS[name].floats}
        others = {k: v for k, v in args.items() if k not in floats}

        def summed(floats, others=others, hyper=hyper, function=function):
            return sum(jnp.sum(x) for x in jax.tree.leaves(function(**floats, **others, **hyper)))

        gradients = jax.grad(summed)(floats)
        for argument, gradient in gradients.items():
            if argument != "discount_t":  # whose derivative where it is 0 is the value that is not read
                finite = np.isfinite(np.asarray(gradient)[:, unread])
                assert finite.all(), (argument, hyper, [where[b] for b in np.flatnonzero(unread)])
        for b, (argument, (t, *own)) in enumerate(where):
            if unread[b]:
                assert gradients[argument][(t, b, *own)] == 0, (argument, t)
