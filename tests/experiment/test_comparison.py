"""Comparing run folders: what is read, what differs, and when a difference is more than noise."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.experiment import comparison, evaluations, folder, statistics
from jaxrl.experiment.comparison import MISSING, compare, sentence
from jaxrl.experiment.curves import plot, read_all, read_evaluation_curves
from jaxrl.experiment.evaluations import EVALUATION, final_returns, read_evaluations, write_evaluation
from jaxrl.experiment.statistics import iqm_interval
from jaxrl.types import Discrete
from tests.experiment.run_folders import keep_rows, write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two algorithms in two environments; the first has a sweep in the first."""
    root = tmp_path_factory.mktemp("compare")
    write_run(root / "a", [100, 200], spread=10, sweep={"tau": [0.1, 0.2]}, seed=3)
    write_run(root / "b", [195], spread=10, algorithm="ppo", random_seed=4)
    write_run(root / "c", [-300], spread=30, env="Acrobot-v1", random_seed=2, seeds=6)
    write_run(root / "d", [-100], spread=5, env="Acrobot-v1", algorithm="ppo", random_seed=3)
    return root


def test_evaluations_come_back(runs, tmp_path):
    config = write_run(tmp_path / "run", [1, 2], sweep={"tau": [0.1, 0.2]}, seed=3, evaluate=False)
    early, late = (np.random.default_rng(i).normal(size=(16, 5)).astype(np.float32) for i in range(2))
    late[2, 1:], late[9] = np.nan, np.nan  # episodes that did not end
    write_evaluation(tmp_path / "run", config, 1000, early)
    write_evaluation(tmp_path / "run", config, 2000, late)
    assert (tmp_path / "run" / EVALUATION).read_text().splitlines()[:2] == [
        "seed,tau,env_steps,episode,return",
        f"3,0.1,1000,0,{early[0, 0]}",
    ]
    found = read_evaluations(tmp_path / "run")
    np.testing.assert_array_equal(found.env_steps, [1000, 2000])
    np.testing.assert_allclose(found.returns[0], early.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found.returns[1], [late[2, 0] if i == 2 else row.mean() for i, row in enumerate(late)], rtol=1e-6)
    final = final_returns(tmp_path / "run")
    np.testing.assert_array_equal(final.values, found.returns[1])
    assert (final.env_steps, final.source) == (2000, EVALUATION)


