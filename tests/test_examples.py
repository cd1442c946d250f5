"""The examples in scripts/examples."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

EXAMPLES = Path(__file__).parent.parent / "scripts" / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_job_of_the_cluster_trains_its_part_and_queues_itself_again(tmp_path):
    for name, body in {"jaxrl": 'echo "$@"; exit "${CODE:-0}"', "srun": '"$@"', "scontrol": 'echo scontrol "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)

    def submit(**env):
        job = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "5", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "4"}
        env = os.environ | job | env | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        command = ["bash", EXAMPLES / "train.sbatch", tmp_path / "run"]
        return subprocess.run(command, env=env, capture_output=True, text=True)

    started = submit()
    assert started.returncode == 0
    assert f"--part 2/4 --out {tmp_path / 'run'}" in started.stdout
    ended = submit(CODE="143")
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (143, "scontrol requeue 5_2")
    assert "scontrol" not in submit(CODE="2").stdout


def test_the_sweep_trains_resumes_and_skips(tmp_path, monkeypatch, capsys):
    sweep = load("sweep")
    calls = []
    monkeypatch.setattr(sweep.experiment, "run", lambda config, out: calls.append((config.settings.steps, config.sweep)))
    monkeypatch.setattr(sweep.experiment, "resume", lambda out: calls.append(out))
    sweep.train(tmp_path / "new", "dqn", "CartPole-v1", seeds=2, steps=1_000)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.json").touch()
    sweep.train(tmp_path / "half", "dqn", "CartPole-v1", seeds=2, steps=None)
    monkeypatch.setattr(sweep.folder, "is_finished", lambda out: True)
    sweep.train(tmp_path / "half", "dqn", "CartPole-v1", seeds=2, steps=None)
    assert calls == [(1_000, {"learning_rate": sweep.LEARNING_RATES}), tmp_path / "half"]


def test_the_values_of_the_random_walk_are_learned_in_equinox():
    with jax.numpy_dtype_promotion("standard"):  # as in the programs of others
        assert load("equinox_loss").main(500) < 0.1


@pytest.mark.slow
def test_a_policy_plays_in_gymnasium(tmp_path):
    script = [sys.executable, EXAMPLES / "gymnasium_policy.py", tmp_path / "run", "--steps", "20000", "--episodes", "3"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "mean return" in done.stdout
