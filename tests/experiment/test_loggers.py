"""Loggers: what they receive, that they never stop or slow training, and that TensorBoard, W&B and MLflow get it once."""

import dataclasses
import importlib.util
import json
import threading
import time
import warnings

import jax
import numpy as np
import pytest

from jaxrl.cli import main
from jaxrl.experiment import Config, Interrupted, Logger, resume, run
from jaxrl.experiment.csv_file import CsvFile
from jaxrl.experiment.evaluations import evaluation_rows
from jaxrl.experiment.loggers import Row, _of_few_runs, _options, loggers_of, make_logger
from jaxrl.experiment.logs import Rows, in_background
from jaxrl.experiment.notes import Note
from jaxrl.experiment.statistics import iqm, iqm_interval
from jaxrl.experiment.trainers import Chunk
from jaxrl.presets import DEFAULTS
from tests.experiment.test_checkpoints import CHUNKS, CONFIG, Killed, killed_at, small  # noqa: F401


def rows_of(*steps):
    return [Row("seed 0", step, step, 0.5, {"loss": 1.0 / step}) for step in steps]


def into(seen):
    return Logger(seen.extend, lambda: seen.append("closed"))


def test_options_have_a_name_each_and_swept_ones_all_values(tmp_path):
    config = Config(env="Chain", settings=DEFAULTS["dqn"], seeds=3, seed=5, sweep={"tau": [0.5, 1.0]}, hparams={"discount": 0.9})
    config.save(tmp_path / "config.json")
    found = _options(tmp_path)
    some = {"algorithm": "dqn", "env": "Chain", "seeds": 3, "seed": 5, "hparams.tau": "0.5 1", "hparams.discount": 0.9}
    assert found.items() >= some.items()
    assert {"agent.num_envs", "agent.batch_size", "hparams.learning_rate"} <= found.keys()
    described = {"env", "settings", "wrappers", "hparams", "sweep", "samples"}  # by other names
    assert {field.name for field in dataclasses.fields(Config)} - described <= found.keys()
    assert not any(isinstance(value, dict | list) for value in found.values())


# --- the rows ---------------------------------------------------------------------------------------


def chunk_of(runs, env_steps, returns, **metrics):
    values = {"episode_return": np.array(returns, np.float32), "episodes": np.float32(np.isfinite(returns))}
    return Chunk(runs, 1, env_steps, None, values | {k: np.array(v, np.float32) for k, v in metrics.items()}, 0)


def test_one_seed_has_no_interval(tmp_path):
    config = Config(env="Chain", settings=DEFAULTS["dqn"], seeds=1)
    seen = Rows(config, tmp_path)(10, 2.5, chunk_of(slice(0, 1), 10, [3.0]), None)
    assert (seen[-1].run, seen[-1].values) == ("IQM", {"episode_return": 3.0})


def test_rows_are_of_each_run_and_of_the_seeds_of_a_setting_together(tmp_path):
    config = Config(env="Chain", settings=DEFAULTS["dqn"], seeds=4, sweep={"tau": [0.5, 1.0]})
    rows = Rows(config, tmp_path)
    returns = [1.0, 2, 3, 10, np.nan, 5, 6, 7]
    seen = rows(80, 2.5, chunk_of(slice(0, 8), 10, returns, loss=[*range(1, 8), np.nan]), None)
    assert [row.run for row in seen] == [f"seed {s} tau {t}" for t in ("0.5", "1") for s in range(4)] + [
        "IQM tau 0.5",
        "IQM tau 1",
    ]
    assert seen[1] == Row("seed 1 tau 0.5", 10, 80, 2.5, {"episode_return": 2.0, "episodes": 1.0, "loss": 2.0})
    assert seen[4].values == {"episodes": 0.0, "loss": 5.0}  # no episode has finished
    low, high = iqm_interval(np.array(returns[:4]))
    assert seen[8].values["episode_return"] == iqm(np.array(returns[:4])) == 2.5
    assert (seen[8].values["episode_return_low"], seen[8].values["episode_return_high"]) == (low, high)
    assert seen[9].values["episode_return"] == 5.5  # without the seed that has no episode and the one that diverged
    later = rows(160, 3.0, chunk_of(slice(0, 8), 20, [np.nan, 2, 3, 10, 4, 5, 6, 7], loss=np.ones(8)), np.arange(8.0))
    assert "episode_return" not in later[0].values
    assert later[8].values["episode_return"] == 2.5  # with the last return that is known
    assert later[9].values["episode_return"] == 5.0  # what diverged stays out
    assert later[3].values["greedy_return"] == 3.0
    assert later[9].values["greedy_return"] == 5.5


