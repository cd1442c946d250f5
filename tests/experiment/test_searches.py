"""Successive halving and population-based training: what they keep, copy and change, and that each run is as trained alone."""

import itertools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.experiment import Config, Range, draw_samples, population_based_training, stages, successive_halving, tune
from jaxrl.experiment.halving import ranking, rung_sizes, width_of
from jaxrl.experiment.policies import SELECTION_STREAM
from jaxrl.experiment.population_training import exploit_and_explore
from jaxrl.experiment.stages import in_batches
from jaxrl.presets import DEFAULTS
from jaxrl.types import LearnerState
from tests.problems import plain, reinforce_learner, short_point_mass

SPACE = {"learning_rate": Range(1e-3, 1.0, log=True), "entropy_coef": Range(0.0, 0.1)}


@pytest.fixture(scope="module")
def learner():
    return reinforce_learner(short_point_mass(), num_envs=2, rollout_length=5, hidden=(3,))


def settings_of(learner, num):
    """Settings that differ in the learning rate."""
    batch = jax.tree.map(lambda x: jnp.full(num, x, jnp.float32), learner.agent.hparams)
    return batch._replace(learning_rate=jnp.geomspace(1e-3, 1.0, num, dtype=jnp.float32))


def count_compilations(monkeypatch):
    compiled = []
    original = stages._compile
    monkeypatch.setattr(stages, "_compile", lambda *args, **kwargs: compiled.append(args) or original(*args, **kwargs))
    return compiled


# --- stages


