"""What all functions of `jaxrl.losses` and `jaxrl.returns` have in common: their signatures, dtypes, transformations and
errors, by one table of calls; and the edges of their domains, by another."""

import functools
import inspect
import re
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import losses, returns
from tests.losses import oracles
from tests.losses.oracles import PROBLEMS

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
    "sac_temperature": "log_prob_t, log_temperature, target_entropy",
    "lambda_returns": "r_t, discount_t, v_t, lambda_=1.0, *, truncated=None",
    "discounted_returns": "r_t, discount_t, v_t, *, truncated=None",
    "n_step_returns": "r_t, discount_t, v_t, n, *, truncated=None",
    "generalized_advantage_estimation": "r_t, discount_t, v_tm1, v_t, lambda_=0.95, *, truncated=None",
    "vtrace": ("r_t, discount_t, v_tm1, v_t, rho_tm1, lambda_=1.0, *, clip_rho=1.0, clip_c=1.0, clip_pg_rho=1.0, truncated=None"),
    "retrace": "r_t, discount_t, q_tm1, v_t, rho_tm1, lambda_=1.0, *, truncated=None",
    "q_lambda": "r_t, discount_t, q_t, lambda_, *, a_t=None, truncated=None",
}
each_function = pytest.mark.parametrize("name", PROBLEMS)


def named(name):
    return getattr(returns if PROBLEMS[name].time else losses, name)


def called(name, **kwargs):
    return partial(named(name), **{**PROBLEMS[name].kwargs, **kwargs})


def leading(name):
    return (4, 5) if PROBLEMS[name].time else (5,)


# --- The table of calls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [losses, returns])
def test_every_public_name_is_in_the_table(module):
    results = set()
    for name, problem in PROBLEMS.items():
        if problem.time:
            results.add(type(jax.eval_shape(called(name), **oracles.draw(name, leading(name)))))
    functions = {name for name in module.__all__ if not inspect.isclass(getattr(module, name))}
    classes = {getattr(module, name) for name in module.__all__} - {getattr(module, name) for name in functions}
    assert functions <= set(PROBLEMS)
    assert classes <= results  # what a function returns
    own = {name: x for name, x in vars(module).items() if inspect.isfunction(x) and x.__module__.startswith(module.__name__)}
    public = {name for name in own if not name.startswith("_")}
    assert public <= set(module.__all__)
    assert {name for name, problem in PROBLEMS.items() if problem.time == (module is returns)} <= set(module.__all__)


@each_function
def test_signature(name):
    parameters = inspect.signature(named(name)).parameters.values()
    plain = inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters])
    assert str(plain) == f"({SIGNATURES[name]})"


