"""What all functions of `losses` and `returns` have in common: names, signatures, transformations and errors."""

import inspect
import re

import jax
import numpy as np
import pytest

from jaxrl import losses, returns
from tests import calls

_STOP = "stop_target_gradient=True"
_Q = "q_tm1, a_tm1, r_t, discount_t"
SIGNATURES = {
    "select": "values, index",
    "greedy": "values",
    "td_learning": f"v_tm1, r_t, discount_t, v_t, *, {_STOP}",
    "sarsa": f"{_Q}, q_t, a_t, *, {_STOP}",
    "expected_sarsa": f"{_Q}, q_t, probs_t, *, {_STOP}",
    "q_learning": f"{_Q}, q_t, *, {_STOP}",
    "double_q_learning": f"{_Q}, q_t_value, q_t_selector, *, {_STOP}",
    "persistent_q_learning": f"{_Q}, q_t, action_gap_scale, *, {_STOP}",
    "munchausen_q_learning": f"{_Q}, q_t, q_tm1_target, *, temperature=0.03, munchausen_scale=0.9, log_policy_min=-1.0, {_STOP}",
    "categorical_l2_project": "atoms_p, probs, atoms_q",
    "categorical_mean": "logits, atoms",
    "categorical_q_learning": "q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, atoms",
    "categorical_double_q_learning": "q_logits_tm1, a_tm1, r_t, discount_t, q_logits_t, q_logits_t_selector, atoms",
    "quantile_regression": "quantiles, tau, targets, *, kappa=1.0",
    "quantile_q_learning": ("q_quantiles_tm1, a_tm1, r_t, discount_t, q_quantiles_t, *, q_quantiles_t_selector=None, kappa=1.0"),
    "implicit_quantile_q_learning": (
        "q_quantiles_tm1, tau_tm1, a_tm1, r_t, discount_t, q_quantiles_t, q_quantiles_t_selector, *, kappa=1.0"
    ),
    "dueling": "value, advantage",
    "policy_gradient": "log_prob_t, advantage_t",
    "entropy": "logits",
    "ppo_clip": "log_prob_t, old_log_prob_t, advantage_t, clip_range=0.2",
    "ppo_value_loss": "v_tm1, old_v_tm1, target_tm1, clip_range=0.2",
    "deterministic_policy_gradient": "a_t, dqda_t, *, max_norm=None",
    "soft_td_error": "q_tm1, r_t, discount_t, q_t, log_prob_t, temperature",
    "sac_actor": "log_prob_t, q_t, temperature",
    "soft_value": "logits_t, q_t, temperature",
    "sac_temperature": "log_prob_t, log_temperature, target_entropy",
    "lambda_returns": "r_t, discount_t, v_t, lambda_=1.0, *, truncated=None",
    "discounted_returns": "r_t, discount_t, v_t, *, truncated=None",
    "n_step_returns": "r_t, discount_t, v_t, n, *, truncated=None",
    "generalized_advantage_estimation": "r_t, discount_t, v_tm1, v_t, lambda_=0.95, *, truncated=None",
    "vtrace": ("r_t, discount_t, v_tm1, v_t, rho_tm1, lambda_=1.0, *, clip_rho=1.0, clip_c=1.0, clip_pg_rho=1.0, truncated=None"),
    "retrace": "r_t, discount_t, q_tm1, v_t, rho_tm1, lambda_=1.0, *, truncated=None",
    "q_lambda": "r_t, discount_t, q_t, lambda_, *, a_t=None, truncated=None",
}
each_function = pytest.mark.parametrize("name", calls.CALLS)


@pytest.mark.parametrize("module", [losses, returns])
def test_every_public_name_is_in_the_table(module):
    results = set()
    for name, problem in calls.CALLS.items():
        if problem.time:
            results.add(type(jax.eval_shape(calls.called(name), **calls.draw(name, calls.leading(name)))))
    functions = {name for name in module.__all__ if not inspect.isclass(getattr(module, name))}
    classes = {getattr(module, name) for name in module.__all__} - {getattr(module, name) for name in functions}
    assert functions <= set(calls.CALLS)
    assert classes <= results  # what a function returns
    own = {name: x for name, x in vars(module).items() if inspect.isfunction(x) and x.__module__.startswith(module.__name__)}
    public = {name for name in own if not name.startswith("_")}
    assert public <= set(module.__all__)
    assert {name for name, problem in calls.CALLS.items() if problem.time == (module is returns)} <= set(module.__all__)


