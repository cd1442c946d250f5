"""Losses on distributions of returns against loops written from the papers, and what is known of their minima."""

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
from tests.losses import oracles

LOSSES = [
    "categorical_q_learning",
    "categorical_double_q_learning",
    "quantile_regression",
    "quantile_q_learning",
    "implicit_quantile_q_learning",
]
LINEAR = ["categorical_l2_project", "dueling"]
functions = {
    name: jax.jit(getattr(losses, name), static_argnames=["kappa"] * ("quantile" in name))
    for name in [*LOSSES, *LINEAR, "categorical_mean"]
}
each_path = pytest.mark.parametrize("num_actions", [3, 33])


def jitted_grad(function, argnums=0):
    return jax.jit(jax.grad(function, argnums))


few_examples = settings(deadline=None, max_examples=30)
close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
CASES = [(name, kwargs) for name in functions for kwargs in ({}, *calls.CALLS[name].variants)]


@pytest.mark.parametrize(("name", "kwargs"), CASES)
@few_examples
@given(st.sampled_from(calls.SHAPES), st.integers(0, 2**32 - 1))
def test_is_the_equation(name, kwargs, shapes, seed):
    calls.check(name, functions, shapes, kwargs, seed)


@pytest.mark.parametrize("kwargs", [{}, {"kappa": 0}])
def test_fractions_may_be_shared(kwargs):
    args = calls.draw("quantile_regression", (2, 3))
    shared = {**args, "tau": np.float32([0.1, 0.4, 0.6, 0.9])}
    close(functions["quantile_regression"](**shared, **kwargs), oracles.quantile_regression(**shared, **kwargs))
    spread = {**shared, "tau": np.broadcast_to(shared["tau"], (2, 3, 4))}
    close(functions["quantile_regression"](**shared, **kwargs), functions["quantile_regression"](**spread, **kwargs))


@pytest.mark.parametrize("kappa", [0.0, 1.0])
@pytest.mark.parametrize("num_actions", [3, 33])
def test_the_selector_picks_the_action(num_actions, kappa):
    args = calls.draw("quantile_q_learning", (6,), A=num_actions)
    selector = np.random.default_rng(1).normal(size=(6, num_actions, 7)).astype(np.float32)
    result = functions["quantile_q_learning"](**args, q_quantiles_t_selector=selector, kappa=kappa)
    close(result, oracles.quantile_q_learning(**args, q_quantiles_t_selector=selector, kappa=kappa))


# --- Gradients ---------------------------------------------------------------------------------------------------


def split(name, args):
    floats = {k: v for k, v in args.items() if k in calls.CALLS[name].floats}
    return floats, {k: v for k, v in args.items() if k not in floats}


def summed(name, actions, **kwargs):
    def function(floats):
        result = getattr(losses, name)(**floats, **actions, **kwargs)
        return jnp.sum(result * (1 + jnp.arange(result.size, dtype=result.dtype).reshape(result.shape)))

    return jax.jit(function)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_flows_into_the_prediction_and_nothing_else(name):
    num_actions = 33
    floats, actions = split(name, calls.draw(name, (2, 3), A=num_actions))
    gradients = jitted_grad(summed(name, actions))(floats)
    prediction = gradients.pop(*calls.CALLS[name].learns)
    assert np.abs(prediction).max() > 0
    if actions:  # of the action taken only
        others = np.arange(num_actions) != actions["a_tm1"][..., None]
        np.testing.assert_array_equal(prediction[others], 0)
    for gradient in gradients.values():
        np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


CURVED = [(name, kwargs) for name, kwargs in CASES if name in LOSSES]


@pytest.mark.parametrize(("name", "kwargs"), CURVED)
def test_gradients_agree_with_finite_differences(name, kwargs):
    with jax.enable_x64(True):
        floats, actions = split(name, calls.draw(name, (3,), 5, np.float64))
        (learns,) = calls.CALLS[name].learns
        function = summed(name, actions, **kwargs)
        check_grads(lambda x: function({**floats, learns: x}), (floats[learns],), order=1, modes=["rev"])