def test_an_iqm_waits_for_the_seeds_of_all_batches_and_survives_an_interruption(tmp_path):
    config = Config(env="Chain", settings=DEFAULTS["dqn"], seeds=3)
    first = [chunk_of(slice(0, 2), steps, [1.0, np.nan if steps == 20 else 2.0], loss=[1.0, 1.0]) for steps in (10, 20)]
    rows = Rows(config, tmp_path)
    assert [row.run for chunk in first for row in rows(20, 1.0, chunk, np.ones(2))] == ["seed 0", "seed 1"] * 2
    last = [chunk_of(slice(2, 3), steps, [6.0], loss=[1.0]) for steps in (10, 20)]
    expected = [rows(50, 1.0, chunk, np.ones(1) * 4) for chunk in last]
    assert [row.run for chunk in expected for row in chunk] == ["seed 2", "IQM"] * 2
    assert expected[1][1].values["episode_return"] == iqm(np.array([1.0, 2, 6]))
    assert expected[1][1].values["greedy_return"] == iqm(np.array([1.0, 1, 4]))
    with CsvFile(tmp_path / "metrics.csv") as metrics, CsvFile(tmp_path / "evaluation.csv") as evaluation:
        for chunk in first:
            columns = [{name: values[i] for name, values in chunk.metrics.items()} for i in range(2)]
            metrics.write({"seed": i, "env_steps": chunk.env_steps} | row for i, row in enumerate(columns))
            evaluation.write(evaluation_rows(config, slice(0, 2), chunk.env_steps, np.array([[0.0, 2.0], [1.0, np.nan]])))
    again = Rows(config, tmp_path)
    assert [again(50, 1.0, chunk, np.ones(1) * 4) for chunk in last] == expected


def test_loggers_receive_all_of_a_run(small, tmp_path):  # noqa: F811
    seen, others = [], []
    run(CONFIG, tmp_path / "run", loggers=[into(seen), Logger(lambda rows: others.append(len(rows)), lambda: None)])
    assert seen.pop() == "closed"
    assert others[0] == 0, "the first call is without rows"
    assert len(others) == 1 + CHUNKS
    singles = [row for row in seen if row.run != "IQM"]
    assert [row.run for row in seen if row.run == "IQM"] == ["IQM"] * 4  # of the last of three batches
    assert {row.run for row in singles} == {f"seed {i}" for i in range(5)}
    metrics = (tmp_path / "run" / "metrics.csv").read_text().splitlines()[1:]
    assert [(row.run, str(row.env_steps)) for row in singles] == [
        (f"seed {line.split(',')[0]}", line.split(",")[1]) for line in metrics
    ]
    totals = [row.total_env_steps for row in seen]
    assert totals == sorted(totals)
    assert totals[-1] == CONFIG.num_runs * 8
    assert sum("greedy_return" in row.values for row in singles) == 4 * 5


# --- slow and failing loggers -----------------------------------------------------------------------


def notes_of(do):
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        do()
    assert all(issubclass(note.category, Note) for note in notes)
    return [str(note.message) for note in notes]


def test_a_logger_that_fails_is_one_note_and_is_tried_again():
    seen, calls = [], iter(range(10))

    def log(rows):
        if next(calls) in (1, 2):
            raise ConnectionError("no route to host\nand more")
        seen.extend(rows)

    def work():
        logger = in_background(Logger(log, lambda: None))
        for step in range(1, 6):
            logger.log(rows_of(step))
        logger.close()

    first, second = notes_of(work)
    assert first == "a logger does not take all rows (it raised ConnectionError: no route to host); training goes on"
    assert second == "2 rows did not reach a logger; metrics.csv has all of them"
    assert [row.env_steps for row in seen] == [1, 4, 5]


def test_a_logger_that_is_slow_takes_no_time():
    go = threading.Event()

    def work():
        logger = in_background(Logger(lambda rows: go.wait(30), lambda: None), waiting=3, timeout=0.2)
        begun = time.perf_counter()
        for step in range(1, 41):
            logger.log(rows_of(step))
        assert time.perf_counter() - begun < 0.2
        logger.close()
        assert time.perf_counter() - begun < 10

    try:
        first, second = notes_of(work)
    finally:
        go.set()
    assert "it is too slow" in first
    assert second.startswith(("39 rows", "40 rows"))


