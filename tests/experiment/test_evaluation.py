"""Evaluation during training: when, on which episodes, what is kept, and what it leaves for plots and programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.cli import main
from jaxrl.experiment import Config, curves, evaluate_policies, folder, load_policies, run, trainers, training
from jaxrl.experiment.best_policies import Evaluation, better
from jaxrl.experiment.csv_file import CsvFile
from jaxrl.experiment.evaluations import interval_of, read_evaluations
from jaxrl.experiment.policies import (
    EVALUATION_STREAM,
    SELECTION_STREAM,
    SavedPolicy,
    abstract_policies,
    greedy_evaluation,
    in_slices,
)
from jaxrl.experiment.trainers import Chunk
from jaxrl.presets import DEFAULTS, Preset, override
from tests.problems import dqn_learner

SETTINGS = override(DEFAULTS["dqn"], steps=600, num_envs=4, network={"hidden": (8,)},
                    agent={"batch_size": 8, "capacity": 64, "warmup_steps": 40})  # fmt: skip


def config_of(**fields):
    return Config(**({"env": "CartPole-v1", "settings": SETTINGS, "seeds": 2, "hparams": {"learning_rate": 0.03}} | fields))


def policies_of(*values):
    return SavedPolicy({"w": np.array(values, np.float32), "k": np.arange(3.0)[None] * np.array(values)[:, None]}, ())


@pytest.mark.parametrize(
    ("eval_every", "expected"),
    [("auto", [30, 60, 90, 120, 150, 180, 210, 240, 270, 300]), (100, [105, 210, 300]), (1, list(range(30, 301, 15))),
     (45, [45, 90, 135, 180, 225, 270, 300]), (1000, [300]), ("none", [])],
)  # fmt: skip
def test_an_evaluation_takes_place_at_the_end_of_the_interval_in_which_it_is_due(tmp_path, monkeypatch, eval_every, expected):
    """Intervals of 15 steps from 15 on, so that a policy that has not been trained is not evaluated."""
    monkeypatch.setattr(Config, "runs", lambda config, preset: (jax.random.split(jax.random.key(0), 2), None))
    config = config_of(eval_every=eval_every)
    with CsvFile(tmp_path / "evaluation.csv") as file:
        evaluation = Evaluation(config, Preset(None, None, 19, 300), None, file)
        chunks = [Chunk(slice(0, 2), i, 15 + 15 * i, None, {}, 15 * i) for i in range(1, 20)]
        assert [chunk.env_steps for chunk in chunks if evaluation.due(chunk)] == expected


def test_the_best_policy_of_each_run_is_kept():
    first = better(None, policies_of(1, 2, 3), 10, np.array([5.0, np.nan, 2.0]))
    np.testing.assert_array_equal(first.returns, [5, -np.inf, 2])
    second = better(first, policies_of(4, 5, 6), 20, np.array([4.0, -np.inf, 2.0]))
    np.testing.assert_array_equal(second.returns, [5, -np.inf, 2])
    np.testing.assert_array_equal(second.env_steps, [10, 20, 20])  # of equal ones the last
    np.testing.assert_array_equal(second.policies.params["w"], [1, 5, 6])
    np.testing.assert_array_equal(second.policies.params["k"], [[0, 1, 2], [0, 5, 10], [0, 6, 12]])
    third = better(second, policies_of(7, 8, 9), 30, np.array([np.nan, -3.0, np.nan]))
    np.testing.assert_array_equal(third.env_steps, [10, 30, 20])
    assert third.returns.dtype == np.float32


def test_a_batch_that_is_smaller_or_does_not_fit_is_played_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(Config, "runs", lambda config, preset: (jax.random.split(jax.random.key(0), 5), None))
    widths = []

    def evaluate(keys, policies):
        widths.append(len(keys))
        if len(keys) > 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        np.testing.assert_array_equal(jax.random.key_data(keys)[:, 1] % 7, policies.params["tag"])
        return np.stack([policies.params["w"], policies.params["w"] + 1], axis=1)

    with CsvFile(tmp_path / "evaluation.csv") as file:
        evaluation = Evaluation(config_of(seeds=5), Preset(None, None, 10, 100), in_slices(evaluate, 4), file)
        tags = jax.random.key_data(evaluation._keys)[:, 1] % 7
        policies = SavedPolicy({"w": np.arange(2.0, 5.0, dtype=np.float32), "tag": np.asarray(tags)[2:5]}, ())
        best, means = evaluation(Chunk(slice(2, 5), 5, 50, None, {}, 40), policies, None)
        again, _ = evaluation(Chunk(slice(2, 5), 10, 100, None, {}, 90), policies, best)
    assert widths == [4, 2, 2, 2, 2]
    np.testing.assert_array_equal(means, [2.5, 3.5, 4.5])
    rows = [line.split(",") for line in (tmp_path / "evaluation.csv").read_text().splitlines()]
    assert rows[0] == ["seed", "env_steps", "episode", "return"]
    assert [row[0] for row in rows[1:]] == ["2", "2", "3", "3", "4", "4"]
    assert {row[1] for row in rows[1:]} == {"50"}  # the last ones are written for all runs together
    np.testing.assert_array_equal(again.env_steps, 100)


@pytest.mark.parametrize(("value", "message"), [("often", '"auto" or "none"'), (0, "at least 1"), (1.5, "int"), (None, "int")])
def test_a_wrong_interval_is_refused(value, message):
    with pytest.raises((ValueError, TypeError), match=message):
        config_of(eval_every=value)
    assert interval_of(config_of(), 301) == 31


# --- real runs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that was evaluated, and what it evaluated: (policies, returns) by environment steps."""
    seen, out = {}, tmp_path_factory.mktemp("evaluation") / "run"
    with pytest.MonkeyPatch.context() as patch:
        real = Evaluation.__call__

        def recorded(self, chunk, policies, best):
            seen[chunk.env_steps] = policies
            return real(self, chunk, policies, best)

        patch.setattr(Evaluation, "__call__", recorded)
        patch.setattr(trainers, "_SECONDS", 1e9)  # that a call of the program may take: it goes on up to the next evaluation
        patch.setattr(training.curves, "plot", lambda curves, path, what="": path.touch() or path)
        result = run(config_of(eval_every=150), out)
    return out, result, seen


