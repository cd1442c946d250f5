"""Returns and advantages of all kinds against sums written from the papers, in both forms of the recursion.

What test_returns.py holds of `lambda_returns` and `discounted_returns` is not repeated here.
"""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxrl import returns
from tests.losses import oracles
from tests.test_returns import in_form

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
    results, expected = function(**args), getattr(oracles, name)(**args)
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
    compare(FORMS[form, name], name, {**oracles.draw(name, shape, seed), **with_lambda(name, lambda_)})


@few_examples
@given(st.sampled_from([(1,), (5, 3)]), st.integers(0, 2**32 - 1), st.data())
def test_n_step_returns_are_the_definition(shape, seed, data):
    n = data.draw(st.integers(1, shape[0] + 3))
    compare(n_step_returns, "n_step_returns", {**oracles.draw("n_step_returns", shape, seed), "n": n})


LENGTH = 5


def every_cut(name):
    """No termination or one at each step, times no truncation or one at each step: as many columns, both at once among them."""
    args = oracles.draw(name, (LENGTH, (LENGTH + 1) ** 2), 1)
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
    args = {**oracles.draw(name, (LENGTH, 2)), **with_lambda(name, 0.6)}
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
        args = oracles.draw(name, (LENGTH, 2), 3, np.float64)
        args["discount_t"] = np.random.default_rng(0).uniform(0.3, 1, (LENGTH, 2))
        floats = {k: args.pop(k) for k in oracles.PROBLEMS[name].floats}
        kwargs = oracles.PROBLEMS[name].kwargs

        @jax.jit
        def function(floats):
            leaves = jax.tree.leaves(getattr(returns, name)(**floats, **args, **kwargs))
            return sum(jnp.sum(x * (1 + jnp.arange(x.size, dtype=x.dtype).reshape(x.shape))) for x in leaves)

        check_grads(function, (floats,), order=1, modes=["rev"])
        for argument, gradient in jax.grad(function)(floats).items():
            assert np.abs(gradient).max() > 0, argument


# --- What carries no weight --------------------------------------------------------------------------------------

WEIGHTED = [*NAMES, "discounted_returns", "n_step_returns"]
each_weighted = pytest.mark.parametrize("name", WEIGHTED)
# Of `lambda_`, or of n.
HYPERPARAMETERS = {"discounted_returns": [{}], "n_step_returns": [{"n": n} for n in (1, 2, 3, 8)]}


def poisoned(name, value, silent=False):
    """For each number but the discounts, a column in which it alone is `value`; in each, step 1 terminated, 3 was truncated."""
    args = {k: np.array(v[:, 0]) for k, v in oracles.draw(name, (LENGTH, 1), 2).items()}
    args["discount_t"] = np.float32([0.9, 0.0, 0.8, 0.9, 0.9])
    args["truncated"] = np.arange(LENGTH) == 3
    if silent:
        args["rho_tm1"][[2, 4]] = 0.0
    columns = []
    for argument in oracles.PROBLEMS[name].floats:
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
            expected = jax.tree.leaves(getattr(oracles, name)(**args, **hyper))
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


@each_form
@each_weighted
def test_what_no_return_reads_has_no_gradient_and_spoils_none(name, form):
    args, where = poisoned(name, np.nan)
    for hyper in HYPERPARAMETERS.get(name, [with_lambda(name, x) for x in (0.0, 0.6, 1.0)]):
        function = n_step_returns if name == "n_step_returns" else FORMS[form, name]
        with np.errstate(invalid="ignore"):
            expected = jax.tree.leaves(getattr(oracles, name)(**args, **hyper))
        unread = np.all([np.isfinite(x).all(axis=0) for x in expected], axis=0)
        floats = {k: args[k] for k in oracles.PROBLEMS[name].floats}
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


# --- What they are to each other ---------------------------------------------------------------------------------


