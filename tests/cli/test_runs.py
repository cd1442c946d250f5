"""`jaxrl runs`: what it says about finished, interrupted, running and damaged folders, without reading whole files."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from jaxrl._src.latest_returns import latest_returns
from jaxrl.cli import _runs, main
from jaxrl.experiment import Config
from jaxrl.experiment.statistics import iqm
from jaxrl.presets import default_settings


def make(run, *, seeds=3, sweep=None, rows=(), finished=True):
    run.mkdir(parents=True)
    Config(env="CartPole-v1", settings=default_settings("dqn"), seeds=seeds, sweep=sweep or {}).save(run / "config.json")
    (run / "metrics.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    if finished:
        (run / "policies").mkdir()
        (run / "curve.png").touch()
    return run


ROWS = [("seed", "env_steps", "episode_return"), *((s, t, 10 * s + t) for t in (1, 2) for s in range(3)), (1, 3, "nan")]


def listed(capsys, *words):
    assert main(["runs", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # no NaN or Infinity, which are not JSON


def test_folders_are_described(tmp_path, capsys):
    make(tmp_path / "group" / "a", rows=ROWS)
    make(tmp_path / "b", rows=[], finished=False)
    (tmp_path / "no run").mkdir()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text("{")
    for i, name in enumerate(["group/a", "b", "c"]):
        for path in (tmp_path / name, *(tmp_path / name).iterdir()):
            os.utime(path, (1000 * i, 1000 * i))
    a, b, c = listed(capsys, tmp_path)
    assert a == {
        "run": str(tmp_path / "group" / "a"), "kind": "run", "algorithm": "dqn", "env": "CartPole-v1", "wrappers": [], "runs": 3,
        "steps": 500_000, "env_steps": 3, "iqm": 12.0, "returns": "training", "state": "finished", "changed": 0.0,
    }  # fmt: skip
    assert (b["state"], b["iqm"], b["env_steps"], b["changed"]) == ("interrupted", None, 0, 1000.0)
    assert (c["state"], c["algorithm"]) == ("damaged", None)
    assert main(["runs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["RUN", "ALGORITHM", "ENVIRONMENT", "RUNS", "STEPS", "IQM", "STATE", "CHANGED"]
    assert printed[1].split()[1:7] == ["dqn", "CartPole-v1", "3", "500,000", "12.00*", "finished"]
    assert len(printed) == 5
    assert (
        len({line.index(word) for line, word in zip(printed, ["STATE", "finished", "interrupted", "damaged"], strict=False)}) == 1
    )


def test_greedy_returns_come_first(tmp_path, capsys):
    run = make(tmp_path / "a", rows=ROWS)
    rows = [(s, t, e, 100 * t + s + e) for t in (1, 2) for s in range(3) for e in range(2)]
    (run / "evaluation.csv").write_text(
        "seed,env_steps,episode,return\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    )
    (described,) = listed(capsys, run)
    assert (described["iqm"], described["returns"], described["env_steps"]) == (201.5, "greedy", 2)


def test_a_folder_in_use_is_running(tmp_path, capsys):
    run = make(tmp_path / "a", finished=False)
    (run / "lock").touch()
    (described,) = listed(capsys, run)
    assert described["state"] == "interrupted"  # the process that made the lock has ended
    code = f"import fcntl, sys; f = open({str(run / 'lock')!r}); fcntl.flock(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (described,) = listed(capsys, run)
        process.stdin.close()
    assert described["state"] == "running"


def test_searches_and_parts_are_recognised(tmp_path, capsys):
    """A search has no learning curve; a run in parts is one run until they are joined, and after that."""
    search = make(tmp_path / "search", finished=False)
    (search / "search.json").write_text("{}")
    (found,) = listed(capsys, tmp_path)
    assert (found["kind"], found["state"]) == ("search", "interrupted")
    (search / "policies").mkdir()
    (search / "search.png").touch()
    parts = [make(tmp_path / "run" / "parts" / f"{i}-of-2", seeds=1, finished=i == 1) for i in (1, 2)]
    for part, steps in zip(parts, (5, 3), strict=True):
        (part / "metrics.csv").write_text(f"seed,env_steps,episode_return\n{steps},{steps},{10 * steps}\n")
    Config(env="CartPole-v1", settings=default_settings("dqn"), seeds=2).save(tmp_path / "run" / "parts" / "whole.json")
    run, found = sorted(listed(capsys, tmp_path), key=lambda row: row["run"])
    assert (found["kind"], found["state"]) == ("search", "finished")
    assert (run["run"], run["kind"], run["runs"]) == (str(tmp_path / "run"), "run", 2)
    assert (run["env_steps"], run["iqm"], run["state"]) == (3, 40.0, "interrupted")
    (parts[1] / "policies").mkdir()
    (parts[1] / "curve.png").touch()
    assert listed(capsys, tmp_path / "run")[0]["state"] == "not joined"
    parts[1].rename(tmp_path / "part")
    assert listed(capsys, tmp_path / "run")[0]["state"] == "interrupted"
    assert main(["runs", str(tmp_path)]) == 0
    assert "dqn (search)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", "abc"), ("steps", [1]), ("steps", float("nan")), ("steps", True), ("algorithm", 5), ("env", None), ("env", [1]),
        ("wrappers", "frame_stack"), ("wrappers", 5), ("wrappers", True), ("wrappers", [[1]]), ("seeds", "abc"), ("seeds", 1.5),
        ("sweep", 3), ("sweep", {"tau": 3}), ("samples", 3),
    ],
)  # fmt: skip
def test_a_wrong_entry_of_a_configuration_is_a_damaged_folder(tmp_path, capsys, name, value):
    """The others are listed all the same."""
    run = make(tmp_path / "a", rows=ROWS)
    config = json.loads((run / "config.json").read_text())
    (config["settings"] if name in config["settings"] else config)[name] = value
    (run / "config.json").write_text(json.dumps(config))
    make(tmp_path / "b", rows=ROWS)
    found = {row["run"][-1]: row for row in listed(capsys, tmp_path)}
    assert (found["a"]["state"], found["a"]["steps"], found["b"]["state"]) == ("damaged", None, "finished")
    assert main(["runs", str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_steps_that_are_not_finite_are_damage(tmp_path, capsys):
    run = make(tmp_path / "a", rows=[*ROWS[:1], (0, "inf", 3)])
    assert [row["state"] for row in listed(capsys, run)] == ["damaged"]


def test_wrong_folders_are_named(tmp_path, capsys):
    assert main(["runs", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"jaxrl: error: {tmp_path / 'nowhere'} is not a folder\n"
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"no run folders in {tmp_path}\n"


@pytest.mark.parametrize("num", [1, 2, 3, 4, 5, 8, 13])
def test_the_iqm_is_that_of_scipy(num):
    values = np.random.default_rng(num).normal(size=num)
    assert _runs._iqm(values.tolist()) == pytest.approx(float(iqm(values)))


@pytest.mark.parametrize("ending", ["", "\n", "3,1", "\n7,9"])
def test_only_whole_rows_count_in_blocks_of_any_size(tmp_path, monkeypatch, ending):
    """A file read backwards gives for every run what reading it forwards gives; a row that is cut off is left out."""
    rng = np.random.default_rng(0)
    returns = np.where(rng.random((40, 5)) < 0.6, np.nan, rng.normal(size=(40, 5)))
    text = "seed,tau,env_steps,episode_return\n" + "\n".join(f"{s},0.5,{t},{returns[t, s]}" for t in range(40) for s in range(5))
    whole = returns if ending.startswith("\n") else np.where(np.arange(200).reshape(40, 5) == 199, np.nan, returns)
    (tmp_path / "metrics.csv").write_text(text + ending)
    known = {(s, 0.5): whole[~np.isnan(whole[:, s]), s][-1] for s in range(5)}
    for block in (1, 7, 100, 10_000):
        monkeypatch.setattr("jaxrl._src.latest_returns._BLOCK", block)
        assert latest_returns(tmp_path, ["seed", "tau"], 5).returns == known
    assert latest_returns(tmp_path, ["seed", "tau"], 5, max_bytes=1).returns == {}


def test_each_run_has_its_own_latest_evaluation(tmp_path):
    """Runs train in batches: the first has finished here, the second was evaluated once."""
    rows = ["seed,env_steps,episode,return"]
    rows += [f"{seed},{steps},{episode},{seed + steps + episode}" for steps in (10, 20) for seed in (0, 1) for episode in (0, 1)]
    rows += [f"{seed},10,{episode},{seed + 10 + episode}" for seed in (2, 3) for episode in (0, 1)]
    (tmp_path / "evaluation.csv").write_text("\n".join(rows) + "\n")
    found = latest_returns(tmp_path, ["seed"], 4)
    assert found == ({(0.0,): 20.5, (1.0,): 21.5, (2.0,): 12.5, (3.0,): 13.5}, 20, True)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "metrics.csv").write_text("seed,env_steps,episode_return\n0,x,1\n")
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged"):
        latest_returns(tmp_path, ["seed"], 1)
    (tmp_path / "metrics.csv").write_text("seed,env_steps\n0,1\n")
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged \(it has no column episode_return\)"):
        latest_returns(tmp_path, ["seed"], 1)


def test_listing_imports_neither_jax_nor_rich(tmp_path):
    code = (
        "import sys; from jaxrl.cli import main; main(['runs', sys.argv[1]]); print({'jax', 'rich', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, make(tmp_path / "a", rows=ROWS)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "set()", done.stderr