def test_a_logger_that_does_not_close_is_left_behind():
    go = threading.Event()
    logger = in_background(Logger(lambda rows: None, lambda: go.wait(30)), timeout=0.1)
    logger.log(rows_of(1))
    try:
        assert "it has not finished 0.1 s after the end of training" in notes_of(logger.close)[0]
    finally:
        go.set()
    broken = in_background(Logger(lambda rows: None, lambda: 1 // 0))
    assert "it raised ZeroDivisionError" in notes_of(broken.close)[0]
    assert notes_of(in_background(into([])).close) == []


def test_a_broken_logger_changes_nothing_in_a_run(small, tmp_path):  # noqa: F811
    def fail(*args):
        raise RuntimeError("down")

    reference = run(CONFIG, tmp_path / "reference")
    results = []
    first, second = notes_of(lambda: results.append(run(CONFIG, tmp_path / "run", loggers=[Logger(fail, fail)])))
    assert "RuntimeError: down" in first
    assert second.startswith("24 rows")
    (result,) = results
    np.testing.assert_array_equal(result.policies.params["w"], reference.policies.params["w"])
    for name in ("evaluation.csv", "config.json"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "reference" / name).read_bytes()


def test_loggers_are_closed_when_a_run_is_interrupted(small, tmp_path):  # noqa: F811
    seen, asked = [], iter([False] * 5)
    with pytest.raises(Interrupted):
        run(CONFIG, tmp_path / "run", loggers=[into(seen)], stop=lambda: next(asked, True))
    assert seen[-1] == "closed"
    rest = []
    resume(tmp_path / "run", loggers=[into(rest)])
    complete = []
    run(CONFIG, tmp_path / "reference", loggers=[into(complete)])
    assert without_time(seen + rest) == without_time(complete)


def without_time(rows):
    """Rows without seconds, and without what no file has before the end: the IQM of the last evaluation of several batches."""
    kept = lambda row, name: row.run != "IQM" or row.env_steps < 8 or "greedy" not in name
    return [
        row._replace(wall_seconds=0.0, values={name: v for name, v in row.values.items() if kept(row, name)})
        for row in rows
        if row != "closed"
    ]


# --- one seed that becomes NaN ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_seed_that_becomes_nan_leaves_the_others_as_they_are(tmp_path, capsys, monkeypatch):
    """Its learning rate is infinite: its loss is NaN, its policy too. The other runs have the bits that they have without it."""
    from jaxrl.presets import override

    settings = override(DEFAULTS["dqn"], steps=400, num_envs=4, network={"hidden": (8,)},
                        agent={"batch_size": 8, "capacity": 64, "warmup_steps": 40})  # fmt: skip
    real = Config.runs

    def with_one_that_diverges(config, preset):
        keys, hparams = real(config, preset)
        rates = np.asarray(hparams.learning_rate).copy()
        rates[1] = 1e30
        return keys, hparams._replace(learning_rate=rates)

    seen = []
    config = Config(env="CartPole-v1", settings=settings, seeds=3)
    reference = run(config, tmp_path / "reference")
    monkeypatch.setattr(Config, "runs", with_one_that_diverges)
    result = run(config, tmp_path / "run", loggers=[into(seen)])
    (diverged,) = result.diverged
    assert diverged.run == {"seed": 1.0}
    assert 40 < diverged.env_steps <= 400
    others = np.array([0, 2])
    for tree, expected in ((result.policies, reference.policies),):
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[others], y[others]), tree, expected)
    np.testing.assert_array_equal(result.evaluation_returns[others], reference.evaluation_returns[others])
    lines = [
        [line for line in (tmp_path / name / "evaluation.csv").read_text().splitlines() if not line.startswith("1,")]
        for name in ("run", "reference")
    ]
    assert lines[0] == lines[1]
    from jaxrl.experiment.terminal import summary

    summary(result, tmp_path / "run")
    assert f"NaN in 1 run: seed 1 since step {diverged.env_steps} (" in capsys.readouterr().out
    final = [row.values for row in seen if row != "closed" and row.run == "IQM"][-1]
    metrics = {row.run: row.values for row in seen if row != "closed" and row.env_steps == 400}
    assert np.isfinite(list(final.values())).all()
    assert "loss" not in metrics["seed 1"]