def rollout(seed=0, shape=(9, 4)):
    """Arguments whose values are of one function: v_t is v_tm1 one step on, but where the episode was cut.

    The first column is of one episode.
    """
    rng = np.random.default_rng(seed)
    r_t, v_tm1, own = rng.normal(size=(3, *shape)).astype(np.float32)
    columns = np.arange(shape[1]) > 0
    truncated = (rng.random(shape) < 0.2) & columns
    v_t = np.where(truncated | (np.arange(shape[0]) == shape[0] - 1)[:, None], own, np.roll(v_tm1, -1, axis=0))
    ended = (rng.random(shape) < 0.2) & columns
    return {
        "r_t": r_t,
        "discount_t": np.where(ended, np.float32(0), np.float32(0.9)),
        "v_tm1": v_tm1,
        "v_t": v_t,
        "truncated": truncated,
    }


def targets_of(args):
    return {k: v for k, v in args.items() if k != "v_tm1"}


each_lambda = pytest.mark.parametrize("lambda_", [0.0, 0.3, 1.0])
gae = jax.jit(returns.generalized_advantage_estimation)
lambda_returns = jax.jit(returns.lambda_returns)
discounted_returns = jax.jit(returns.discounted_returns)
vtrace = jax.jit(returns.vtrace)
retrace = jax.jit(returns.retrace)
q_lambda = jax.jit(returns.q_lambda)


@each_lambda
def test_advantages_and_values_are_lambda_returns(lambda_):
    args = rollout()
    close(gae(**args, lambda_=lambda_) + args["v_tm1"], lambda_returns(**targets_of(args), lambda_=lambda_))


def test_advantages_at_lambda_one_are_monte_carlo_less_the_value():
    args = rollout(1)
    close(gae(**args, lambda_=1.0) + args["v_tm1"], discounted_returns(**targets_of(args)))


def test_advantages_at_lambda_zero_are_td_errors():
    args = rollout(2)
    close(gae(**args, lambda_=0.0), args["r_t"] + args["discount_t"] * args["v_t"] - args["v_tm1"])


@pytest.mark.parametrize("n", [9, 10, 12])
def test_as_many_steps_as_there_are_is_monte_carlo(n):
    args = targets_of(rollout(3))
    close(n_step_returns(**args, n=n), discounted_returns(**args))


def test_one_step_is_the_td_target():
    args = targets_of(rollout(4))
    close(n_step_returns(**args, n=1), args["r_t"] + args["discount_t"] * args["v_t"])


def test_lambda_returns_are_the_mixture_of_n_step_returns():
    args = targets_of(rollout(5))
    mixture = 0.7**8 * n_step_returns(**args, n=9)
    for n in range(1, 9):
        mixture += (1 - 0.7) * 0.7 ** (n - 1) * n_step_returns(**args, n=n)
    close(lambda_returns(**args, lambda_=0.7), mixture)


@each_lambda
def test_vtrace_on_policy_is_the_lambda_return_and_its_advantage(lambda_):
    """Espeholt et al. (2018), remark 1: on-policy, V-trace is the n-step Bellman target."""
    args = rollout(6)
    result = vtrace(**args, rho_tm1=np.ones_like(args["r_t"]), lambda_=lambda_)
    close(result.target, lambda_returns(**targets_of(args), lambda_=lambda_))
    close(result.advantage, gae(**args, lambda_=lambda_))


def test_vtrace_of_actions_that_the_policy_never_takes_learns_nothing():
    args = rollout(7)
    result = vtrace(**args, rho_tm1=np.zeros_like(args["r_t"]))
    np.testing.assert_array_equal(result.target, args["v_tm1"])
    np.testing.assert_array_equal(result.advantage, np.zeros_like(args["r_t"]))