@pytest.mark.parametrize(
    ("name", "argument"), [("categorical_l2_project", "probs"), ("dueling", "value"), ("dueling", "advantage")]
)
def test_gradients_of_the_linear_ones(name, argument):
    with jax.enable_x64(True):
        args = calls.draw(name, (3,), 5, np.float64)
        function = summed(name, {k: v for k, v in args.items() if k != argument})
        check_grads(lambda x: function({argument: x}), (args[argument],), order=1, modes=["rev"])
        assert np.abs(jitted_grad(lambda x: function({argument: x}))(args[argument])).max() > 0


def test_gradient_of_the_cross_entropy_is_the_difference_of_the_distributions():
    args = calls.draw("categorical_q_learning", (), 2)
    action = int(args["a_tm1"])
    best = (jax.nn.softmax(args["q_logits_t"]) @ args["atoms"]).argmax()
    moved = args["r_t"] + args["discount_t"] * args["atoms"]
    target = oracles.categorical_l2_project.equation(moved, oracles.softmax(args["q_logits_t"][best]), args["atoms"])
    gradient = jitted_grad(lambda logits: functions["categorical_q_learning"](**{**args, "q_logits_tm1": logits}))(
        args["q_logits_tm1"]
    )
    close(gradient[action], oracles.softmax(args["q_logits_tm1"][action]) - target)
    # So it vanishes where the prediction is the target, and the loss there is the target's entropy.
    logits = np.log(np.maximum(target, 1e-30)).astype(np.float32)
    at_target = {**args, "q_logits_tm1": np.broadcast_to(logits, args["q_logits_tm1"].shape)}
    close(functions["categorical_q_learning"](**at_target), -sum(p * np.log(p) for p in target if p > 0))


# --- The projection ----------------------------------------------------------------------------------------------

projections = given(st.sampled_from(calls.SHAPES), st.integers(0, 2**32 - 1))


@few_examples
@projections
def test_the_projection_is_the_nearest_in_cramer_distance(shapes, seed):
    args = calls.draw("categorical_l2_project", shapes[0], seed, **shapes[1])
    close(functions["categorical_l2_project"](**args), oracles.cramer_projection(**args))


@few_examples
@projections
def test_the_projection_conserves_mass_and_within_the_support_the_mean(shapes, seed):
    args = calls.draw("categorical_l2_project", shapes[0], seed, **shapes[1])
    projected = functions["categorical_l2_project"](**args)
    close(projected.sum(-1), np.ones(shapes[0]))
    assert (np.asarray(projected) >= 0).all()
    clipped = np.clip(args["atoms_p"], args["atoms_q"][0], args["atoms_q"][-1])
    close(np.asarray(projected) @ args["atoms_q"], (clipped * args["probs"]).sum(-1))


@pytest.mark.parametrize("num_atoms", [1, 2, 7, 51])
def test_projecting_onto_the_same_atoms_changes_nothing(num_atoms):
    rng = np.random.default_rng(0)
    atoms = np.linspace(-10, 10, num_atoms).astype(np.float32) if num_atoms > 1 else np.float32([3.0])
    probs = rng.dirichlet(np.ones(num_atoms), size=4).astype(np.float32)
    projected = functions["categorical_l2_project"](np.broadcast_to(atoms, (4, num_atoms)), probs, atoms)
    np.testing.assert_allclose(projected, probs, atol=1e-6)


def test_the_atoms_projected_need_no_order():
    args = calls.draw("categorical_l2_project", (5,))
    order = np.random.default_rng(0).permutation(4)
    shuffled = {**args, "atoms_p": args["atoms_p"][:, order], "probs": args["probs"][:, order]}
    close(functions["categorical_l2_project"](**shuffled), functions["categorical_l2_project"](**args))


def test_a_projection_by_hand():
    """Figure 1 of Bellemare et al. (2017), in numbers: a quarter of the way is a quarter of the mass."""
    atoms_q = jnp.array([0.0, 1.0, 3.0])
    atoms_p = jnp.array([0.25, 2.5, 7.0, -1.0, 1.0])
    probs = jnp.array([0.4, 0.2, 0.1, 0.05, 0.25])
    expected = [0.4 * 0.75 + 0.05, 0.4 * 0.25 + 0.2 * 0.25 + 0.25, 0.2 * 0.75 + 0.1]
    close(functions["categorical_l2_project"](atoms_p, probs, atoms_q), expected)