@each_function
def test_signature(name):
    parameters = inspect.signature(calls.function(name)).parameters.values()
    plain = inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters])
    assert str(plain) == f"({SIGNATURES[name]})"


@each_function
def test_jit_and_vmap_equal_the_batch(name):
    args = calls.draw(name, calls.leading(name), 1)
    axis = 1 if calls.CALLS[name].time else 0
    axes = {k: None if kind.startswith("shared") else axis for k, (kind, _) in calls.CALLS[name].arguments.items()}
    function = calls.called(name)
    mapped = jax.jit(jax.vmap(lambda args: function(**args), (axes,), out_axes=axis))(args)
    batch = jax.jit(function)(**args)
    assert jax.tree.structure(mapped) == jax.tree.structure(batch)
    for ours, whole in zip(jax.tree.leaves(mapped), jax.tree.leaves(batch), strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-5, atol=1e-6)


def misfits():
    """Each array with one shape that would broadcast, or have as many numbers, or fewer actions; each shape once."""
    for name, problem in calls.CALLS.items():
        args = calls.draw(name, calls.leading(name))
        if sum(not kind.startswith("shared") for kind, _ in problem.arguments.values()) == 1:
            continue  # nothing that it could misfit
        letters = "".join(own for _, own in problem.arguments.values())
        for argument, (kind, own) in problem.arguments.items():
            x = args[argument]
            wrong = {}
            if not kind.startswith("shared"):
                if (name, argument) != ("quantile_regression", "tau"):  # which may be shared
                    wrong["without its first axis"] = x[0]
                wrong["with one row"] = x[:1]
                wrong["with an axis more"] = x[:, None]
                if problem.time:
                    wrong["with one column"] = x[:, :1]
            for i, letter in enumerate(own):
                if letters.count(letter) > 1:
                    wrong[f"with one {letter}"] = np.take(x, [0], axis=x.ndim - len(own) + i)
            for what, value in wrong.items():
                yield pytest.param(name, argument, value, id=f"{name}-{argument} {what}")


@pytest.mark.parametrize(("name", "argument", "wrong"), [*misfits()])
def test_misfits_are_named_with_both_shapes(name, argument, wrong):
    args = calls.draw(name, calls.leading(name))
    with pytest.raises(ValueError, match=r"\(.*\)") as error:
        jax.eval_shape(calls.called(name), **{**args, argument: wrong})
    shapes = set(re.findall(r"\([\d, ]*\)", str(error.value)))
    assert len(shapes) >= 2, error.value
    assert str(error.value).startswith(f"{name}: "), error.value
    if argument != next(iter(args)):  # by which the others may be measured, after its actions are chosen
        own = len(calls.CALLS[name].arguments[argument][1])
        assert shapes & {str(wrong.shape), str(wrong.shape[: wrong.ndim - own])}, error.value
        assert re.search(rf"\b{argument}\b", str(error.value)), error.value


FIRST = {
    name: next(k for k, (_, own) in call.arguments.items() if own in ("A", "C", "N", "AK", "AN", "AC"))
    for name, call in calls.CALLS.items()
    if not call.time and {own for _, own in call.arguments.values()} & {"A", "C", "N", "AK", "AN", "AC"}
}


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(("name", "argument"), FIRST.items())
def test_arrays_without_the_axis_of_actions_are_refused(name, argument, empty):
    """Such as `q[a]` in place of `q`."""
    args = {k: np.zeros((0,) if empty and k == argument else (), x.dtype) for k, x in calls.draw(name, ()).items()}
    with pytest.raises(ValueError, match=rf"^{name}: {argument} must be .*got \({'0,' if empty else ''}\)"):
        jax.eval_shape(calls.called(name), **args)