@pytest.mark.parametrize("total", [1, 3, 4, 7])
def test_batches_of_any_number_are_calls_of_one_width(total):
    widths = []

    def double(x, y):
        widths.append(len(x))
        return {"sum": x + y[:, 0]}

    x, y = jnp.arange(total), jnp.arange(2 * total).reshape(total, 2)
    np.testing.assert_array_equal(in_batches(double, 3)(x, y)["sum"], x + y[:, 0])
    assert set(widths) == {3}
    assert len(widths) == -(-total // 3)


# --- successive halving


@pytest.mark.parametrize(
    ("num", "iterations", "factor", "sizes"),
    [
        (64, 1600, 4, [64, 16, 4, 1]),
        (10, 100, 3, [10, 3, 1]),
        (64, 5, 4, [64, 16]),  # too short for more rungs
        (8, 100, 9, [8]),  # random search
        (1, 7, 2, [1]),
    ],
)
def test_the_sizes_of_rungs(num, iterations, factor, sizes):
    assert rung_sizes(num, iterations, factor) == sizes


@pytest.mark.parametrize(
    ("iterations", "least", "length"), [(100, 16, 5), (1600, 64, 25), (7, 4, 1), (9, 1, 9), (6, 6, 1), (1938, 64, 19)]
)
def test_a_run_has_a_whole_number_of_stages(iterations, least, length):
    assert stages.stage_length(iterations, least) == length


@pytest.mark.parametrize(
    ("sizes", "factor", "width"),
    [
        ([64, 16, 4, 1], 4, 16),  # 67 stages of 1.16 take less than 64 of 1.64 and 88 of 1.04
        ([9, 3, 1], 3, 9),  # 9 stages of 1.09 take less than 11 of 1.03 and 21 of 1.01
        ([1024, 256, 64, 16, 4, 1], 4, 16),
        ([500], 501, 500),
    ],
)
def test_the_width_of_a_gpu_takes_the_least_time(sizes, factor, width):
    assert width_of(sizes, factor) == width


def test_settings_are_ranked_by_their_mean_and_nan_is_the_worst():
    scores = np.array([[1.0, 2.0], [np.nan, 90.0], [5.0, -1.0], [3.0, 3.0], [-np.inf, 4.0]])
    assert ranking(scores)[:3].tolist() == [3, 2, 0]


@pytest.fixture(scope="module")
def halved(learner):
    with pytest.MonkeyPatch.context() as patch:
        compiled = count_compilations(patch)
        keys, reports = jax.random.split(jax.random.key(0), 2), []
        states, rungs = successive_halving(
            keys,
            learner,
            settings_of(learner, 6),
            num_iterations=9,
            factor=2,
            num_episodes=4,
            batch_size=5,
            report=reports.append,
        )
    return keys, states, rungs, reports, compiled


def test_each_rung_keeps_the_best_half_and_doubles_the_length(halved):
    _, _, rungs, reports, compiled = halved
    assert [rung.num_iterations for rung in rungs] == [2, 4, 9]  # the last is the whole run
    assert [len(rung.settings) for rung in rungs] == [6, 3, 1]
    for rung, following in itertools.pairwise(rungs):
        assert rung.scores.shape == (len(rung.settings), 2)
        means = rung.scores.mean(axis=1)
        assert (np.diff(means) <= 0).all()
        assert set(following.settings) == set(rung.settings[: len(following.settings)])
    assert [rung.num_iterations for rung in reports] == [2, 4, 9]
    assert len(compiled) == 2  # one program that trains and one that evaluates, for three rungs


@pytest.mark.slow
def test_the_survivor_is_trained_as_alone(halved, learner):
    """To the bit of float rounding: a rung goes on from the state in which the last one ended."""
    keys, states, rungs, _, _ = halved
    hparams = jax.tree.map(lambda x: x[rungs[-1].settings[0]], settings_of(learner, 6))
    train = jax.jit(lambda key: jaxrl.train(key, learner, 9, hparams))
    for seed in range(2):
        alone = train(keys[seed])[0]
        survivor = jax.tree.map(lambda x, seed=seed: x[seed], states)
        chex.assert_trees_all_close(plain(survivor.agent), plain(alone.agent), rtol=1e-5, atol=1e-6)
        chex.assert_trees_all_close(plain(survivor.env), plain(alone.env), rtol=1e-5, atol=1e-6)
        key = jax.random.fold_in(keys[seed], SELECTION_STREAM)
        score = jaxrl.evaluate(key, learner, alone, num_episodes=4).mean()
        np.testing.assert_allclose(rungs[-1].scores[0, seed], score, rtol=1e-4)


# --- population-based training


def population(num, extra=0.0):
    """States whose leaves tell the member, and settings that do."""
    member = jnp.arange(num, dtype=jnp.float32) + extra
    keys = jax.random.split(jax.random.key(7), num)
    return LearnerState(keys, {"w": jnp.stack([member, member], axis=1)}, {"key": keys}, member, (), member)


def explored(scores, seeds):
    """The settings before, and the results with each of the seeds."""
    num = len(scores)
    hparams = jaxrl.agents.ReinforceHParams(*(jnp.linspace(0.01, 0.1, num) for _ in range(6)))
    replace = lambda key: exploit_and_explore(key, jnp.float32(scores), population(num), hparams, SPACE, num_replaced=2)
    return hparams, *jax.jit(jax.vmap(replace))(jax.vmap(jax.random.key)(jnp.arange(seeds)))


def test_the_worst_copy_the_best_and_everything_but_the_key():
    scores = [3.0, np.nan, 5.0, 1.0, 9.0]
    before, *after = explored(scores, 1)
    states, hparams, parents = jax.tree.map(lambda x: x[0], after)
    parents = np.asarray(parents)
    assert set(parents[[1, 3]]) <= {2, 4}  # the worst are the one that diverged, and 3
    assert parents[[0, 2, 4]].tolist() == [0, 2, 4]
    start = population(5)
    np.testing.assert_array_equal(states.agent["w"][:, 0], parents)
    np.testing.assert_array_equal(states.obs, parents)
    np.testing.assert_array_equal(*(jax.random.key_data(s) for s in (states.env["key"], start.env["key"][parents])))
    np.testing.assert_array_equal(*(jax.random.key_data(s.key) for s in (states, start)))
    for name in before._fields:
        same = np.equal(getattr(hparams, name), getattr(before, name)[parents])
        assert same[[0, 2, 4]].all()
        assert same.all() == (name not in SPACE)  # what is not searched is copied, and never changed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (Range(0.1, 1e-4), "learning_rate: the range uniform:0.1:0.0001 must have finite ends with LOW < HIGH"),
        (Range(np.nan, 1.0), "must have finite ends"),
        (Range(0.0, np.inf), "must have finite ends"),
        (Range(0.0, 0.1, log=True), "the range loguniform:0:0.1 must have LOW > 0"),
        ((0.1, 0.2), r"learning_rate must be a Range, such as .*; got \(0\.1, 0\.2\)"),
    ],
)
def test_a_wrong_range_is_named(learner, values, message):
    space, key, error = {"learning_rate": values}, jax.random.key(0), TypeError if type(values) is tuple else ValueError
    with pytest.raises(error, match=message):
        draw_samples(space, 3, seed=0)
    with pytest.raises(error, match=message):
        population_based_training(key, learner, settings_of(learner, 3), space, num_iterations=4)
    with pytest.raises(error, match=message):
        tune(Config("PointMass", DEFAULTS["reinforce"], samples=[{"learning_rate": 0.1}]), Path("unused"), space=space)


def test_a_score_is_the_mean_over_the_episodes_that_end(learner, monkeypatch):
    played = {"some end": [1.0, np.nan, 3.0], "none ends": [np.nan] * 3}
    for returns, expected in zip(played.values(), (2.0, np.nan), strict=True):
        monkeypatch.setattr(stages, "evaluate", lambda *args, returns=returns, **options: jnp.array(returns))
        _, rungs = successive_halving(jax.random.split(jax.random.key(0), 1), learner, settings_of(learner, 2), num_iterations=2)
        np.testing.assert_array_equal(rungs[-1].scores, expected)