# --- What they are to each other ---------------------------------------------------------------------------------


@each_path
def test_categorical_double_q_learning_with_one_estimate_is_categorical_q_learning(num_actions):
    args = calls.draw("categorical_q_learning", (6,), A=num_actions)
    double = functions["categorical_double_q_learning"](**args, q_logits_t_selector=args["q_logits_t"])
    close(double, functions["categorical_q_learning"](**args))


@each_path
@pytest.mark.parametrize("kappa", [0.0, 1.0])
def test_implicit_quantiles_at_the_midpoints_are_quantile_q_learning(num_actions, kappa):
    args = calls.draw("quantile_q_learning", (6,), A=num_actions)
    midpoints = np.broadcast_to(np.float32([0.125, 0.375, 0.625, 0.875]), (6, 4))
    implicit = functions["implicit_quantile_q_learning"](
        **args, tau_tm1=midpoints, q_quantiles_t_selector=args["q_quantiles_t"], kappa=kappa
    )
    explicit = functions["quantile_q_learning"](**args, kappa=kappa)
    close(implicit, explicit)
    close(functions["quantile_q_learning"](**args, q_quantiles_t_selector=args["q_quantiles_t"], kappa=kappa), explicit)


@pytest.mark.parametrize("tau", [0.1, 0.25, 0.5, 0.9])
def test_the_minimum_of_the_pinball_loss_is_the_quantile(tau):
    sample = np.random.default_rng(0).gumbel(size=101).astype(np.float32)

    def loss(quantile):
        return functions["quantile_regression"](quantile[..., None], jnp.array([tau]), jnp.asarray(sample), kappa=0)

    candidates = np.sort(sample)
    values = jax.jit(jax.vmap(loss))(candidates)
    quantile = np.quantile(sample, tau, method="inverted_cdf")
    assert candidates[np.argmin(values)] == quantile
    # Convex: downhill before it, uphill after it.
    between = (candidates[1:] + candidates[:-1]) / 2
    slopes = jax.jit(jax.vmap(jax.grad(loss)))(between)
    assert (slopes[between < quantile] < 0).all()
    assert (slopes[between > quantile] > 0).all()
    # The slope counts what lies on each side: F(q) − τ.
    close(slopes, [np.mean(sample < q) - tau for q in between])


def test_descent_on_the_pinball_loss_finds_all_quantiles():
    sample = jnp.asarray(np.random.default_rng(1).normal(size=201).astype(np.float32))
    tau = jnp.float32([0.1, 0.5, 0.8])
    gradient = jitted_grad(lambda q: functions["quantile_regression"](q, tau, sample, kappa=0))

    def step(q, k):
        return q - gradient(q) / jnp.sqrt(k + 1.0), None

    quantiles, _ = jax.lax.scan(step, jnp.zeros(3, jnp.float32), jnp.arange(500, dtype=jnp.float32))
    np.testing.assert_allclose(quantiles, np.quantile(sample, tau), atol=0.06)


def test_the_huber_quantile_loss_lies_between_the_pinball_and_the_squared_loss():
    args = calls.draw("quantile_regression", (6,))
    pinball = functions["quantile_regression"](**args, kappa=0)
    np.testing.assert_allclose(functions["quantile_regression"](**args, kappa=1e-4), pinball, atol=4e-4)
    u = args["targets"][:, None, :] - args["quantiles"][:, :, None]
    squares = np.abs(args["tau"][:, :, None] - (u < 0)) * u**2 / (2 * 50.0)
    close(functions["quantile_regression"](**args, kappa=50.0), squares.mean(-1).sum(-1))
    for kappa in (0.1, 1.0):  # Huber's falls short of |u| by at most κ/2
        huber = functions["quantile_regression"](**args, kappa=kappa)
        assert (huber <= pinball + 1e-6).all()
        assert (huber >= pinball - 4 * kappa / 2 - 1e-6).all()