def test_each_evaluation_plays_the_same_episodes_greedily(trained):
    out, result, seen = trained
    config, steps = result.config, sorted(seen)
    assert steps[-1] == result.env_steps
    found = read_evaluations(out)
    assert found.env_steps.tolist() == steps
    learner, *_ = config.preset()
    keys = jax.vmap(lambda key: jax.random.fold_in(key, SELECTION_STREAM))(config.runs(config.preset())[0])
    evaluate = greedy_evaluation(learner, 32)
    means = np.array([evaluate(keys, seen[t]).mean(axis=1) for t in steps])
    np.testing.assert_allclose(found.returns[:-1], means[:-1], rtol=1e-6)
    np.testing.assert_allclose(found.returns[-1], result.evaluation_returns.mean(axis=1), rtol=1e-6)
    best = len(means) - 1 - np.argmax(means[::-1], axis=0)
    record = folder.read_record(out, "best")
    np.testing.assert_allclose(record["returns"], means.max(axis=0), rtol=1e-6)
    assert record["env_steps"] == [steps[i] for i in best]
    kept = load_policies(out, abstract_policies(config), "best")
    for seed in range(2):
        expected = jax.tree.map(lambda x, s=seed: x[s], seen[steps[best[seed]]])
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, s=seed: x[s], kept), expected)
    assert EVALUATION_STREAM != SELECTION_STREAM


