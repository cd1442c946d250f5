"""Searches in run folders: tables, pictures, policies of the best, and the command."""

import csv
import json
import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest

from jaxrl.cli import main
from jaxrl.experiment import Config, Range, draw_samples, evaluate_policies, load_policies, tune, tuning
from jaxrl.experiment.config import load_config
from jaxrl.experiment.csv_file import CsvFile
from jaxrl.experiment.deployment import load_policy
from jaxrl.experiment.notes import Note
from jaxrl.experiment.parallel_coordinates import Trial, _axis, plot
from jaxrl.experiment.policies import SELECTION_STREAM, abstract_policies, greedy_evaluation, stream_of
from jaxrl.experiment.population_training import Generation
from jaxrl.experiment.terminal import search_table
from jaxrl.presets import DEFAULTS, override

SETTINGS = override(
    DEFAULTS["reinforce"],
    steps=32 * 8,
    num_envs=4,
    rollout_length=8,
    network={"hidden": (3,)},
    agent={"normalize_advantage": False},
)
SPACE = {"learning_rate": Range(1e-3, 1e-1, log=True), "entropy_coef": Range(0.0, 0.1)}


def configuration(num, seeds):
    return Config("CartPole-v1", SETTINGS, seeds=seeds, seed=3, samples=draw_samples(SPACE, num, seed=3))


def table(out):
    with (out / "search.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def halving(tmp_path_factory):
    out, lines = tmp_path_factory.mktemp("halving") / "run", []
    found = tune(configuration(4, seeds=2), out, factor=2, space=SPACE, report=lines.append)
    return out, found, lines


def test_the_folder_of_a_search(halving):
    out, found, lines = halving
    assert {path.name for path in out.iterdir()} == {"config.json", "policies", "search.csv", "search.json", "search.png"}
    record = json.loads((out / "search.json").read_text())
    assert record["method"] == "halving"
    assert record["factor"] == 2
    assert record["space"]["learning_rate"] == {"low": 1e-3, "high": 1e-1, "log": True}
    rows = table(out)
    assert [(row["rung"], row["env_steps"]) for row in rows] == [("1", "64")] * 8 + [("2", "128")] * 4 + [("3", "256")] * 2
    samples = configuration(4, 2).samples
    for row in rows:
        assert {name: float(row[name]) for name in SPACE} == samples[int(row["setting"])]
    assert found.env_steps == sum(64 if s == 64 else 128 if s == 128 else 256 for s in (t.env_steps for t in found.trials)) * 2
    assert [line.partition(",")[0] for line in lines] == [
        "rung 1: 4 settings after 64 steps", "rung 2: 2 settings after 128 steps", "rung 3: 1 setting after 256 steps",
    ]  # fmt: skip


def test_the_policies_are_those_of_the_best_setting(halving):
    """Their scores are of the episodes by which policies are chosen, and not of those by which they are judged afterwards."""
    out, found, _ = halving
    config = load_config(out)
    assert config == found.config
    last = [row for row in table(out) if row["rung"] == "3"]
    assert config.combinations == [configuration(4, 2).samples[int(last[0]["setting"])]]
    scores = [float(row["score"]) for row in last]
    assert [int(row["seed"]) for row in last] == [config.seed, config.seed + 1]
    policies, keys = load_policies(out, abstract_policies(config)), config.runs(config.preset())[0]
    evaluate = greedy_evaluation(config.preset().learner, 32)
    np.testing.assert_allclose(evaluate(stream_of(keys, SELECTION_STREAM), policies).mean(axis=1), scores, rtol=1e-5)
    judged = evaluate_policies(config, policies, num_episodes=32).mean(axis=1)
    assert not np.isclose(judged, scores, rtol=1e-3).any()
    assert load_policy(out).seed == config.seed + int(np.argmax(scores))


def test_the_table_shows_what_was_trained_longest_first(halving):
    _, found, _ = halving
    rich_table = search_table(found, rows=3)
    columns = {column.header: list(column.cells) for column in rich_table.columns}
    assert list(columns) == ["learning_rate", "entropy_coef", "env steps", "seeds", "mean", "worst seed"]
    assert columns["env steps"] == ["256", "128", "64"]
    assert "the best 3 of 4 settings" in rich_table.title


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    out = tmp_path_factory.mktemp("population") / "run"
    return out, tune(configuration(4, seeds=1), out, method="pbt", generations=4, space=SPACE)


@pytest.mark.slow
def test_a_population_leaves_its_history_and_its_policies_best_first(population):
    out, found = population
    rows = table(out)
    assert [(row["generation"], row["member"]) for row in rows] == [(g, m) for g in "1234" for m in "0123"]
    assert [row["parent"] for row in rows[:4]] == list("0123")
    for generation in ("2", "3", "4"):
        assert sum(row["parent"] != row["member"] for row in rows if row["generation"] == generation) == 1
    scores = np.array([float(row["score"]) for row in rows[12:]])
    order = np.argsort(-scores, kind="stable")
    values = [{name: float(rows[12 + i][name]) for name in SPACE} for i in order]
    assert found.config.samples == values
    config = load_config(out)
    policies = load_policies(out, abstract_policies(config))
    assert evaluate_policies(config, policies, num_episodes=2).shape == (4, 2)


@pytest.mark.needs("optuna")
def test_optuna_proposes_batches(tmp_path):
    config = configuration(5, seeds=2)
    found = tune(config, tmp_path / "run", method="optuna", samples_per_batch=3, space=SPACE)
    rows = table(tmp_path / "run")
    assert [row["batch"] for row in rows] == ["1"] * 6 + ["2"] * 4
    assert len({row["learning_rate"] for row in rows}) == 5
    assert all(1e-3 <= float(row["learning_rate"]) <= 1e-1 and 0 <= float(row["entropy_coef"]) <= 0.1 for row in rows)
    means = np.array([float(row["score"]) for row in rows]).reshape(5, 2).mean(axis=1)
    assert found.config.samples == [{name: float(rows[2 * int(np.argmax(means))][name]) for name in SPACE}]
    again = tune(config, tmp_path / "again", method="optuna", samples_per_batch=3, space=SPACE)
    assert [trial.hparams for trial in again.trials] == [trial.hparams for trial in found.trials]
    policies = load_policies(tmp_path / "run", abstract_policies(found.config))
    keys = found.config.runs(found.config.preset())[0]
    returns = greedy_evaluation(found.config.preset().learner, 32)(stream_of(keys, SELECTION_STREAM), policies)
    assert returns.mean() == pytest.approx(means.max(), rel=1e-5)


def test_without_optuna_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"needs Optuna: pip install 'jaxrl\[optuna\]'"):
        tune(configuration(2, seeds=1), tmp_path / "run", method="optuna", space=SPACE)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(("method", "num", "options"), [("halving", 4, {"factor": 2}), ("pbt", 4, {"generations": 3})])