def test_the_median_weighs_both_sides_alike():
    """At τ = ½ it is half of Huber's loss."""
    u = np.float32([-3.0, -0.5, 0.0, 0.25, 2.0])
    huber = [0.5 * x**2 if abs(x) <= 1 else abs(x) - 0.5 for x in u]
    zeros = jnp.zeros((5, 1))
    close(functions["quantile_regression"](zeros, jnp.array([0.5]), u[:, None]), np.array(huber) / 2)


@pytest.mark.parametrize(("dtype", "kappa"), [("float32", 1e-50), ("float32", 1e-40), ("float16", 1e-8), ("bfloat16", 1e-40)])
def test_a_kappa_too_small_for_the_dtype_counts_as_zero(dtype, kappa):
    args = {k: jnp.asarray(v, dtype) for k, v in calls.draw("quantile_regression", (5,)).items()}

    def loss_and_gradient(kappa):
        return jax.jit(
            jax.value_and_grad(lambda q: jnp.sum(losses.quantile_regression(**{**args, "quantiles": q}, kappa=kappa)))
        )(args["quantiles"])

    jax.tree.map(np.testing.assert_array_equal, loss_and_gradient(kappa), loss_and_gradient(0))


@pytest.mark.parametrize("kappa", [-1.0, np.nan, np.inf, np.ones(3)])
@pytest.mark.parametrize("name", ["quantile_regression", "quantile_q_learning", "implicit_quantile_q_learning"])
def test_kappa_is_a_finite_number_of_at_least_zero(name, kappa):
    with pytest.raises(ValueError, match="kappa must be a finite number of at least 0, got "):
        jax.eval_shape(calls.called(name, kappa=kappa), **calls.draw(name, (5,)))


@each_path
def test_the_mean_of_duelling_values_is_the_value(num_actions):
    args = calls.draw("dueling", (2, 3), A=num_actions)
    q = functions["dueling"](**args)
    assert q.shape == (2, 3, num_actions)
    close(q.mean(-1), args["value"])
    np.testing.assert_array_equal(q.argmax(-1), args["advantage"].argmax(-1))
    close(functions["dueling"](args["value"], args["advantage"] + 7), q)  # which level the advantages have does not matter


# --- rlax --------------------------------------------------------------------------------------------------------


@pytest.mark.needs("rlax")
def test_the_projection_agrees_with_rlax(rlax):
    args = [*calls.draw("categorical_l2_project", (6,)).values()]
    close(functions["categorical_l2_project"](*args), jax.vmap(rlax.categorical_l2_project, (0, 0, None))(*args))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@each_path
@pytest.mark.needs("rlax")
def test_categorical_losses_agree_with_rlax(rlax, num_actions):
    args = calls.draw("categorical_double_q_learning", (6,), A=num_actions)
    atoms = args["atoms"]
    q_tm1, a_tm1, r_t, discount_t, q_t, selector = (args[k] for k in args if k != "atoms")
    expected = jax.vmap(lambda q, a, r, d, qt: rlax.categorical_q_learning(atoms, q, a, r, d, atoms, qt))
    del args["q_logits_t_selector"]
    close(functions["categorical_q_learning"](**args), expected(q_tm1, a_tm1, r_t, discount_t, q_t))
    # There, the selector is the mean already.
    means = np.array([[oracles.softmax(logits) @ atoms for logits in row] for row in selector], np.float32)
    expected = jax.vmap(lambda q, a, r, d, qt, s: rlax.categorical_double_q_learning(atoms, q, a, r, d, atoms, qt, s))
    double = functions["categorical_double_q_learning"](**args, q_logits_t_selector=selector)
    close(double, expected(q_tm1, a_tm1, r_t, discount_t, q_t, means))


@each_path
@pytest.mark.parametrize("kappa", [0.0, 1.0])
@pytest.mark.needs("rlax")
def test_quantile_losses_agree_with_rlax(rlax, num_actions, kappa):
    args = calls.draw("implicit_quantile_q_learning", (6,), A=num_actions)

    def expected(q_tm1, tau, a_tm1, r_t, discount_t, q_t, selector):
        return rlax.quantile_q_learning(q_tm1.T, tau, a_tm1, r_t, discount_t, selector.T, q_t.T, kappa)

    close(functions["implicit_quantile_q_learning"](**args, kappa=kappa), jax.vmap(expected)(*args.values()))
