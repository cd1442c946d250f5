"""The dtype rule of `losses`, `returns`, `distributions` and `dynamic_programming`, which `jaxrl._src.dtypes` states.

Promotion is strict in these tests, so whatever a function did not promote itself would raise.
"""

import inspect
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import distributions, dynamic_programming, returns
from jaxrl._src.dtypes import promote
from jaxrl.envs.problems.tabular import TabularMDP
from tests import calls

TYPES = ["int32", "bool", "bfloat16", "float16", "float32"]
HYPERPARAMETERS = [
    *("lambda_", "clip_rho", "clip_c", "clip_pg_rho", "clip_range", "temperature", "munchausen_scale", "log_policy_min"),
    *("action_gap_scale", "max_norm", "target_entropy", "kappa"),
]


def common(types, x64=False):
    """The rule once more, written as the cases that there are."""
    floating = {x for x in types if "float" in x}
    if not floating:
        return "float64" if x64 else "float32"
    if len(floating) == 1:
        return floating.pop()
    return "float64" if "float64" in floating else "float32"


def an_mdp(transition, reward, start):
    return TabularMDP(transition, reward, start, jnp.array([False, True]))


def subjects():
    """Each public function as (one of arrays that mix, those arrays, what it returns where that is no floating type)."""
    for name, call in calls.CALLS.items():
        args = calls.draw(name, calls.leading(name))
        mixed = [k for k in call.floats if not k.endswith("_selector")]  # what only selects an action has no part in the result
        fixed = {k: v for k, v in args.items() if k not in mixed}

        def function(*arrays, name=name, mixed=mixed, fixed=fixed):
            return calls.called(name)(**dict(zip(mixed, arrays, strict=True)), **fixed)

        yield name, function, [args[k] for k in mixed], {"greedy": "int32", "select": "values"}.get(name)

    x, action, keys = np.full((4, 3), 0.5, np.float32), np.zeros(4, np.int32), jax.random.split(jax.random.key(0), (4, 3))
    for name in ("categorical", "epsilon_greedy", "boltzmann"):
        one = getattr(distributions, name)
        params = (lambda q: q) if name == "categorical" else (lambda q: (q, 0.5))
        yield f"{name}.sample", lambda q, one=one, params=params: one.sample(params(q), x), [x], "int32"
        yield f"{name}.mode", lambda q, one=one, params=params: one.mode(params(q)), [x], "int32"
        yield f"{name}.log_prob", lambda q, one=one, params=params: one.log_prob(params(q), action), [x], None
        yield f"{name}.entropy", lambda q, one=one, params=params: one.entropy(params(q)), [x], None
        yield f"{name}.kl", lambda q, other, one=one, params=params: one.kl(params(q), params(other)), [x, x], None
    for name, noise in (("diagonal_gaussian", x), ("tanh_gaussian", x), ("beta", keys)):
        one = getattr(distributions, name)
        more = (noise,) if name == "tanh_gaussian" else ()
        yield f"{name}.sample", lambda a, b, one=one, noise=noise: one.sample((a, b), noise), [x, x], None
        yield f"{name}.mode", lambda a, b, one=one: one.mode((a, b)), [x, x], None
        yield f"{name}.log_prob", lambda a, b, action, one=one: one.log_prob((a, b), action), [x, x, x], None
        yield f"{name}.entropy", lambda a, b, one=one, more=more: one.entropy((a, b), *more), [x, x], None
        yield f"{name}.kl", lambda a, b, c, d, one=one: one.kl((a, b), (c, d)), [x, x, x, x], None
    yield "tanh_log_prob_at", lambda a, b, u: distributions.tanh_log_prob_at((a, b), u), [x, x, x], None
    yield "mask_illegal", lambda q: distributions.mask_illegal(q, np.ones(3, bool)), [x], None

    mdp, policy, v = [np.full((2, 3, 2), 0.5, np.float32), x[:2], np.float32([1, 0])], x[:2], np.float32([1, 2])
    for name, more in (
        *(("expected_reward", []), ("action_values", [v]), ("policy_evaluation", [policy]), ("expected_return", [policy])),
        *(("occupancy", [policy]), ("value_iteration", []), ("policy_iteration", [])),
    ):
        solve = getattr(dynamic_programming, name)
        discount = () if name == "expected_reward" else (jnp.float32(0.5),)

        def function(transition, reward, start, *arrays, solve=solve, discount=discount):
            result = solve(an_mdp(transition, reward, start), *arrays, *discount)
            return result._replace(iterations=None) if isinstance(result, dynamic_programming.Solution) else result

        yield name, function, [*mdp, *more], None
    yield "greedy_policy", dynamic_programming.greedy_policy, [x], None


