"""Run folders: what is written, read back, and refused."""

import dataclasses
import errno
import inspect
import json
import os
import shutil

import jax
import numpy as np
import pytest
from scipy import stats

import jaxrl
from jaxrl._src import device_memory as memory
from jaxrl.agents import DQNHParams as HParams
from jaxrl.envs import wrappers
from jaxrl.experiment import (
    Config,
    evaluate_policies,
    folder,
    load_policies,
    locks,
    merge,
    run,
    storage,
    terminal,
    training,
    wrapping,
)
from jaxrl.experiment.curves import fill_forward, plot, read_curves
from jaxrl.experiment.evaluations import final_returns
from jaxrl.experiment.policies import abstract_policies, greedy_evaluation
from jaxrl.experiment.statistics import iqm, iqm_interval
from jaxrl.experiment.system import read_system, write_system
from jaxrl.experiment.training import Progress
from jaxrl.presets import DEFAULTS, override
from jaxrl.types import Environment

SETTINGS = override(
    DEFAULTS["dqn"],
    steps=240,
    num_envs=4,
    network={"hidden": (8,)},
    agent={"batch_size": 8, "capacity": 64, "warmup_steps": 40, "updates_per_iteration": 1},
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    config = Config(env="CartPole-v1", settings=SETTINGS, seeds=2, seed=5, sweep={"learning_rate": [1e-3, 1e-2]}, batch_size=3)
    reports = []
    result = run(config, out, report=reports.append)
    return config, out, result, reports


def test_the_folder_holds_arrays_text_and_a_picture(finished):
    _, out, _, _ = finished
    files = {"config.json", "metrics.csv", "evaluation.csv", "system.json", "curve.png", "evaluation.png"}
    files |= {"policies", "best_policies"}
    assert {path.name for path in out.iterdir()} == files
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    for path in out.rglob("*"):
        assert path.suffix not in (".pkl", ".pickle")
        if path.is_file():
            assert not path.read_bytes().startswith(b"\x80\x04"), f"{path} is a pickle"


def test_metrics_have_a_row_for_every_seed_setting_and_chunk(finished):
    config, out, result, _ = finished
    columns = folder.read_metrics(out)
    assert {"seed", "learning_rate", "env_steps", "wall_seconds", "episode_return", "loss"} <= set(columns)
    chunks = len(np.unique(columns["env_steps"]))
    assert len(columns["seed"]) == chunks * config.num_runs
    assert set(columns["seed"]) == {5, 6}
    assert columns["env_steps"].max() == result.env_steps == 240


def test_progress_is_reported_from_nothing_to_all(finished):
    config, _, result, reports = finished
    assert reports[0].env_steps == 0
    done = [report.env_steps for report in reports]
    assert done == sorted(done)
    assert done[-1] == reports[-1].total_env_steps == result.env_steps * config.num_runs


def test_the_configuration_comes_back(finished):
    config, out, _, _ = finished
    assert Config.load(out / "config.json") == config
    json.loads((out / "config.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_saved_policies_play_as_the_trained_ones(finished):
    config, out, result, _ = finished
    params = load_policies(out, abstract_policies(config))
    for saved, trained in zip(jax.tree.leaves(params), jax.tree.leaves(result.policies), strict=True):
        np.testing.assert_array_equal(saved, trained)
    first = evaluate_policies(config, params, num_episodes=3, seed=1)
    assert first.shape == (4, 3)
    np.testing.assert_array_equal(first, evaluate_policies(config, params, num_episodes=3, seed=1))


def test_saved_policies_are_played_where_their_returns_are_missing(finished, tmp_path):
    _, out, result, _ = finished
    kept = final_returns(out)
    assert (kept.source, kept.env_steps) == ("evaluation.csv", result.env_steps)
    np.testing.assert_allclose(kept.values, result.evaluation_returns.mean(axis=1), rtol=1e-6)
    shutil.copytree(out, tmp_path / "old")
    (tmp_path / "old" / "evaluation.csv").unlink()
    played = final_returns(tmp_path / "old")
    assert "32 episodes of each saved policy, played now" in played.source
    np.testing.assert_allclose(played.values, kept.values, rtol=1e-6)
    assert read_system(out)["jax"] == jax.__version__


def test_batches_of_runs_and_all_at_once_train_the_same_policies(finished, tmp_path):
    config, _, result, _ = finished
    whole = run(dataclasses.replace(config, batch_size=None), tmp_path / "whole")
    for x, y in zip(jax.tree.leaves(result.policies), jax.tree.leaves(whole.policies), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_a_reinforce_configuration_comes_back(tmp_path):
    schedules = {"learning_rate_fraction": float("inf")}
    settings = override(DEFAULTS["reinforce"], network={"hidden": ()}, schedules=schedules)
    config = Config(env="PointMass", settings=settings, wrappers=("time_aware",), hparams={"max_grad_norm": float("inf")})
    config.save(tmp_path / "config.json")
    assert Config.load(tmp_path / "config.json") == config


OLD = '{"jaxrl": "0.1.0", "algorithm": "dqn", "env": "CartPole-v1", "settings": {"steps": 500, "hidden": [8]}}'
OTHER = '{"jaxrl": "0.1.0", "env": "CartPole-v1", "wrappers": [], "settings": {"algorithm": "trpo"}}'


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", OLD, OTHER])
def test_a_file_that_is_not_a_configuration_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is not a configuration that this version of jaxrl can read"):
        Config.load(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"hparams": {"lr": 1.0}}, "dqn has no hyperparameter 'lr'; it has learning_rate"),
        ({"sweep": {"tau": [1.0]}, "hparams": {"tau": 0.5}}, "tau is both swept and set"),
    ],
)
def test_a_wrong_configuration_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Config(**{"env": "CartPole-v1", "settings": SETTINGS} | changes)


def test_every_wrapper_that_takes_numbers_can_be_written():
    """The others take arrays, functions or parameters."""
    functions = {name for name in wrappers.__all__ if inspect.isfunction(getattr(wrappers, name))}
    first = {name: next(iter(inspect.signature(getattr(wrappers, name)).parameters.values())) for name in functions}
    applied = {name for name, parameter in first.items() if parameter.annotation is Environment}
    assert applied - set(wrapping.NAMES) == {"drift_params", "over_levels", "over_params", "randomize_params"}
    assert set(wrapping.NAMES) <= applied


def test_wrappers_are_applied_in_order():
    env = jaxrl.make("CartPole-v1")
    assert wrapping.wrap(env, ["time_aware", "frame_stack:2"]).observation_space.shape == (2 * (4 + 1),)
    assert wrapping.wrap(env, ["frame_stack:2", "time_aware"]).observation_space.shape == (2 * 4 + 1,)
    assert wrapping.parse("normalize_rewards:0.9,5") == ("normalize_rewards", {"discount": 0.9, "clip": 5})
    assert wrapping.parse("sticky_actions") == ("sticky_actions", {})


def test_wrappers_around_an_environment_on_the_host_are_refused_before_training(tmp_path):
    config = Config(env="gymnasium/CartPole-v1", settings=SETTINGS, wrappers=("scale_rewards:2",))
    with pytest.raises(ValueError, match="wrappers have no effect on gymnasium/CartPole-v1, which runs on the host"):
        run(config, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_lines_are_printed_at_intervals(capsys):
    report = terminal._lines("a run")
    for steps, seconds, mean in (
        (0, 0.0, np.nan),
        (10, 1.0, np.nan),
        (20, 2.0, 3.0),
        (30, 11.0, 4.0),
        (40, 12.0, 5.0),
        (100, 13.0, 6.0),
    ):
        report(Progress(steps, 100, seconds, mean))
    assert capsys.readouterr().out.split("\n") == [
        "a run: 0% compiling, return –",
        "a run: 10% 10 steps/s, return –",
        "a run: 30% 3 steps/s, return 4.0",
        "a run: 100% 8 steps/s, return 6.0",
        "",
    ]


def test_a_wrong_value_in_a_sweep_is_found_before_anything_runs(tmp_path):
    config = Config(env="CartPole-v1", settings=SETTINGS, sweep={"discount": [0.9, 1.5]})
    with pytest.raises(ValueError, match=r"hparams\.discount must lie in \[0, 1\], got 1.5"):
        run(config, tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_more_runs_than_fit_are_trained_in_batches(finished, tmp_path, monkeypatch):
    """Four runs where the program of four needs more than is free: batches of two, and the same policies.

    They are also evaluated two at a time, with the bits of an evaluation of all.
    """
    config, _, result, _ = finished
    sizes, evaluated = [], set()

    def record(learner, num_episodes):
        play = greedy_evaluation(learner, num_episodes)
        return lambda keys, policies: evaluated.add(len(keys)) or play(keys, policies)

    def take(compiled):
        sizes.append(jax.tree.leaves(compiled.out_info)[-1].shape[0])
        return 10 * sizes[-1]

    monkeypatch.setattr(memory, "memory_of", take)
    monkeypatch.setattr(memory, "free_memory", lambda devices: 30)
    monkeypatch.setattr(training, "greedy_evaluation", record)
    config = dataclasses.replace(config, batch_size=None)
    batches = run(config, tmp_path / "batches")
    assert sizes == [4, 2]
    assert evaluated == {2}
    whole = evaluate_policies(config, batches.policies, num_episodes=32)
    np.testing.assert_array_equal(batches.evaluation_returns, whole)
    for x, y in zip(jax.tree.leaves(result.policies), jax.tree.leaves(batches.policies), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_fewer_devices_are_used_where_not_one_run_fits_on_each(finished, tmp_path, monkeypatch):
    """They share one memory: what is too little for a run on both is enough for batches of two on one of them."""
    config, _, result, _ = finished
    used = []

    def take(compiled):
        used.append((len(jax.tree.leaves(compiled.input_shardings)[0].device_set), compiled.out_info[0].key.shape[0]))
        return 10 * used[-1][1]

    monkeypatch.setattr(memory, "memory_of", take)
    monkeypatch.setattr(memory, "free_memory", lambda devices: 24 // len(devices))
    alone = run(dataclasses.replace(config, batch_size=None), tmp_path / "alone")
    assert used == [(2, 4), (2, 2), (1, 4), (1, 2)]
    for x, y in zip(jax.tree.leaves(result.policies), jax.tree.leaves(alone.policies), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_a_run_that_does_not_fit_at_all_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda devices: 1000)
    with pytest.raises(ValueError, match=r"not even one at a time fits: it takes .* KiB on each device"):
        run(Config(env="CartPole-v1", settings=SETTINGS, seeds=1), tmp_path / "a")
    assert not any((tmp_path / "a").iterdir())


def test_a_full_or_unwritable_folder_is_refused(tmp_path):
    save = Config(env="CartPole-v1", settings=SETTINGS).save
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path, "exists and is not an empty folder"),
        (tmp_path / "file", "exists and is not an empty folder"),
        (tmp_path / "file" / "below", "cannot write to"),
    ):
        with pytest.raises(ValueError, match=message), folder.created(path, save):
            pass


def test_commands_in_messages_can_be_pasted(tmp_path):
    (out := tmp_path / "my run").mkdir()
    with pytest.raises(ValueError, match=f"continue with `jaxrl resume '{out}'`"):
        load_policies(out, ())
    with pytest.raises(ValueError, match=f"`jaxrl train ALGORITHM --part 1/2 --out '{out}'` trains one"):
        merge(out)


def test_a_disk_that_is_full_at_the_start_leaves_an_empty_folder(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save = Config(env="CartPole-v1", settings=SETTINGS).save
    monkeypatch.setattr(json, "dumps", full)  # after the file is opened
    with (
        pytest.raises(ValueError, match=r"cannot write to .* \(No space left on device\)"),
        folder.created(tmp_path / "run", save),
    ):
        pass
    assert not any((tmp_path / "run").iterdir())
    monkeypatch.undo()
    monkeypatch.setattr(locks.platform, "node", full)  # of the lock
    with pytest.raises(ValueError, match="No space left on device"), folder.created(tmp_path / "run", save):
        pass
    assert not any((tmp_path / "run").iterdir())


def test_a_disk_that_is_full_at_the_end_names_the_file(tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage.os, "fsync", full)
    with pytest.raises(ValueError, match=r"cannot write .*system\.json \(No space left on device\)"):
        write_system(tmp_path)
    assert not any(tmp_path.iterdir())


def test_one_of_two_runs_gets_a_folder(tmp_path, monkeypatch):
    """Also where both have seen that it is empty before either wrote to it."""
    monkeypatch.setattr(folder, "check_unused", lambda path: None)
    config = Config(env="CartPole-v1", settings=SETTINGS)
    other = dataclasses.replace(config, seeds=3)
    with (
        folder.created(tmp_path / "run", config.save),
        pytest.raises(ValueError, match="is in use by process"),
        folder.created(tmp_path / "run", other.save),
    ):
        pass
    with pytest.raises(ValueError, match="is in use by another run"), folder.created(tmp_path / "run", other.save):
        pass
    assert Config.load(tmp_path / "run" / "config.json") == config


def test_the_folder_is_reserved_before_compilation(tmp_path):
    config = Config(env="CartPole-v1", settings=SETTINGS)
    out = tmp_path / "run"

    def stop(progress):
        assert progress.env_steps == 0
        with pytest.raises(ValueError, match="exists and is not an empty folder"):
            folder.check_unused(out)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, out, report=stop)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"it has no metrics\.csv"):
        folder.read_metrics(tmp_path)
    (tmp_path / "metrics.csv").touch()
    with pytest.raises(ValueError, match="holds no rows yet"):
        folder.read_metrics(tmp_path)
    with pytest.raises(ValueError, match="holds no policies"):
        load_policies(tmp_path, ())


def test_curves_have_one_line_for_each_setting(finished, tmp_path):
    config, out, _, _ = finished
    curves = read_curves(out)
    assert [curve.label for curve in curves] == [f"DQN on CartPole-v1, learning_rate={rate:g}" for rate in (1e-3, 1e-2)]
    assert all(curve.returns.shape[1] == config.seeds for curve in curves)
    plot(curves, tmp_path / "both.png")
    assert (tmp_path / "both.png").stat().st_size > 5_000


def test_a_row_without_episodes_keeps_the_last_known_return():
    nan = np.nan
    returns = np.array([[nan, 1.0], [2.0, nan], [nan, nan], [3.0, 4.0]])
    np.testing.assert_array_equal(fill_forward(returns), [[nan, 1], [2, 1], [2, 1], [3, 4]])


def test_iqm_is_scipys_trimmed_mean_and_its_interval_covers():
    values = np.random.default_rng(0).normal(size=(3, 32))
    np.testing.assert_allclose(iqm(values), [stats.trim_mean(v, 0.25) for v in values])
    assert iqm(np.array([0.0, 1.0, 3.0, 100.0])) == 2.0
    low, high = iqm_interval(values)
    assert (low < iqm(values)).all()
    assert (iqm(values) < high).all()


def test_a_95_percent_interval_holds_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        low, high = iqm_interval(rng.normal(size=32), resamples=300)
        covered += low <= 0.0 <= high
    assert 172 <= covered <= 200  # 190 expected; a percentile bootstrap of 32 covers a little less, 172 is 6 deviations off


def test_settings_of_dqn_reach_the_agent():
    preset = Config(env="CartPole-v1", settings=SETTINGS, hparams={"epsilon_end": 0.5}).preset()
    assert preset.hparams == HParams(
        learning_rate=SETTINGS.hparams["learning_rate"],
        learning_rate_iterations=50.0,
        tau=SETTINGS.hparams["tau"],
        epsilon_end=0.5,
        epsilon_iterations=0.3 * 60,
        importance_exponent_iterations=60.0,
    )