def test_the_best_are_trained_for_all_steps(method, num, options, tmp_path):
    """Seven iterations, which neither four stages nor three generations divide."""
    config = Config("CartPole-v1", override(SETTINGS, steps=32 * 7), seeds=1, samples=draw_samples(SPACE, num, seed=3))
    tune(config, tmp_path / "run", method=method, space=SPACE, **options)
    rows = table(tmp_path / "run")
    steps = ["32", "96", "224"] if method == "halving" else ["64", "128", "224"]
    assert list(dict.fromkeys(row["env_steps"] for row in rows)) == steps
    assert int(steps[-1]) == config.preset().env_steps


def test_equal_members_of_a_population_are_one(tmp_path, monkeypatch):
    """The better one: members that copied the same parent and changed it alike still differ in their keys."""
    members = {"learning_rate": np.float32([0.01, 0.02, 0.01]), "entropy_coef": np.float32([0.1, 0.1, 0.1])}

    def population_based_training(key, learner, hparams, space, **_):
        states = jax.jit(jax.vmap(learner.init))(jax.random.split(key, 3), hparams)
        last = Generation(8, members, np.float32([1.0, 3.0, 2.0]), np.arange(3))
        return states._replace(obs=jnp.arange(3)), hparams, [last]

    monkeypatch.setattr(tuning, "population_based_training", population_based_training)
    config = configuration(3, seeds=1)
    log = tuning._Log(config.preset(), 3, None, {}, [], print)
    options = {"generations": 4}
    states, samples, scores = tuning._population(config, config.preset(), SPACE, log, options)
    assert samples == [{"learning_rate": 0.02, "entropy_coef": 0.1}, {"learning_rate": 0.01, "entropy_coef": 0.1}]
    assert scores.tolist() == [3.0, 2.0]
    assert states.obs.tolist() == [1, 2]


# --- parallel coordinates