SUBJECTS = {name: subject for name, *subject in subjects()}
each_subject = pytest.mark.parametrize("name", SUBJECTS)


def check_types(name, types, x64=False):
    function, arrays, returned = SUBJECTS[name]
    given = [jax.ShapeDtypeStruct(x.shape, t) for x, t in zip(arrays, types, strict=True)]
    expected = {"values": types[0], "int32": "int32", None: common(types, x64)}[returned]
    results = jax.tree.leaves(jax.eval_shape(function, *given))
    assert results, "nothing to check"
    for result in results:
        assert (result.dtype, result.weak_type) == (expected, False), types


def covering(types, size):
    """Rows of `size` types such that each two columns hold each pair of the five types: an orthogonal array."""
    assert len(types) == 5
    assert size <= 6
    for i, j in itertools.product(range(5), repeat=2):
        yield [types[k] for k in [j, *((i + j * column) % 5 for column in range(5))][:size]]


def test_the_rows_cover_every_pair():
    rows = [*covering(TYPES, 6)]
    for a, b in itertools.combinations(range(6), 2):
        assert {(row[a], row[b]) for row in rows} == {*itertools.product(TYPES, repeat=2)}


@each_subject
def test_mixed_arguments_give_their_common_type(name):
    """Each two arguments have each pair of types."""
    for types in covering(TYPES, len(SUBJECTS[name][1])):
        check_types(name, types)


@each_subject
def test_mixed_arguments_give_their_common_type_under_x64(name):
    with jax.enable_x64(True):
        for types in covering(["int64", "bool", "bfloat16", "float32", "float64"], len(SUBJECTS[name][1])):
            check_types(name, types, x64=True)


def test_every_combination_of_types():
    for types in itertools.product(TYPES, repeat=4):
        check_types("td_learning", types)


def with_hyperparameters():
    for name in calls.CALLS:
        for parameter in inspect.signature(calls.function(name)).parameters:
            if parameter in HYPERPARAMETERS:
                yield name, parameter


@pytest.mark.parametrize(("name", "parameter"), [*with_hyperparameters()])
def test_hyperparameters_do_not_widen_the_result(name, parameter):
    args = {
        k: jnp.asarray(v, jnp.bfloat16) if v.dtype == np.float32 else v for k, v in calls.draw(name, calls.leading(name)).items()
    }
    for value in (
        1,
        1.0,
        True,
        np.float64(1),
        *(np.asarray(1, t) for t in ("int32", "bool", "float16", "float32")),
        jnp.int32(1),
    ):
        for result in jax.tree.leaves(jax.eval_shape(partial(calls.called(name), **{parameter: value}), **args)):
            assert result.dtype == "bfloat16"
            assert not result.weak_type


def test_noise_and_scale_parameters_do_not_widen_samples():
    q, noise = jnp.zeros((4, 3), jnp.bfloat16), np.zeros((4, 3), np.float32)
    assert distributions.diagonal_gaussian.sample((q, q), noise).dtype == jnp.bfloat16
    assert distributions.tanh_gaussian.entropy((q, q), noise).dtype == jnp.bfloat16
    for one, scale in itertools.product(
        (distributions.epsilon_greedy, distributions.boltzmann), (1, np.float32(0.5), np.int32(1))
    ):
        assert one.entropy((q, scale)).dtype == jnp.bfloat16