def test_the_order_of_the_rows_does_not_matter(runs, tmp_path):
    path = tmp_path / "run"
    write_run(path, [1, 2], sweep={"tau": [0.1, 0.2]})
    before = read_evaluations(path)
    header, *rows = (path / EVALUATION).read_text().splitlines()
    (path / EVALUATION).write_text("\n".join([header, *rows[::-1]]) + "\n")
    np.testing.assert_allclose(read_evaluations(path).returns, before.returns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed,env_steps,episode,return\n0,x,0,1\n", "is damaged"),
        ("seed,env_steps,episode,return\n0,5\n", "is damaged"),
        ("seed,env_steps,episode,return\n0,5,0,1\n9,5,0,1\n", "line 3 is of another run"),
        ("seed,env_steps,episode\n0,5,0\n", "has no column return"),
        ("\0\0\n\0\n", "is damaged"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    write_run(tmp_path / "run", [1], evaluate=False)
    (tmp_path / "run" / EVALUATION).write_text(text)
    with pytest.raises(ValueError, match=rf"evaluation\.csv .*{message}"):
        compare([tmp_path / "run"])


def test_training_returns_stand_in_for_evaluations(tmp_path):
    write_run(tmp_path / "run", [100], spread=0, evaluate=False, times=4)
    text = (tmp_path / "run" / folder.METRICS).read_text().splitlines()
    text[-1] = text[-1].replace(",100.0,", ",nan,")  # no episode ended in the last interval of the last seed
    (tmp_path / "run" / folder.METRICS).write_text("\n".join(text) + "\n")
    found = final_returns(tmp_path / "run")
    np.testing.assert_allclose(found.values, [100] * 7 + [75])
    assert "the last returns of training, with exploration" in found.source
    assert any("the last returns of training" in note for note in compare([tmp_path / "run"]).notes)


@pytest.mark.parametrize("text", ["", "seed,env_steps,episode,return\n", "seed,env_steps,episode,return\n0,5"])
def test_a_file_without_rows_is_as_good_as_none(tmp_path, text):
    write_run(tmp_path / "run", [100], evaluate=False)
    (tmp_path / "run" / EVALUATION).write_text(text)
    assert "the last returns of training" in final_returns(tmp_path / "run").source
    with pytest.raises(ValueError, match=r"has no evaluations: there is no evaluation\.csv, or it is empty"):
        read_evaluation_curves(tmp_path / "run")


def test_an_interrupted_run_is_judged_by_what_it_has_and_says_so(tmp_path):
    config = write_run(tmp_path / "run", [100], spread=0, evaluate=False, times=3)  # to 1,500 of 1,992 steps
    (note,) = compare([tmp_path / "run"]).notes
    reason = "since the run is not finished, after 1,500 of 1,992 steps"
    assert note == f"run: the returns are the last returns of training, with exploration, {reason}."
    write_evaluation(tmp_path / "run", config, 1000, np.full((8, 2), 40.0))
    found = compare([tmp_path / "run"])
    assert found.notes == [
        "run: the returns are of the last evaluation during training, after 1,000 of 1,992 steps: the run is not finished."
    ]
    assert (found.entries[0].env_steps, found.entries[0].summary.iqm) == (1000, 40)


def test_policies_without_a_final_evaluation_are_played(tmp_path, monkeypatch):
    """As a process leaves them that is killed between the two."""
    config = write_run(tmp_path / "run", [100], evaluate=False)
    write_evaluation(tmp_path / "run", config, 1000, np.full((8, 2), 40.0))
    (tmp_path / "run" / folder.POLICIES).mkdir()
    played = evaluations.Returns(np.full(8, 500.0), 2000, "played", np.zeros(8, bool))
    monkeypatch.setattr(evaluations, "_play", lambda *_: played)
    assert final_returns(tmp_path / "run") is played


@pytest.mark.parametrize("evaluate", [False, True])
def test_seeds_of_a_batch_that_is_behind_are_left_out(tmp_path, evaluate):
    path = tmp_path / "run"
    config = write_run(path, [100], evaluate=False, seeds=4)
    keep_rows(path / folder.METRICS, lambda seed, steps: seed < 2 or steps == 500)
    if evaluate:
        for steps in (500, 1500):
            write_evaluation(path, config, steps, np.full((4, 2), float(steps)))
        keep_rows(path / EVALUATION, lambda seed, steps: seed < 2 or steps == 500)
    found = compare([path])
    np.testing.assert_array_equal(found.entries[0].seeds, [0, 1])
    assert f"after {1500 if evaluate else 2000:,} of 1,992 steps" in found.notes[0]
    assert "the run is not finished" in found.notes[0]
    assert found.notes[1:] == ["run: no return of 2 of 4 seeds (2, 3), which have not been trained that far; they are left out."]


def test_entries_are_the_settings_of_the_runs(runs):
    found = compare([runs / "a", runs / "b"])
    assert [entry.label for entry in found.entries] == ["a (tau=0.1)", "a (tau=0.2)", "b"]
    a = found.entries[0]
    np.testing.assert_array_equal(a.seeds, range(3, 11))
    summary = a.summary
    np.testing.assert_allclose([summary.low, summary.high], iqm_interval(a.returns))
    assert summary.low < summary.iqm < summary.high
    assert summary.worst == a.returns.min()
    assert summary.optimality_gap == pytest.approx(1 - np.mean((a.returns - 22.5) / (500 - 22.5)))


def test_what_differs_is_what_was_changed(runs, tmp_path):
    config = write_run(tmp_path / "x", [1], hparams={"tau": 0.3})
    changed = dataclasses.replace(config, wrappers=("time_aware",), hparams={"tau": 0.5}, seeds=2)
    for name, other in (("y", changed), ("z", config)):
        (tmp_path / name).mkdir()
        other.save(tmp_path / name / folder.CONFIG)
        write_evaluation(tmp_path / name, other, 2000, np.ones((other.seeds, 1)))
    assert compare([tmp_path / "x", tmp_path / "y"]).differences == {
        "wrap": ["none", "time_aware"],
        "hparams.tau": [0.3, 0.5],
        "seeds": [8, 2],
    }
    assert not compare([tmp_path / "x", tmp_path / "z"]).differences
    assert compare([runs / "a"]).differences == {"hparams.tau": [0.1, 0.2]}
    of_algorithms = compare([runs / "c", runs / "d"]).differences
    assert of_algorithms["algorithm"] == ["dqn", "ppo"]
    assert of_algorithms["hparams.tau"] == [config.settings.hparams["tau"], MISSING]


def test_a_difference_is_told_from_noise(runs):
    found = compare([runs / "a", runs / "b"])
    pairs = {frozenset((pair.better, pair.worse)): pair for pair in found.pairs}
    assert len(pairs) == 3
    clear = pairs[frozenset(("a (tau=0.1)", "a (tau=0.2)"))]
    assert (clear.better, clear.more_than_noise) == ("a (tau=0.2)", True)
    assert sentence(clear) == (
        "On CartPole-v1, a (tau=0.2) scores higher than a (tau=0.1) in 100 % of pairs of seeds "
        "(95 % interval 100 % to 100 %, p < 0.001): this is more than noise."
    )
    assert clear.p_value == pytest.approx(3 * 2 / math.comb(16, 8))  # of complete separation, adjusted for three comparisons
    same = pairs[frozenset(("a (tau=0.2)", "b"))]
    assert not same.more_than_noise
    assert sentence(same).endswith(f", p = {same.p_value:.2g}): this may be noise.")


def test_three_seeds_are_too_few_whatever_the_interval_says(tmp_path):
    for name, mean in (("x", 1), ("y", 100)):
        write_run(tmp_path / name, [mean], seeds=3)
    (pair,) = compare([tmp_path / "x", tmp_path / "y"]).pairs
    assert pair.improvement.low == 1
    assert not pair.more_than_noise


def test_the_better_one_wins_more_pairs_even_with_a_lower_iqm(tmp_path):
    for name, returns in (("x", [0.0] * 5 + [100.0] * 3), ("y", [20.0] * 8)):
        config = write_run(tmp_path / name, [0], evaluate=False)
        write_evaluation(tmp_path / name, config, 2000, np.array(returns)[:, None])
    found = compare([tmp_path / "x", tmp_path / "y"])
    assert found.entries[0].summary.iqm > found.entries[1].summary.iqm
    (pair,) = found.pairs
    assert (pair.better, pair.improvement.probability) == ("y", 5 / 8)


def test_one_seed_says_nothing_about_noise(tmp_path):
    for name, mean in (("x", 1), ("y", 100)):
        write_run(tmp_path / name, [mean], seeds=1)
    found = compare([tmp_path / "x", tmp_path / "y"])
    assert np.isnan(found.entries[0].summary.low)
    assert not found.pairs[0].more_than_noise
    assert "cannot be compared: it takes two seeds or more" in sentence(found.pairs[0])


def test_equal_returns_do_not_differ(tmp_path):
    for name in "xy":
        write_run(tmp_path / name, [500], spread=0, evaluate=False)
    (pair,) = compare([tmp_path / "x", tmp_path / "y"]).pairs
    assert sentence(pair) == f"On CartPole-v1, {pair.better} and {pair.worse} do not differ."


def test_seeds_without_a_return_are_left_out_and_named(tmp_path):
    config = write_run(tmp_path / "run", [1], evaluate=False)
    returns = np.arange(8.0)[:, None].copy()
    returns[[2, 5]] = np.nan
    write_evaluation(tmp_path / "run", config, 2000, returns)
    found = compare([tmp_path / "run"])
    np.testing.assert_array_equal(found.entries[0].seeds, [0, 1, 3, 4, 6, 7])
    assert found.notes == ["run: no return of 2 of 8 seeds (2, 5); they are left out."]


def test_many_settings_are_compared_with_the_best(tmp_path):
    taus = [i / 10 for i in range(1, 9)]
    write_run(tmp_path / "run", [10 * i for i in range(8)], sweep={"tau": taus})
    pairs = compare([tmp_path / "run"]).pairs
    assert len(pairs) == 7
    assert {pair.better for pair in pairs} == {"run (tau=0.8)"}
    for pair in pairs:  # the best was chosen by the same returns: any of the 28 pairs could have been compared
        assert pair.p_value >= 22 * pair.improvement.p_value


def test_the_best_of_equal_iqm_does_not_depend_on_the_order_of_the_folders(tmp_path):
    paths = [tmp_path / name for name in "abcdefgh"]
    for i, path in enumerate(paths):
        config = write_run(path, [0], evaluate=False)
        returns = [0.0] * 2 + [500.0] * 6 if path.name == "a" else [500.0] * 8 if path.name == "b" else [10.0 + i] * 8
        write_evaluation(path, config, 2000, np.array(returns)[:, None])
    verdicts = lambda paths: {(pair.better, pair.worse): pair.more_than_noise for pair in compare(paths).pairs}
    found = verdicts(paths)
    assert {better for better, _ in found} == {"b"}
    assert sum(found.values()) == 6  # all but a
    assert verdicts(paths[::-1]) == found


def test_clear_differences_are_seen_however_many_comparisons_there_are(tmp_path):
    taus = [round(0.005 * i, 3) for i in range(1, 151)]
    write_run(tmp_path / "run", [10 * i for i in range(150)], sweep={"tau": taus}, seeds=16)
    assert sum(pair.more_than_noise for pair in compare([tmp_path / "run"]).pairs) > 140


def test_equal_settings_rarely_differ_however_many_there_are(tmp_path):
    """Of 100 experiments with ten equal settings, at most 5 are expected to find a difference; 12 are three deviations more."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(100):
        scores = {str(i): rng.normal(size=(8, 1)) for i in range(10)}
        pairs = comparison._adjusted(comparison._pairs("", scores), math.comb(10, 2))
        wrong += any(pair.more_than_noise for pair in pairs)
    assert wrong <= 12


def test_methods_are_aggregated_over_environments(runs):
    found = compare([runs / "b", runs / "c", runs / "d"])
    assert [method.method for method in found.overall] == ["PPO"]  # DQN is missing in CartPole
    assert found.notes == [
        "No aggregate over environments of DQN: it takes one run with returns in each of CartPole-v1, Acrobot-v1."
    ]
    scores = found.overall[0].scores
    assert scores.shape == (8, 2)
    ppo = {entry.config.env: entry for entry in found.entries if entry.config.settings.algorithm == "ppo"}
    for column, env in zip(scores.T, found.envs, strict=True):
        low, high = comparison.REFERENCES[env]
        np.testing.assert_allclose(column, (ppo[env].returns - low) / (high - low))
    value, low, high = found.overall[0].iqm
    assert low < value < high


def test_methods_are_compared_over_environments(runs, tmp_path):
    write_run(tmp_path / "e", [100], spread=10)
    found = compare([tmp_path / "e", runs / "b", runs / "c", runs / "d"])
    assert [(method.method, len(method.scores)) for method in found.overall] == [("DQN", 6), ("PPO", 8)]
    assert any("uses the first 6 seeds" in note for note in found.notes)
    (overall,) = (pair for pair in found.pairs if not pair.env)
    assert (overall.better, overall.more_than_noise) == ("PPO", True)
    assert sentence(overall).startswith("On all environments together, PPO scores higher than DQN in 100 %")


def test_environments_without_references_are_named(tmp_path):
    wrapped = {"wrappers": ("scale_rewards:2",)}, {"wrappers": ("time_limit:200",)}  # the largest return is no longer 500
    for name, fields in zip("xyz", ({"env": "Catch-bsuite"}, *wrapped), strict=True):
        write_run(tmp_path / name, [1], **fields)
    paths = [tmp_path / name for name in "xyz"]
    (note,) = compare(paths).notes
    assert "no reference returns for Catch-bsuite, CartPole-v1 (scale_rewards:2), CartPole-v1 (time_limit:200)" in note
    references = {"Catch-bsuite": (-1.0, 1.0)}
    assert (
        "no reference returns for CartPole-v1 (scale_rewards:2), CartPole-v1 (time_limit:200);"
        in compare(paths, references).notes[0]
    )
    wrapped = {"CartPole-v1 (scale_rewards:2)": (40.0, 1000.0), "CartPole-v1 (time_limit:200)": (20.0, 200.0)}
    found = compare(paths, {"Catch-bsuite": (-1.0, 1.0), **wrapped})
    assert not any("reference" in note for note in found.notes)
    assert [entry.reference for entry in found.entries] == [(-1.0, 1.0), (40.0, 1000.0), (20.0, 200.0)]


def test_a_reference_for_another_environment_is_an_error(tmp_path):
    write_run(tmp_path / "x", [1], wrappers=("scale_rewards:2",))
    message = r"there is a reference for Cartpole, and the environments of the runs are CartPole-v1 \(scale_rewards:2\)"
    with pytest.raises(ValueError, match=message):
        compare([tmp_path / "x"], {"Cartpole": (0.0, 1.0)})


def test_no_result_is_above_the_reference():
    path = Path(__file__).parents[2] / "benchmarks" / "results" / "presets.jsonl"
    for result in map(json.loads, path.read_text().splitlines()):
        _, high = comparison.REFERENCES.get(result["env"], (0.0, np.inf))
        assert round(float(statistics.iqm(np.array(result["returns"]))), 1) <= high, result["row"]


@pytest.mark.slow
@pytest.mark.parametrize("name", comparison.REFERENCES)
def test_the_lower_references_are_of_random_actions(name):
    env = jaxrl.make(name)
    space, num = env.action_space, 1_000

    def play(key):
        reset_key, key = jax.random.split(key)
        state, _ = env.reset(reset_key, env.params)

        def step(carry, key):
            state, over, total = carry
            act_key, step_key = jax.random.split(key)
            if isinstance(space, Discrete):
                action = jax.random.randint(act_key, (), 0, space.n)
            else:
                action = jax.random.uniform(act_key, space.shape, minval=space.low, maxval=space.high)
            state, out = env.step(step_key, state, action, env.params)
            return (state, over | out.terminated | out.truncated, total + jnp.where(over, 0.0, out.reward)), None

        keys = jax.random.split(key, env.params.max_steps_in_episode)
        return jax.lax.scan(step, (state, False, 0.0), keys)[0][2]

    returns = np.asarray(jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), num)))
    # The reference is a mean too, of 4,000 episodes, rounded.
    assert abs(returns.mean() - comparison.REFERENCES[name][0]) < 4 * returns.std() * np.sqrt(1 / num + 1 / 4_000) + 0.05


def test_folders_of_one_name_are_told_apart_and_one_folder_is_given_once(tmp_path):
    for name in ("x/run", "y/run"):
        write_run(tmp_path / name, [1])
    labels = [entry.label for entry in compare([tmp_path / "x/run", tmp_path / "y/run"]).entries]
    assert labels == [str(tmp_path / "x/run"), str(tmp_path / "y/run")]
    with pytest.raises(ValueError, match="is given twice"):
        compare([tmp_path / "x/run", tmp_path / "y/../x/run"])


def test_a_plot_names_folders_whose_curves_have_the_same_label(tmp_path):
    paths = [tmp_path / name for name in ("a", "$b$", "\udcff")]
    for path in paths:
        write_run(path, [1], seeds=2)
    assert [curve.label for curve in read_all(paths)] == [f"DQN on CartPole-v1, in {name}" for name in ("a", r"\$b\$", "?")]
    assert [curve.label for curve in read_all(paths[:1])] == ["DQN on CartPole-v1"]
    write_run(tmp_path / "other", [1], algorithm="ppo", seeds=2)
    assert [curve.label for curve in read_all([paths[0], tmp_path / "other"])] == ["DQN on CartPole-v1", "PPO on CartPole-v1"]
    assert plot(read_all(paths), tmp_path / "curves.png").stat().st_size > 5_000