def test_values_are_placed_by_their_scale():
    heights, ticks = _axis(np.array([1e-4, 1e-3, 1e-2]), True)
    np.testing.assert_allclose(heights, [0.0, 0.5, 1.0])
    assert [text for _, text in ticks] == ["0.0001", "0.000316", "0.001", "0.00316", "0.01"]
    np.testing.assert_allclose(_axis(np.array([1e-4, 1e-3, 1e-2]), None)[0], [0.0, 0.5, 1.0])
    np.testing.assert_allclose(_axis(np.array([0.0, 1.0, np.nan, 4.0]), None)[0], [0.0, 0.25, 0.0, 1.0])
    assert _axis(np.array([3.0, 3.0]), None)[1] == [(0.5, "3")]
    assert _axis(np.array([np.nan]), None)[0].tolist() == [0.0]


def test_the_picture_has_the_colours_of_the_scores(tmp_path):
    """The best is yellow, the worst violet, and a run that diverged is grey."""
    trials = [Trial({"a": x, "b": 1.0 - x}, 100, np.array([score])) for x, score in ((0.0, 1.0), (0.5, np.nan), (1.0, 9.0))]
    pixels = matplotlib.image.imread(plot(trials, tmp_path / "p.png"))[:, : int(0.7 * 960), :3].reshape(-1, 3)
    near = lambda colour: np.sum(np.abs(pixels - colour).max(axis=1) < 0.05)
    white = lambda colour, alpha: alpha * np.array(colour) + (1 - alpha)
    best, worst = near(white((0.993, 0.906, 0.144), 0.75)), near(white((0.267, 0.005, 0.329), 0.75))
    assert best > 2 * worst > 40  # its line is thick
    assert near(white((0.7, 0.7, 0.7), 0.6)) > 20
    with pytest.raises(ValueError, match="cannot write the picture"):
        plot(trials, tmp_path / "no" / "p.png")


# --- the command