# --- Values ------------------------------------------------------------------------------------------------------


def whole(kind, x):
    """`x` as whole numbers of its kind: a support stays increasing."""
    return np.arange(x.size, dtype=np.float32) - 2 if kind == "shared support" else np.rint(x)


@pytest.mark.parametrize("name", calls.CALLS)
def test_integers_and_booleans_count_as_the_numbers_that_they_are(name):
    """Each argument alone, and all of them."""
    call, args = calls.CALLS[name], calls.draw(name, calls.leading(name), 2)
    kinds = {k: call.arguments[k][0] for k in call.floats}
    mixtures = []
    for names, dtype in itertools.product([*([k] for k in kinds), [*kinds]], (np.int32, bool)):
        if dtype is np.int32 or not any(kinds[k] == "shared support" for k in names):
            numbers = {k: whole(kinds[k], args[k]) if dtype is np.int32 else (args[k] > 0).astype(np.float32) for k in names}
            mixtures.append(({**args, **numbers}, {**args, **{k: x.astype(dtype) for k, x in numbers.items()}}))
    results = jax.jit(lambda batch: [calls.called(name)(**x) for x in batch])([integers for _, integers in mixtures])
    for (numbers, _), result in zip(mixtures, results, strict=True):
        with np.errstate(all="ignore"):
            expected = calls.oracle(name)(**numbers, **call.kwargs) if name != "greedy" else np.argmax(numbers["values"], -1)
        for ours, wanted in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(np.asarray(ours, np.float64), wanted, rtol=2e-5, atol=2e-5)


def test_lambda_is_not_rounded_to_the_type_of_the_rewards():
    """By hand: G_3 = 1 + 0.9 · 6 = 6.4, and G_t = r_t + 0.9 (v_t + G_{t+1}) / 2."""
    r_t, v_t = jnp.array([1, 0, 2, 1]), jnp.array([3.0, 4.0, 5.0, 6.0])
    expected = [4.603825, 5.0085, 7.13, 6.4]
    for lambda_ in (0.5, jnp.full(4, 0.5, jnp.bfloat16)):
        np.testing.assert_allclose(returns.lambda_returns(r_t, jnp.full(4, 0.9), v_t, lambda_), expected, rtol=1e-6)
    v_tm1 = jnp.array([0, 3, 4, 5])
    advantage = returns.generalized_advantage_estimation(r_t, jnp.full(4, 0.9), v_tm1, v_t, 0.5)
    np.testing.assert_allclose(advantage + v_tm1.astype(float), expected, rtol=1e-6)


def test_a_policy_and_rewards_of_integers_have_the_values_of_floats():
    transition, reward = np.full((2, 2, 2), 0.5, np.float32), np.array([[1, 0], [2, 3]])
    mdp = an_mdp(transition, reward, np.array([1, 0]))
    v = dynamic_programming.policy_evaluation(mdp, np.array([[1, 0], [0, 1]]), 0.5)
    np.testing.assert_allclose(v, [1 / (1 - 0.25), 0.0], rtol=1e-6)  # half of the steps lead back
    np.testing.assert_allclose(dynamic_programming.value_iteration(mdp, 0.5).v, v, rtol=1e-5)


def test_promotion_adds_nothing_to_a_program_of_one_type():
    struct = [jax.ShapeDtypeStruct((3,), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)]
    assert not jax.make_jaxpr(lambda *x: promote(*x, None))(*struct).eqns


@pytest.mark.parametrize("wrong", [jnp.complex64(1), jax.random.key(0)])
def test_other_numbers_are_an_error(wrong):
    with pytest.raises(TypeError, match=r"expected real numbers, got (complex64|key)"):
        promote(jnp.float32(1), wrong)
