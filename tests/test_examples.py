"""The examples in scripts/examples."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from jaxrl.cli import _train
from tests.experiment.run_folders import write_run

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


def test_a_study_trains_every_pair_and_says_what_is_more_than_noise(tmp_path, monkeypatch, capsys):
    sweep = load("sweep")

    def train(config, out):
        better = 1_000 * (config.env == "CartPole-v1" and config.settings.algorithm == "ppo")
        means = [100 + 100 * i + better for i in range(3)]
        write_run(
            out, means, spread=1, algorithm=config.settings.algorithm, env=config.env, seeds=config.seeds, sweep=config.sweep
        )

    monkeypatch.setattr(sweep.experiment, "run", train)
    monkeypatch.setattr(sweep, "use_all_cores", lambda: None)
    monkeypatch.setattr(sys, "argv", ["sweep.py", str(tmp_path / "study"), "--seeds", "8", "--steps", "1000"])
    sweep.main()
    names = [f"{algorithm}-{env}" for env in sweep.ENVIRONMENTS for algorithm in sweep.ALGORITHMS]
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == sorted(names)
    printed = capsys.readouterr().out.splitlines()
    assert printed[:4] == [f"{tmp_path / 'study' / name}: training" for name in names]
    rows = [line for line in printed if "[" in line]
    assert len(rows) == 12
    (best,) = [row for row in rows if "ppo-CartPole-v1 (learning_rate=0.003)" in row]
    assert abs(float(best.split()[-3]) - 1_300) < 2
    assert any(line.startswith("On CartPole-v1, ppo-CartPole-v1 (learning_rate=0.003) scores higher") for line in printed)


def test_the_quickstart_has_commands_that_exist(tmp_path):
    """Its commands are written down in place of training."""
    bin = tmp_path / "venv" / "bin"
    bin.mkdir(parents=True)
    (bin / "python").write_text("#!/bin/sh\n")  # which installs nothing
    (bin / "jaxrl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/log\n')
    for program in bin.iterdir():
        program.chmod(0o755)
    env = os.environ | {"JAXRL_VENV": str(bin.parent)}
    done = subprocess.run([EXAMPLES.parent / "quickstart.sh"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *trained, plotted = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    outs = []
    for train, algorithm, *words in trained:
        options = _train._parser(_train._settings(algorithm, words)).parse(words)
        assert (train, options.env, options.seeds) == ("train", "CartPole-v1", 16)
        outs.append(str(options.out))
    assert [algorithm for _, algorithm, *_ in trained] == ["dqn", "reinforce"]
    assert plotted[:3] == ["plot", *outs]
    assert f"eval {outs[0]}" in done.stdout


def test_the_values_of_the_random_walk_are_learned_in_equinox():
    with jax.numpy_dtype_promotion("standard"):  # as in the programs of others
        assert load("equinox_loss").main(500) < 0.1


@pytest.mark.slow
def test_a_policy_plays_in_gymnasium(tmp_path):
    script = [sys.executable, EXAMPLES / "gymnasium_policy.py", tmp_path / "run", "--steps", "20000", "--episodes", "3"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "mean return" in done.stdout