def test_the_fixed_point_of_vtrace_is_the_value_of_the_clipped_policy():
    """Espeholt et al. (2018), theorem 1, on one state with two actions: E_μ of the target is V where V = V^{π_ρ̄}."""
    policy, behaviour, rewards, discount = np.array([0.9, 0.1]), np.array([0.3, 0.7]), np.array([1.0, -2.0]), 0.8
    ratio = policy / behaviour
    clipped = np.minimum(1.0, ratio) * behaviour
    clipped /= clipped.sum()
    value = np.float32((clipped @ rewards) / (1 - discount))
    actions = np.array(list(np.ndindex(2, 2, 2))).T  # every sequence of three actions, [3, 8]
    constant = np.full(actions.shape, value)
    result = vtrace(
        r_t=rewards[actions].astype(np.float32),
        discount_t=np.full(actions.shape, np.float32(discount)),
        v_tm1=constant,
        v_t=constant,
        rho_tm1=ratio[actions].astype(np.float32),
    )
    close(result.target @ behaviour[actions].prod(axis=0), np.full(3, value), rtol=1e-5)


@each_lambda
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_retrace_on_policy_is_the_lambda_return(lambda_, ratio):
    """Where Q(s, a) = E_π Q(s, ·). Greater ratios are cut to one."""
    args = rollout(8)
    q_tm1 = args.pop("v_tm1")
    result = retrace(**args, q_tm1=q_tm1, rho_tm1=np.full_like(q_tm1, ratio), lambda_=lambda_)
    close(result, lambda_returns(**args, lambda_=lambda_))


@pytest.mark.parametrize(("ratio", "lambda_"), [(0.0, 1.0), (1.0, 0.0)])
def test_retrace_without_traces_is_expected_sarsa(ratio, lambda_):
    args = rollout(9)
    q_tm1 = args.pop("v_tm1")
    result = retrace(**args, q_tm1=q_tm1, rho_tm1=np.full_like(q_tm1, ratio), lambda_=lambda_)
    close(result, args["r_t"] + args["discount_t"] * args["v_t"])


def test_retrace_leaves_the_true_action_values_as_they_are():
    """Munos et al. (2016), lemma 1: Q^π is a fixed point; sample by sample where rewards and successors are certain."""
    policy, rewards, discount = np.array([0.6, 0.4]), np.array([1.0, -2.0]), 0.8
    value = (policy @ rewards) / (1 - discount)
    q = rewards + discount * value
    actions = np.array(list(np.ndindex(2, 2, 2))).T
    behaviour = np.array([0.2, 0.8])
    result = retrace(
        r_t=rewards[actions].astype(np.float32),
        discount_t=np.full(actions.shape, np.float32(discount)),
        q_tm1=q[actions].astype(np.float32),
        v_t=np.full(actions.shape, np.float32(value)),
        rho_tm1=(policy / behaviour)[actions].astype(np.float32),
    )
    close(result, q[actions])


@each_lambda
@pytest.mark.parametrize("num_actions", [1, 3, 33])
def test_pengs_is_the_lambda_return_of_the_largest_values(lambda_, num_actions):
    args = oracles.draw("q_lambda", (9, 4), A=num_actions)
    del args["a_t"]
    q_t = args.pop("q_t")
    close(q_lambda(**args, q_t=q_t, lambda_=lambda_), lambda_returns(**args, v_t=q_t.max(-1), lambda_=lambda_))


@pytest.mark.parametrize("num_actions", [3, 33])
def test_watkins_is_pengs_while_greedy_and_one_step_where_not(num_actions):
    args = oracles.draw("q_lambda", (9, 4), A=num_actions)
    del args["a_t"]
    q_t = args["q_t"]
    greedy, least = (x.astype(np.int32) for x in (q_t.argmax(-1), q_t.argmin(-1)))
    close(q_lambda(**args, a_t=greedy, lambda_=0.8), q_lambda(**args, lambda_=0.8))
    one_step = args["r_t"] + args["discount_t"] * q_t.max(-1)
    close(q_lambda(**args, a_t=least, lambda_=0.8), one_step)