# --- TensorBoard, W&B, MLflow -----------------------------------------------------------------------


def test_of_many_runs_only_some_have_curves_of_their_own():
    seen = []
    log = _of_few_runs(seen.extend)
    log([Row(f"seed {i}", 1, 1, 0.0, {}) for i in range(100)] + [Row("IQM", 1, 1, 0.0, {})])
    log([Row("seed 5", 2, 2, 0.0, {}), Row("seed 99", 2, 2, 0.0, {})])
    assert [row.run for row in seen] == [f"seed {i}" for i in range(64)] + ["IQM", "seed 5"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_missing_extra_is_named_before_anything_is_written(name, tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    packages = {"tensorboard": "tensorboardX"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == packages.get(name, name) else find(n, *a))
    assert main(["train", "dqn", "--log", name, "--out", str(tmp_path / "run")]) == 2
    assert f"pip install 'jaxrl[{name}]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def log_and_resume(small, name, tmp_path):  # noqa: F811
    """A run that is killed and resumed, with a logger by name, and all rows that it has."""
    out, seen = tmp_path / "run", []
    with pytest.raises(Killed):
        run(CONFIG, out, report=killed_at(7), checkpoint_every=0, loggers=[make_logger(name, out)])
    assert loggers_of(out) == [name]
    (out / "checkpoints" / max(p.name for p in (out / "checkpoints").glob("0*"))).rename(tmp_path / "gone")
    resume(out, loggers=[make_logger(name, out)])  # from a checkpoint before: what came after it is logged again
    run(CONFIG, tmp_path / "reference", loggers=[into(seen)])
    return out, without_time(seen)


@pytest.mark.needs("tensorboardX")
def test_tensorboard_has_each_row_once(small, tmp_path):  # noqa: F811
    from tensorboardX.proto.event_pb2 import Event

    out, rows = log_and_resume(small, "tensorboard", tmp_path)

    def events(path):
        data, at = path.read_bytes(), 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 8], "little")
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length

    found = {}
    for folder in (out / "tensorboard").iterdir():
        for path in sorted(folder.iterdir()):
            for event in events(path):
                if event.HasField("session_log"):  # what TensorBoard does with it
                    found = {key: v for key, v in found.items() if key[0] != folder.name or key[2] < event.step}
                for value in event.summary.value:
                    found.setdefault((folder.name, value.tag, event.step), []).append(value.simple_value)
    expected = {(row.run, name, row.env_steps): [np.float32(v)] for row in rows for name, v in row.values.items()}
    assert found == expected


@pytest.mark.needs("mlflow", "sqlalchemy")
@pytest.mark.filterwarnings("default")  # of its own parts
def test_mlflow_has_each_row_once(small, tmp_path, monkeypatch):  # noqa: F811
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/ml.db")
    out, rows = log_and_resume(small, "mlflow", tmp_path)
    client, name = MlflowClient(), json.loads((out / "logging.json").read_text())["mlflow"]["id"]
    expected = {}
    for row in rows:
        for metric, value in row.values.items():
            expected.setdefault(f"{row.run}/{metric}", []).append((row.env_steps, value))
    found = {key: sorted((m.step, m.value) for m in client.get_metric_history(name, key)) for key in expected}
    assert found == {key: sorted(values) for key, values in expected.items()}
    assert client.get_run(name).data.params.items() >= {"env": "CartPole-v1", "hparams.discount": "0.99"}.items()
    assert client.get_run(name).info.status == "FINISHED"


def records(data):
    """The records of a file in the log format of LevelDB, as W&B writes it: blocks of 32 KiB with records in pieces."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole, or the last piece
            yield record
            record = b""


@pytest.mark.needs("wandb")
def test_wandb_has_each_row_once(small, tmp_path, monkeypatch):  # noqa: F811
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    out, rows = log_and_resume(small, "wandb", tmp_path)
    found = {}
    paths = sorted((out / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({path.name for path in paths}) == 1, "one run for W&B"
    for path in paths:
        for data in records(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(data)
            values = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            found.setdefault(values.get("_step"), values)  # W&B keeps the first of a step
    for row in rows:
        for name, value in row.values.items():
            assert found[row.total_env_steps][f"{row.run}/{name}"] == pytest.approx(value)
        assert found[row.total_env_steps]["env_steps"] == row.env_steps