def test_evaluations_change_nothing_else(trained, tmp_path):
    out, result, _ = trained
    without = run(config_of(eval_every="none"), tmp_path / "without")
    jax.tree.map(np.testing.assert_array_equal, without.policies, result.policies)
    np.testing.assert_array_equal(without.evaluation_returns, result.evaluation_returns)
    assert without.evaluation_seconds == 0 < result.evaluation_seconds < result.seconds
    assert not (tmp_path / "without" / "best_policies").exists()
    assert not (tmp_path / "without" / "evaluation.png").exists()
    assert (out / "evaluation.png").exists()
    with pytest.raises(ValueError, match="holds no best policies: it was trained without evaluations"):
        load_policies(tmp_path / "without", abstract_policies(without.config), "best")
    with pytest.raises(ValueError, match="has no evaluations during training"):
        curves.read_evaluation_curves(tmp_path / "without")


def test_a_run_is_the_same_in_calls_of_one_logging_interval_and_of_many(trained, tmp_path, monkeypatch):
    out, result, _ = trained
    monkeypatch.setattr(trainers, "_SECONDS", 0.0)
    short = run(result.config, tmp_path / "short")
    jax.tree.map(np.testing.assert_array_equal, short.policies, result.policies)
    assert (tmp_path / "short" / "evaluation.csv").read_bytes() == (out / "evaluation.csv").read_bytes()
    rows, expected = (folder.read_metrics(path) for path in (tmp_path / "short", out))
    for name in rows.keys() - {"wall_seconds"}:
        np.testing.assert_array_equal(rows[name], expected[name])
    assert len(np.unique(expected["wall_seconds"])) < len(np.unique(expected["env_steps"])) / 2


def test_a_call_of_the_program_ends_where_an_evaluation_is_due_or_the_time_is_over():
    preset = Preset(dqn_learner(), None, 1000, 4020)  # of 4 environment steps each, beside the warm-up of 5 iterations
    ends = lambda done, seconds: trainers._ends_of_call(config_of(eval_every=100), preset, range(done + 2, 1001, 2), seconds)
    assert ends(0, np.inf) == range(2, 4, 2), "the first call tells how long an interval takes"
    assert ends(0, 0.5) == range(2, 10, 2)
    assert ends(0, 3.0) == range(2, 4, 2)
    assert ends(0, 1e-3)[-1] == 20  # after 25 iterations
    assert ends(20, 1e-3)[-1] == 46  # after 51: the first interval that ends after 50
    assert ends(996, 1e-3) == range(998, 1002, 2)
    assert len(trainers._ends_of_call(config_of(eval_every="none"), preset, range(2, 1001, 2), 1e-3)) == 64


def test_the_best_policy_is_there_for_programs_and_commands(trained, tmp_path, capsys):
    out, result, _ = trained
    record, kept = folder.read_record(out, "best"), load_policies(out, abstract_policies(result.config), "best")
    best = jaxrl.load_policy(out, which="best")
    assert best.seed == int(np.argmax(record["returns"]))
    obs = jnp.linspace(-1, 1, 4)[None]
    params = jax.tree.map(lambda x: x[best.seed], kept.params)
    agent = result.config.preset().learner.agent
    action, _ = agent.exploit(params, obs, agent.initial_carry(1), jax.random.key(0))
    np.testing.assert_array_equal(best.act(np.asarray(obs)), action)
    with pytest.raises(ValueError, match="which must be one of 'last', 'best'; got 'first'"):
        jaxrl.load_policy(out, which="first")
    assert main(["eval", str(out), "--policy", "best", "--episodes", "2", "--json"]) == 0
    expected = evaluate_policies(result.config, kept, num_episodes=2, seed=0)
    assert str(float(expected[0, 0])) in capsys.readouterr().out
    assert main(["plot", str(out), "--evaluation", "-o", str(tmp_path / "e.png")]) == 0
    assert (tmp_path / "e.png").stat().st_size > 5000
    (curve,) = curves.read_evaluation_curves(out)
    np.testing.assert_allclose(curve.returns, read_evaluations(out).returns)
    assert curve.label == "DQN on CartPole-v1"