@each_function
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_the_dtype_is_kept(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        args = oracles.draw(name, leading(name))
        args = {k: jnp.asarray(v, dtype) if v.dtype == np.float32 else jnp.asarray(v) for k, v in args.items()}
        for kwargs in ({}, *PROBLEMS[name].variants):
            for result in jax.tree.leaves(jax.eval_shape(called(name, **kwargs), **args)):
                assert result.dtype == ("int32" if name == "greedy" else dtype)
                assert not result.weak_type


@each_function
def test_jit_and_vmap_equal_the_batch(name):
    args = oracles.draw(name, leading(name), 1)
    axis = 1 if PROBLEMS[name].time else 0
    axes = {k: None if kind.startswith("shared") else axis for k, (kind, _) in PROBLEMS[name].arguments.items()}
    function = called(name)
    mapped = jax.jit(jax.vmap(lambda args: function(**args), (axes,), out_axes=axis))(args)
    batch = jax.jit(function)(**args)
    assert jax.tree.structure(mapped) == jax.tree.structure(batch)
    for ours, whole in zip(jax.tree.leaves(mapped), jax.tree.leaves(batch), strict=True):
        np.testing.assert_allclose(ours, whole, rtol=1e-5, atol=1e-6)


def misfits():
    """Each array with one shape that would broadcast, or have as many numbers, or fewer actions; each shape once."""
    for name, problem in PROBLEMS.items():
        args = oracles.draw(name, leading(name))
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
    args = oracles.draw(name, leading(name))
    with pytest.raises(ValueError, match=r"\(.*\)") as error:
        jax.eval_shape(called(name), **{**args, argument: wrong})
    shapes = set(re.findall(r"\([\d, ]*\)", str(error.value)))
    assert len(shapes) >= 2, error.value
    if argument != next(iter(args)):  # by which the others may be measured, after its actions are chosen
        own = len(PROBLEMS[name].arguments[argument][1])
        assert shapes & {str(wrong.shape), str(wrong.shape[: wrong.ndim - own])}, error.value


@pytest.mark.parametrize("wrong", [(5,), (4, 1), (1, 5), (1,)])
def test_misfits_of_lambda(wrong):
    args = oracles.draw("lambda_returns", (4, 5))
    with pytest.raises(ValueError, match=r"\(4, 5\)") as error:
        jax.eval_shape(returns.lambda_returns, **args, lambda_=np.ones(wrong, np.float32))
    assert str(wrong) in str(error.value)


# --- The edges ---------------------------------------------------------------------------------------------------


class Edge(NamedTuple):
    """One call at the edge of a domain. Its value is what the oracle says, which skips what has weight 0."""

    name: str
    changes: dict
    kwargs: dict = {}  # noqa: RUF012
    sizes: dict = {}  # noqa: RUF012
    gradients: dict = {}  # noqa: RUF012
    undefined: tuple = ()  # arguments without a derivative there
    leading: tuple = ()


def masked(num_actions, value=2.0, legal=1, shape=()):
    q = np.full((num_actions, *shape), -np.inf, np.float32)
    q[legal] = value
    return q


def edges():
    for num_actions in (3, 33):
        sizes, only = {"A": num_actions}, masked(num_actions)
        one_hot = (only > -np.inf).astype(np.float32)
        huge = np.where(np.arange(num_actions) % 2 == 0, np.float32(1e9), np.float32(-1e9))

        def q(label, name, changes, kwargs=None, sizes=sizes, **known):
            return f"{label} ({sizes['A']} actions)", Edge(name, changes, kwargs or {}, sizes, **known)

        # One legal action in the successor.
        yield q("masked", "sarsa", {"q_t": only, "a_t": np.int32(1)})
        yield q("masked", "expected_sarsa", {"q_t": only, "probs_t": one_hot})
        yield q("masked", "q_learning", {"q_t": only})
        yield q("masked", "double_q_learning", {"q_t_value": only, "q_t_selector": only})
        yield q("masked", "persistent_q_learning", {"q_t": only, "a_tm1": np.int32(1)})
        yield q("masked, gap scale 0", "persistent_q_learning", {"q_t": only, "a_tm1": np.int32(0)}, {"action_gap_scale": 0.0})
        for temperature in (0.03, 1.0):
            for label, action in (("legal", 1), ("illegal", 0)):
                yield q(
                    f"masked, {label} before, temperature {temperature}",
                    "munchausen_q_learning",
                    {"q_t": only, "q_tm1_target": only, "a_tm1": np.int32(action)},
                    {"temperature": temperature},
                )
        yield q("masked", "quantile_q_learning", {"q_quantiles_t": masked(num_actions, [1, 2, 3], shape=(3,))})
        yield q(
            "masked",
            "implicit_quantile_q_learning",
            {
                "q_quantiles_t": masked(num_actions, [1, 2, 3], shape=(3,)),
                "q_quantiles_t_selector": masked(num_actions, [1, 2], shape=(2,)),
            },
        )
        yield q("masked", "entropy", {"logits": only}, gradients={"logits": np.zeros(num_actions)})
        two = np.where(np.arange(num_actions) < 2, np.float32(0.5), -np.inf).astype(np.float32)
        yield q("all but two masked", "entropy", {"logits": two}, gradients={"logits": np.zeros(num_actions)})

        # Huge values.
        yield q("1e9", "expected_sarsa", {"q_t": huge})
        yield q("1e9", "q_learning", {"q_t": huge, "q_tm1": huge, "a_tm1": np.int32(0)})
        yield q("1e9", "persistent_q_learning", {"q_t": huge})
        for action in (0, 1):
            yield q(
                f"1e9, action {action}", "munchausen_q_learning", {"q_t": huge, "q_tm1_target": huge, "a_tm1": np.int32(action)}
            )
        lone = np.where(np.arange(num_actions) == 1, np.float32(1e9), np.float32(-1e9))
        yield q("1e9", "entropy", {"logits": lone}, gradients={"logits": np.zeros(num_actions)})
        yield q("1e9, several", "entropy", {"logits": huge})
        yield q(
            "all 1e9", "entropy", {"logits": np.full(num_actions, 1e9, np.float32)}, gradients={"logits": np.zeros(num_actions)}
        )
        yield q("1e9", "dueling", {"advantage": huge})
        for name in (
            "q_learning",
            "sarsa",
            "expected_sarsa",
            "double_q_learning",
            "persistent_q_learning",
            "munchausen_q_learning",
        ):
            yield q("r 1e30", name, {"r_t": np.float32(1e30)})
            yield q("discount 1", name, {"discount_t": np.float32(1)})
            yield q("discount 0", name, {"discount_t": np.float32(0)})

        # What is not read: other actions than the one taken, and the successor of a terminal step.
        for unread in (np.inf, -np.inf, np.nan):
            others = np.where(np.arange(num_actions) == 1, np.float32(0.5), np.float32(unread))
            one = np.int32(1)
            yield q(f"others {unread}", "select", {"values": others, "index": one})
            yield q(f"others {unread}", "sarsa", {"q_tm1": others, "a_tm1": one, "q_t": others, "a_t": one})
            yield q(f"others {unread}", "q_learning", {"q_tm1": others, "a_tm1": one})
            yield q(
                f"others {unread}",
                "double_q_learning",
                {"q_tm1": others, "a_tm1": one, "q_t_value": others, "q_t_selector": one_hot},
            )
            yield q(
                f"others {unread}",
                "expected_sarsa",
                {"q_tm1": others, "a_tm1": one, "q_t": others, "probs_t": one_hot},
                undefined=("probs_t",),
            )
            yield q(f"others {unread}", "munchausen_q_learning", {"q_tm1": others, "a_tm1": one})
            yield q(
                f"others {unread}",
                "quantile_q_learning",
                {"q_quantiles_tm1": np.repeat(others[:, None], 4, axis=1), "a_tm1": one},
            )
            end = {"discount_t": np.float32(0)}
            unknown = np.full(num_actions, unread, np.float32)
            undefined = {"undefined": ("discount_t", "probs_t")}
            for name in ("sarsa", "expected_sarsa", "q_learning", "persistent_q_learning", "munchausen_q_learning"):
                yield q(f"terminal, successor {unread}", name, {**end, "q_t": unknown}, **undefined)
            yield q(f"terminal, successor {unread}", "double_q_learning", {**end, "q_t_value": unknown}, **undefined)
            for name, own in (("quantile_q_learning", {"q_quantiles_t": 3}), ("categorical_q_learning", {"q_logits_t": 5})):
                successor = {k: np.full((num_actions, size), unread, np.float32) for k, size in own.items()}
                yield q(f"terminal, successor {unread}", name, {**end, **successor}, **undefined)

    # Values of states.
    for label, changes in {
        "r 1e30": {"r_t": np.float32(1e30)},
        "discount 0": {"discount_t": np.float32(0)},
        "discount 1": {"discount_t": np.float32(1)},
    }.items():
        yield label, Edge("td_learning", changes)
        yield label, Edge("soft_td_error", changes)
    for unread in (np.inf, -np.inf, np.nan):
        end = {"discount_t": np.float32(0)}
        yield f"terminal, successor {unread}", Edge("td_learning", {**end, "v_t": np.float32(unread)}, undefined=("discount_t",))
        yield (
            f"terminal, successor {unread}",
            Edge("soft_td_error", {**end, "q_t": np.full(2, unread, np.float32)}, undefined=("discount_t",)),
        )
        yield (
            f"terminal, log-prob {unread}",
            Edge("soft_td_error", {**end, "log_prob_t": np.float32(unread)}, undefined=("discount_t",)),
        )
    yield "greater critic inf", Edge("soft_td_error", {"q_t": np.float32([1, np.inf])})
    yield "greater critic inf", Edge("sac_actor", {"q_t": np.float32([1, np.inf])}, gradients={"q_t": [-1.0, 0.0]})
    yield "critics equal", Edge("sac_actor", {"q_t": np.float32([1, 1])})
    yield "critics 1e30", Edge("sac_actor", {"q_t": np.float32([1e30, -1e30])}, gradients={"q_t": [0.0, -1.0]})
    yield "temperature 0", Edge("sac_temperature", {"log_temperature": np.float32(-1e9)})
    yield "temperature -inf", Edge("sac_temperature", {"log_temperature": np.float32(-np.inf)})

    # Distributions. The support is −1, 0, 2.
    atoms = np.float32([-1, 0, 2])
    three = {"K": 3}
    for label, r_t, discount in [
        ("on its atoms", 0.0, 1.0),
        ("on one atom", 0.0, 0.0),
        ("on the first atom", -1.0, 0.0),
        ("on the last atom", 2.0, 0.0),
        ("between", 0.5, 0.0),
        ("above", 1e3, 1.0),
        ("below", -1e3, 1.0),
        ("far above", 1e30, 1.0),
        ("far below", -1e30, 1.0),
    ]:
        moved = {"r_t": np.float32(r_t), "discount_t": np.float32(discount), "atoms": atoms}
        yield label, Edge("categorical_q_learning", moved, sizes=three)
        yield label, Edge("categorical_double_q_learning", moved, sizes=three)
        for order in ([1e9, 0, -1e9], [-1e9, 1e9, 0], [-1e9, -1e9, 1e9]):
            logits = np.broadcast_to(np.float32(order), (3, 3))
            name = f"{label}, logits {order}"
            yield f"prediction {name}", Edge("categorical_q_learning", {**moved, "q_logits_tm1": logits}, sizes=three)
            yield f"target {name}", Edge("categorical_q_learning", {**moved, "q_logits_t": logits}, sizes=three)
    yield "one atom", Edge("categorical_q_learning", {}, sizes={"K": 1}, gradients={"q_logits_tm1": np.zeros((3, 1))})
    for label, atoms_p in {
        "the atoms": [-1, 0, 2],
        "all on one atom": [0, 0, 0],
        "all at the ends": [-1, 2, 2],
        "far outside": [-1e30, 1e30, 5],
        "infinite": [-np.inf, np.inf, 1],
    }.items():
        known = {"undefined": ("atoms_p", "atoms_q")} if label == "infinite" else {}
        changes = {"atoms_p": np.float32(atoms_p), "atoms_q": atoms}
        yield label, Edge("categorical_l2_project", changes, sizes={"P": 3, "K": 3}, **known)
    yield "one atom", Edge("categorical_l2_project", {}, sizes={"K": 1}, gradients={"probs": np.ones(4)})
    apart = np.float32([-1, -1 + 2**-20, 1e6])
    yield "atoms close together", Edge("categorical_l2_project", {"atoms_q": apart}, sizes={"K": 3})

    for kappa in (0, 0.0, 1e-6, 1.0):
        for label, changes in {
            "equal quantiles": {"quantiles": np.full(4, 0.5, np.float32), "targets": np.full(3, 0.5, np.float32)},
            "equal targets": {"targets": np.full(3, 0.25, np.float32)},
            "far above": {"targets": np.full(3, 1e30, np.float32)},
            "far below": {"targets": np.full(3, -1e30, np.float32)},
            "the extreme fractions": {"tau": np.float32([0, 0, 1, 1])},
        }.items():
            known = {"gradients": {"quantiles": np.zeros(4)}} if label == "equal quantiles" and kappa > 0 else {}
            yield f"{label}, kappa {kappa!r}", Edge("quantile_regression", changes, {"kappa": kappa}, **known)
        yield f"r 1e30, kappa {kappa!r}", Edge("quantile_q_learning", {"r_t": np.float32(1e30)}, {"kappa": kappa})

    # Policies. `ratio` is its logarithm.
    for advantage, ratio, gradient in [
        (2.0, 1000.0, 0.0),
        (-2.0, -1000.0, 0.0),
        (2.0, -1000.0, 0.0),
        (0.0, 1000.0, 0.0),
        (0.0, -1000.0, 0.0),
        (1e30, 1000.0, 0.0),
        (2.0, np.inf, 0.0),
        (-2.0, -np.inf, 0.0),
        (2.0, -np.inf, 0.0),
    ]:
        changes = {"log_prob_t": np.float32(ratio), "old_log_prob_t": np.float32(0), "advantage_t": np.float32(advantage)}
        yield f"advantage {advantage}, log-ratio {ratio}", Edge("ppo_clip", changes, gradients={"log_prob_t": gradient})
    yield (
        "old policy -1000",
        Edge("ppo_clip", {"old_log_prob_t": np.float32(-1000), "advantage_t": np.float32(3)}, gradients={"log_prob_t": 0.0}),
    )
    yield (
        "all equal",
        Edge("ppo_value_loss", dict.fromkeys(["v_tm1", "old_v_tm1", "target_tm1"], np.float32(2)), gradients={"v_tm1": 0.0}),
    )
    yield "target 1e30", Edge("ppo_value_loss", {"target_tm1": np.float32(1e30)})
    yield "clip range 0", Edge("ppo_value_loss", {}, {"clip_range": 0.0})
    yield "clip range 0", Edge("ppo_clip", {}, {"clip_range": 0.0})
    yield "clip range 1", Edge("ppo_clip", {"advantage_t": np.float32(-1)}, {"clip_range": 1.0})
    yield "clip range 2", Edge("ppo_clip", {"advantage_t": np.float32(-1)}, {"clip_range": 2.0})

    # Gradients of critics.
    for label, dqda in {
        "zero": [0, 0, 0],
        "1e30": [1e30, -1e30, 0],
        "1e-30": [1e-30, -1e-30, 0],
        "at the bound": [0, 1, 0],
    }.items():
        norm = np.linalg.norm(np.float64(dqda))
        expected = -np.array(dqda) / max(norm, 1.0)
        yield (
            f"dq/da {label}",
            Edge("deterministic_policy_gradient", {"dqda_t": np.float32(dqda)}, {"max_norm": 1.0}, gradients={"a_t": expected}),
        )
        yield (
            f"dq/da {label}, free",
            Edge("deterministic_policy_gradient", {"dqda_t": np.float32(dqda)}, gradients={"a_t": -np.array(dqda)}),
        )
    yield "max_norm 0", Edge("deterministic_policy_gradient", {}, {"max_norm": 0.0}, gradients={"a_t": np.zeros(3)})

    # Returns.
    for name, problem in PROBLEMS.items():
        if not problem.time:
            continue
        yield "T = 1", Edge(name, {}, leading=(1,))
        for discount in (0.0, 1.0):
            yield f"discount {discount}", Edge(name, {"discount_t": np.full(6, discount, np.float32)}, leading=(6,))
        yield "all truncated", Edge(name, {"truncated": np.ones(6, bool)}, leading=(6,))
        yield "rewards 1e30", Edge(name, {"r_t": np.full(6, 1e30, np.float32)}, leading=(6,))
        beyond = np.float32([1, 1, 1, 1e30, 1e30, 1e30])
        ended = np.float32([0.9, 0.9, 0, 0.9, 0.9, 0.9])
        yield "rewards 1e30 after the end", Edge(name, {"r_t": beyond, "discount_t": ended}, leading=(6,))
        cut = np.arange(6) == 2
        yield (
            "rewards 1e30 after a cut",
            Edge(name, {"r_t": beyond, "discount_t": np.full(6, 0.9, np.float32), "truncated": cut}, leading=(6,)),
        )
        if "rho_tm1" in problem.arguments:
            for ratio in (0.0, 1e30, np.inf):
                yield f"ratios {ratio}", Edge(name, {"rho_tm1": np.full(6, ratio, np.float32)}, leading=(6,))


EDGES = [*edges()]
EACH = [pytest.param(n, id=f"{edge.name}: {label}") for n, (label, edge) in enumerate(EDGES)]
each_edge = pytest.mark.parametrize("number", EACH)


def problem_at(edge):
    args = {**oracles.draw(edge.name, edge.leading, 3, **edge.sizes), **edge.changes}
    return args, {**PROBLEMS[edge.name].kwargs, **edge.kwargs}


def shared(name):
    return {k for k, (kind, _) in PROBLEMS[name].arguments.items() if kind.startswith("shared")}


@functools.cache
def kinds():
    """Which edges are calls of one kind: the key of each, and the edges of each key."""
    keys, numbers = [], {}
    for n, (_, edge) in enumerate(EDGES):
        args, kwargs = problem_at(edge)
        atoms = [(k, args[k].tobytes()) for k in shared(edge.name)]
        keys.append(repr((edge.name, kwargs, edge.sizes, edge.leading, atoms)))
        numbers.setdefault(keys[-1], []).append(n)
    return keys, numbers


@functools.cache
def computed_together(key):
    """Values and gradients of all the edges of one kind, as one batch (so that it is compiled once)."""
    numbers = kinds()[1][key]
    edge = EDGES[numbers[0]][1]
    each = [problem_at(EDGES[n][1])[0] for n in numbers]
    axis = len(edge.leading)
    args = {k: each[0][k] if k in shared(edge.name) else np.stack([a[k] for a in each], axis) for k in each[0]}
    floats = {k: args.pop(k) for k in PROBLEMS[edge.name].floats if k not in shared(edge.name)}
    function = called(edge.name, **problem_at(edge)[1])

    def summed(floats, **kwargs):
        return sum(jnp.sum(x) for x in jax.tree.leaves(function(**floats, **args, **kwargs)))

    @jax.jit
    def run(floats):
        results = {"values": function(**floats, **args), "gradients": jax.grad(summed)(floats)}
        if "stop_target_gradient" in SIGNATURES[edge.name]:
            results["gradients of the target"] = jax.grad(partial(summed, stop_target_gradient=False))(floats)
        return results

    results = jax.tree.map(np.asarray, run(floats))
    return {n: jax.tree.map(lambda x, i=i: np.take(x, i, axis), results) for i, n in enumerate(numbers)}


def computed(number):
    return computed_together(kinds()[0][number])[number]


@each_edge
def test_values_at_the_edges(number):
    _, edge = EDGES[number]
    args, kwargs = problem_at(edge)
    with np.errstate(all="ignore"):
        expected = jax.tree.map(np.float32, getattr(oracles, edge.name)(**args, **kwargs))
    assert not any(np.isnan(x).any() for x in jax.tree.leaves(expected)), "the oracle has no value here"
    values = computed(number)["values"]
    for ours, wanted in zip(jax.tree.leaves(values), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=2e-5, atol=2e-5)


def no_nan(edge, gradients):
    wrong = {k: v for k, v in gradients.items() if k not in edge.undefined and np.isnan(v).any()}
    assert not wrong, wrong


@each_edge
def test_gradients_at_the_edges(number):
    _, edge = EDGES[number]
    gradients = computed(number)["gradients"]
    no_nan(edge, gradients)
    for argument, expected in edge.gradients.items():
        np.testing.assert_allclose(gradients[argument], expected, rtol=1e-5, atol=1e-36 if np.any(expected) else 1e-6)


@pytest.mark.parametrize("number", [param for param in EACH if "stop_target" in SIGNATURES[EDGES[param.values[0]][1].name]])
def test_gradients_of_targets_at_the_edges(number):
    no_nan(EDGES[number][1], computed(number)["gradients of the target"])