@pytest.mark.parametrize("num_actions", [3, 40])
@pytest.mark.parametrize("name", [name for name, call in calls.CALLS.items() if "a_tm1" in call.arguments or name == "select"])
def test_actions_and_rewards_may_be_python_numbers(name, num_actions):
    args = calls.draw(name, (), A=num_actions)
    plain = {k: x.item() if x.ndim == 0 else x for k, x in args.items()}
    np.testing.assert_array_equal(calls.called(name)(**plain), calls.called(name)(**args))


HYPERPARAMETERS = [
    pytest.param(name, parameter, id=f"{name}-{parameter}")
    for name in calls.CALLS
    for parameter in inspect.signature(calls.function(name)).parameters
    if parameter in (*("lambda_", "clip_rho", "clip_c", "clip_pg_rho", "clip_range", "temperature", "munchausen_scale"),
                     *("log_policy_min", "action_gap_scale", "max_norm", "target_entropy", "log_temperature"))
]  # fmt: skip
SCALARS = {("munchausen_q_learning", "temperature"), ("deterministic_policy_gradient", "max_norm")}


@pytest.mark.parametrize(("name", "parameter"), HYPERPARAMETERS)
def test_misfits_of_hyperparameters(name, parameter):
    """A column `[B, 1]` would make `[B, B]` of `[B]`, and a row of one number for each action would be read as one for each."""
    leading = calls.leading(name)
    args = calls.draw(name, leading)
    wrong = [(*leading[:-1], 1), (*leading, 1), (1, *leading), (1,), (3,)]
    for shape in [*wrong, leading] if (name, parameter) in SCALARS else wrong:
        with pytest.raises(ValueError, match=r"\(") as error:
            jax.eval_shape(calls.called(name), **args | {parameter: np.ones(shape, np.float32)})
        assert str(error.value).startswith(f"{name}: {parameter} must "), error.value
        assert str(error.value).endswith(f"got {shape}"), error.value


@pytest.mark.parametrize(("name", "parameter"), [x for x in HYPERPARAMETERS if x.values not in SCALARS])
def test_a_hyperparameter_may_differ_between_rows(name, parameter):
    leading, function = calls.leading(name), calls.called(name)
    args, value = calls.draw(name, leading, 1), np.linspace(0.1, 0.9, 5, dtype=np.float32)
    args.pop(parameter, None)
    whole = jax.jit(function)(**args, **{parameter: np.broadcast_to(value, leading)})
    axis = len(leading) - 1
    axes = {k: axis if x.ndim else None for k, x in args.items()}
    each = jax.jit(jax.vmap(lambda args, value: function(**args, **{parameter: value}), (axes, 0), axis))(args, value)
    for ours, rows in zip(jax.tree.leaves(whole), jax.tree.leaves(each), strict=True):
        np.testing.assert_allclose(ours, rows, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("n", "error", "message"), [(0, ValueError, "at least 1, got 0"), (2.5, TypeError, "an int"), (np.nan, TypeError, "an int")]
)
def test_a_number_of_steps_is_a_positive_int(n, error, message):
    args = calls.draw("n_step_returns", (4, 5))
    with pytest.raises(error, match=f"n_step_returns: n must be {message}"):
        jax.eval_shape(calls.called("n_step_returns", n=n), **args)
    with pytest.raises(TypeError, match="n_step_returns: n is a size and shapes the compiled program"):
        jax.eval_shape(lambda n: returns.n_step_returns(**args, n=n), n)


ACTIONS = [(name, k) for name, call in calls.CALLS.items() for k, (kind, _) in call.arguments.items() if kind == "action"]


@pytest.mark.parametrize(("name", "argument"), ACTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.bool_])
def test_actions_are_integers(name, argument, dtype):
    args = calls.draw(name, calls.leading(name))
    with pytest.raises(TypeError, match=r"actions must be integers, got (float32|bool)\[.*5\]"):
        jax.eval_shape(calls.called(name), **{**args, argument: args[argument].astype(dtype)})
