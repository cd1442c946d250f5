"""The edges of the domains of `losses` and `returns`: masks, huge numbers, ties, and what has no weight, by a table of calls."""

import functools
import inspect
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import calls


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
        for scale in (0.0, 0.3, 1.0):
            changes = {"q_t": only, "a_tm1": np.int32(0)}
            yield q(f"masked, gap scale {scale}", "persistent_q_learning", changes, {"action_gap_scale": scale})
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
    for name, problem in calls.CALLS.items():
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
    args = {**calls.draw(edge.name, edge.leading, 3, **edge.sizes), **edge.changes}
    return args, {**calls.CALLS[edge.name].kwargs, **edge.kwargs}


def has_target_gradient(name):
    return "stop_target_gradient" in inspect.signature(calls.function(name)).parameters


def shared(name):
    return {k for k, (kind, _) in calls.CALLS[name].arguments.items() if kind.startswith("shared")}


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
    floats = {k: args.pop(k) for k in calls.CALLS[edge.name].floats if k not in shared(edge.name)}
    function = calls.called(edge.name, **problem_at(edge)[1])

    def summed(floats, **kwargs):
        return sum(jnp.sum(x) for x in jax.tree.leaves(function(**floats, **args, **kwargs)))

    @jax.jit
    def run(floats):
        results = {"values": function(**floats, **args), "gradients": jax.grad(summed)(floats)}
        if has_target_gradient(edge.name):
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
        expected = jax.tree.map(np.float32, calls.oracle(edge.name)(**args, **kwargs))
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


@pytest.mark.parametrize("number", [param for param in EACH if has_target_gradient(EDGES[param.values[0]][1].name)])
def test_gradients_of_targets_at_the_edges(number):
    no_nan(EDGES[number][1], computed(number)["gradients of the target"])