@pytest.mark.parametrize(
    "leaves",
    [
        lambda hparams: None,
        lambda hparams: hparams._replace(learning_rate=hparams.learning_rate[:2]),
        lambda hparams: jax.tree.map(lambda x: x[:0], hparams),
        lambda hparams: jax.tree.map(lambda x: x[:, None], hparams),
    ],
)
def test_settings_of_different_numbers_are_an_error(learner, leaves):
    hparams = leaves(settings_of(learner, 3))
    message = r"hparams must have leaves of one shape \[N\], a value for each of N settings; got \["
    with pytest.raises(ValueError, match=message):
        successive_halving(jax.random.split(jax.random.key(0), 2), learner, hparams, num_iterations=4)
    with pytest.raises(ValueError, match=message):
        population_based_training(jax.random.key(0), learner, hparams, SPACE, num_iterations=4)


def test_hyperparameters_are_those_of_the_parent_times_a_factor_or_drawn_anew():
    """Of 400 changes, a quarter is drawn anew, and half of the others are raised; each within 4.5 standard deviations."""
    before, _, hparams, parents = explored([3.0, 2.0, 5.0, 1.0, 9.0], 200)
    replaced = np.array([1, 3])
    old, new = before.learning_rate[parents[:, replaced]], np.asarray(hparams.learning_rate[:, replaced])
    kinds = {"raised": np.sum(np.isclose(new / old, 1.2)), "lowered": np.sum(np.isclose(new / old, 0.8))}
    kinds["drawn"] = new.size - sum(kinds.values())
    assert ((new >= 1e-3) & (new <= 1.0)).all()
    entropy = np.asarray(hparams.entropy_coef[:, replaced])
    assert ((entropy >= 0.0) & (entropy <= np.float32(0.1))).all()  # a tenth times 1.2 is clipped
    assert (entropy == np.float32(0.1)).any()
    assert abs(kinds["drawn"] - 100) < 4.5 * np.sqrt(400 * 0.25 * 0.75)
    assert abs(kinds["raised"] - 150) < 4.5 * np.sqrt(400 * 0.375 * 0.625)


@pytest.fixture(scope="module")
def trained_population(learner):
    with pytest.MonkeyPatch.context() as patch:
        compiled = count_compilations(patch)
        found = population_based_training(
            jax.random.key(1), learner, settings_of(learner, 5), SPACE, num_iterations=11, num_generations=3, num_episodes=4
        )
    return *found, compiled


@pytest.mark.slow
def test_the_history_of_a_population(trained_population, learner):
    states, hparams, generations, compiled = trained_population
    assert [generation.num_iterations for generation in generations] == [3, 7, 11]
    assert len(compiled) == 2
    np.testing.assert_allclose(generations[0].hparams["learning_rate"], settings_of(learner, 5).learning_rate)
    np.testing.assert_array_equal(generations[0].parents, np.arange(5))
    for before, after in itertools.pairwise(generations):
        order = np.argsort(before.scores)
        assert after.parents[order[0]] == order[-1]
        np.testing.assert_array_equal(np.delete(after.parents, order[0]), np.delete(np.arange(5), order[0]))
    np.testing.assert_array_equal(generations[-1].hparams["learning_rate"], hparams.learning_rate)
    assert len({tuple(np.ravel(x).tolist()) for x in jax.random.key_data(states.key)}) == 5
    chex.assert_tree_all_finite(states.agent)


@pytest.mark.slow
def test_a_member_that_is_never_replaced_is_trained_as_alone(trained_population, learner):
    states, _, generations, _ = trained_population
    kept = [i for i in range(5) if all(generation.parents[i] == i for generation in generations)]
    assert kept
    hparams = jax.tree.map(lambda x: x[kept[0]], settings_of(learner, 5))
    keys = jax.random.split(jax.random.split(jax.random.key(1), 3)[0], 5)
    alone = jax.jit(lambda key: jaxrl.train(key, learner, 11, hparams))(keys[kept[0]])[0]
    chex.assert_trees_all_close(plain(jax.tree.map(lambda x: x[kept[0]], states.agent)), plain(alone.agent), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num": 1}, "a population needs at least 2 members"),
        ({"replaced": 0.7}, r"replaced is the share of the population .* got 0.7"),
        ({"space": {"tau": Range(0.0, 1.0)}}, "space: there is no hyperparameter 'tau'; there are learning_rate"),
        ({"num_iterations": 0}, "num_iterations must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_generations": 12}, "num_generations must be at most 11, got 12"),
    ],
)
def test_populations_that_cannot_be_are_refused(learner, changes, message):
    arguments = {"num": 5, "space": SPACE, "num_iterations": 11, "num_generations": 3} | changes
    num, space = arguments.pop("num"), arguments.pop("space")
    with pytest.raises(ValueError, match=message):
        population_based_training(jax.random.key(0), learner, settings_of(learner, num), space, **arguments)