def test_the_command_searches_and_prints_what_it_found(tmp_path, capsys):
    words = "--steps 256 --agent.num-envs 4 --agent.rollout-length 8 --agent.hidden 3 --agent.no-normalize-advantage --seeds 2"
    sweep = "--sweep.entropy-coef 0 0.1 --sweep.learning-rate loguniform:1e-3:1e-1 --samples 2 --factor 2"
    out = tmp_path / "run"
    assert (
        main(
            [
                "tune",
                "reinforce",
                "--agent.mode",
                "continuing",
                "--agent.baseline",
                "value",
                *words.split(),
                *sweep.split(),
                "--out",
                str(out),
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "rung 1: 4 settings after 64 steps" in printed
    assert "the best, as options of jaxrl train: --hparams.entropy-coef" in printed
    assert "search.csv" in printed
    assert len(table(out)) == 14
    assert load_config(out).num_runs == 2
    assert main(["eval", str(out), "--episodes", "2"]) == 0


def test_a_search_in_which_all_diverge_recommends_nothing(tmp_path, monkeypatch, capsys):
    def search(config, preset, space, log, options):
        trial = Trial({"tau": 0.5}, 100, np.array([np.nan]))
        log.add({"rung": 1}, [({"setting": 0}, trial)])
        keys, hparams = config.runs(preset)
        return jax.jit(jax.vmap(preset.learner.init))(keys, hparams), config.combinations, np.array([np.nan])

    monkeypatch.setitem(tuning._SEARCHES, "halving", search)
    command = "tune dqn --sweep.tau 0.5 --seeds 1 --agent.capacity 1000 --out"
    assert main([*command.split(), str(tmp_path / "run")]) == 1
    printed = capsys.readouterr()
    assert "no setting has a finite return: all of them diverged" in printed.err
    assert "options of jaxrl train" not in printed.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bogus", "unknown algorithm 'bogus'"),
        ("dqn", "there is nothing to search: give values or a range"),
        ("dqn --method bogus", "--method"),
        ("dqn --sweep.tau 0.1 0.2 --method pbt", "pbt searches ranges"),
        ("dqn --sweep.tau 0.1 0.2 --method optuna", "optuna searches ranges"),
        ("dqn --sweep.tau uniform:0:1 --samples 4 --method pbt --seeds 2", "the members of a population have one seed each"),
        ("dqn --sweep.tau uniform:0:1 --samples 1 --method pbt", "a population needs at least 2 members"),
        ("dqn --sweep.tau uniform:0:1 --samples 4 --method pbt --generations 0", "num_generations must be at least 1, got 0"),
        ("dqn --sweep.tau uniform:0:1 --samples 4 --factor 1", "factor must be at least 2, got 1"),
        (
            "dqn --sweep.tau uniform:0:1 --samples 4 --generations 3",
            "--generations is of --method pbt, and the method is halving",
        ),
        ("dqn --sweep.tau uniform:0:1 --samples 4 --method random --factor 4", "--factor is of --method halving"),
        ("ppo --sweep.gae-lambda uniform:0:1 --samples 4 --method pbt --steps 5120", "a run has 2 iterations, and a generation"),
        ("dqn --sweep.tau uniform:0:2 --samples 1", "hparams.tau must lie in [0, 1], got 2.0"),
        ("dqn --sweep.tau uniform:0:1", "--samples and a range belong together"),
    ],
)
def test_wrong_searches_are_one_line_and_leave_nothing(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["tune", *words.split(), "--out", "x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxrl: error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x").exists() or not list((tmp_path / "x").iterdir())


@pytest.mark.parametrize(
    ("number", "code", "stages"),
    [(signal.SIGTERM, 143, 1), (signal.SIGTERM, 143, 0), (signal.SIGHUP, 129, 1), (signal.SIGINT, 130, 0)],
)
def test_a_signal_ends_a_search_and_says_what_is_left(number, code, stages, tmp_path, monkeypatch, capfd):
    def search(config, preset, space, log, options):
        assert (tmp_path / "run" / "lock").exists()
        for stage in range(stages):
            log.add({"rung": stage}, [({"setting": 0}, Trial({"tau": 0.5}, 100, np.array([1.0])))])
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # some launchers send it to the process and to its group
        time.sleep(20)

    monkeypatch.setitem(tuning._SEARCHES, "halving", search)
    before = signal.getsignal(number)
    run = tmp_path / "run"
    assert main(["tune", "dqn", "--sweep.tau", "0.5", "1", "--seeds", "1", "--out", str(run)]) == code
    heard, left = capfd.readouterr().err.splitlines()
    assert heard == f"jaxrl: {number.name}: stopping after the computation in progress; once more ends at once"
    kept = f"{run}/search.csv has the scores so far, and there are no policies. Start the search again in another folder"
    assert left == f"jaxrl: interrupted; {kept if stages else 'nothing is kept, since no scores are known yet'}"
    assert sorted(path.name for path in run.iterdir()) == (["config.json", "search.csv", "search.json"] if stages else [])
    assert signal.getsignal(number) == before


def test_a_search_whose_picture_cannot_be_written_is_finished(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise ValueError("cannot write the picture (No space left on device)")

    monkeypatch.setattr(tuning, "plot", full)
    with pytest.warns(Note, match="No space left"):
        found = tune(configuration(2, seeds=1), tmp_path / "run", factor=2, space=SPACE)
    assert len(found.trials) == 2
    config = load_config(tmp_path / "run")
    assert load_policies(tmp_path / "run", abstract_policies(config)) is not None


@pytest.mark.parametrize(("place", "kept"), [("folder.save_policies", False), ("plot", True)])
def test_an_interrupt_at_the_end_of_a_search_says_whether_there_are_policies(place, kept, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"jaxrl.experiment.tuning.{place}", interrupted)
    run, words = tmp_path / "run", "--steps 256 --agent.num-envs 4 --agent.rollout-length 8 --agent.hidden 3 --seeds 1"
    sweep = ["--sweep.learning-rate", "0.01", "0.02", "--method", "random"]
    assert main(["tune", "a2c", "--env", "CartPole-v1", *words.split(), *sweep, "--out", str(run)]) == 130
    said = capsys.readouterr().err
    assert (f"the policies and the scores are in {run}" in said) == kept
    assert ("and there are no policies. Start the search again" in said) == (not kept)
    assert main(["eval", str(run), "--episodes", "2"]) == (0 if kept else 2)
    assert "do not belong together" not in capsys.readouterr().err


def test_a_stage_in_which_all_diverge_has_no_best(tmp_path):
    lines = []
    with CsvFile(tmp_path / "search.csv") as rows:
        log = tuning._Log(configuration(2, seeds=1).preset(), 0, rows, {}, [], lines.append)
        log.add(
            {"rung": 1}, [({"setting": i}, Trial({"tau": 0.5}, 100, np.array([score]))) for i, score in enumerate([np.nan] * 2)]
        )
        log.add(
            {"rung": 2}, [({"setting": i}, Trial({"tau": 0.5}, 100, np.array([score]))) for i, score in enumerate([np.nan, -3.0])]
        )
    assert [line.rpartition(" ")[2] for line in lines] == ["nan", "-3.0"]


def test_a_search_that_cannot_be_finished_does_not_name_resume(tmp_path):
    (tmp_path / "search.json").write_text("{}")
    with pytest.raises(ValueError, match="holds no policies: the run did not finish; search again in another folder"):
        load_policies(tmp_path, ())