def test_a_rollout_of_many_axes_is_as_many_rollouts():
    args = oracles.draw("vtrace", (5, 2, 3), 4)
    whole = vtrace(**args)
    for i, j in np.ndindex(2, 3):
        close(whole.target[:, i, j], vtrace(**{k: v[:, i, j] for k, v in args.items()}).target)


# --- rlax --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rlax():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("rlax")


def values_of_one_function(shape=(9,)):
    """rlax knows no truncation within a rollout, and takes v_tm1 one step on for v_t."""
    args = rollout(10, shape=(*shape, 1))
    args = {k: v[:, 0] for k, v in args.items() if k != "truncated"}
    args["discount_t"][3] = 0.0
    return {**args, "v_t": np.append(args["v_tm1"][1:], args["v_t"][-1:])}


@pytest.mark.parametrize("n", [1, 3, 9, 11])
def test_n_step_returns_agree_with_rlax(rlax, n):
    args = targets_of(values_of_one_function())
    close(n_step_returns(**args, n=n), rlax.n_step_bootstrapped_returns(*args.values(), n))


@each_lambda
def test_advantages_agree_with_rlax(rlax, lambda_):
    args = values_of_one_function()
    values = np.append(args["v_tm1"], args["v_t"][-1:])
    expected = rlax.truncated_generalized_advantage_estimation(args["r_t"], args["discount_t"], lambda_, values)
    close(gae(**args, lambda_=lambda_), expected)


@each_lambda
def test_vtrace_agrees_with_rlax(rlax, lambda_):
    args = values_of_one_function()
    rho = np.exp(np.random.default_rng(0).normal(size=9)).astype(np.float32)
    rewards = [args[k] for k in ("v_tm1", "v_t", "r_t", "discount_t")]
    with jax.numpy_dtype_promotion("standard"):  # rlax adds its mask to floats
        expected = rlax.vtrace_td_error_and_advantage(*rewards, rho, lambda_, 0.9, 1.2)
    result = vtrace(**args, rho_tm1=rho, lambda_=lambda_, clip_rho=0.9, clip_pg_rho=1.2)
    close(result.target - args["v_tm1"], expected.errors)
    close(result.advantage, expected.pg_advantage)


@each_lambda
def test_retrace_agrees_with_rlax(rlax, lambda_):
    rng = np.random.default_rng(0)
    q, (r_t, _) = rng.normal(size=(10, 3)).astype(np.float32), rng.normal(size=(2, 9)).astype(np.float32)
    actions = rng.integers(3, size=10).astype(np.int32)
    policy = rng.dirichlet(np.ones(3), size=10).astype(np.float32)
    behaviour = rng.uniform(0.1, 1, size=10).astype(np.float32)
    discount_t = np.float32([0.9, 0.9, 0.0, 0.9, 0.9, 1.0, 0.9, 0.5, 0.9])
    taken = np.arange(10), actions
    # In rlax the last return goes on with the trace of an action whose own return is its Q: the same as a cut.
    expected = rlax.retrace(
        q[:-1], q[1:], actions[:-1], actions[1:], r_t, discount_t, policy[1:], behaviour[1:], lambda_, eps=0.0
    )
    result = retrace(
        r_t=r_t,
        discount_t=discount_t,
        q_tm1=q[taken][:-1],
        v_t=(policy * q).sum(-1)[1:],
        rho_tm1=(policy[taken] / behaviour)[:-1],
        lambda_=lambda_,
    )
    close(result - q[taken][:-1], expected)


@each_lambda
def test_q_lambda_agrees_with_rlax(rlax, lambda_):
    args = {k: v[:, 0] for k, v in oracles.draw("q_lambda", (9, 1)).items() if k not in ("truncated", "a_t")}
    expected = rlax.q_lambda(np.zeros((9, 3), np.float32), np.zeros(9, np.int32), *args.values(), lambda_)
    close(q_lambda(**args, lambda_=lambda_), expected)
