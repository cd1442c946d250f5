"""Processes that are killed at random moments and resumed, until they finish. Each run is compared with an undisturbed one."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

import jaxrl
from jaxrl.experiment import load_policies
from jaxrl.experiment.config import load_config
from jaxrl.experiment.folder import read_record
from jaxrl.experiment.policies import abstract_policies

KILLS = int(os.environ.get("JAXRL_KILLS", "17"))  # of each run
RUNS = {
    "dqn": ["dqn", "--steps", "120000", "--seeds", "2", "--agent.capacity", "100000", "--agent.hidden", "32",
            "--sweep.learning-rate", "1e-3", "1e-2"],
    "ppo": ["ppo", "--steps", "150000", "--seeds", "3", "--agent.hidden", "32", "--batch-size", "2"],
    "sac": ["sac", "--env", "PointMass", "--steps", "6000", "--seeds", "2", "--agent.hidden", "16", "--agent.batch-size", "16"],
}  # fmt: skip


def start(words, cache):
    root = Path(jaxrl.__file__).parents[1]
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    env = os.environ | {"JAXRL_CACHE": str(cache), "PYTHONPATH": str(root), "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "jaxrl", *words]
    return subprocess.Popen(command, env=env, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(words, cache):
    process = start(words, cache)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out


def table(out):
    """The table of greedy returns that a command prints."""
    return [line for line in out.splitlines() if line.startswith("│")]


def contents(run):
    """Metrics without the time, evaluations, and the last and the best policies as jaxrl reads them."""
    with (run / "metrics.csv").open(newline="") as file:
        rows = [{name: value for name, value in row.items() if name != "wall_seconds"} for row in csv.DictReader(file)]
    abstract = abstract_policies(load_config(run))
    policies = [load_policies(run, abstract, which) for which in ("last", "best")]
    evaluations = (run / "evaluation.csv").read_text(), read_record(run, "best")
    return rows, evaluations, [x.tobytes() for x in jax.tree.leaves(policies)]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RUNS))
def test_a_run_that_is_killed_at_random_moments_ends_as_if_it_had_not_been(name, tmp_path):
    cache, run, reference = tmp_path / "cache", tmp_path / "run", tmp_path / "reference"
    beginning = ["train", *RUNS[name], "--out", str(run), "--checkpoint-every", "0.05s"]
    expected = finish(["train", *RUNS[name], "--out", str(reference), "--checkpoint-every", "none"], cache)
    begun = time.perf_counter()  # with compiled programs in the cache, as all that follows
    assert table(finish(beginning, cache)) == table(expected)
    length = time.perf_counter() - begun
    rng, moments, words = random.Random(0), [], ["resume", str(run)]
    while len(moments) < KILLS:
        if (run / "curve.png").exists():  # it has finished: begin another
            shutil.rmtree(run)
            words = beginning
        process = start(words, cache)
        moment = rng.uniform(0, length)
        try:
            out, err = process.communicate(timeout=moment)
            assert process.returncode == 0, err
            assert table(out) == table(expected)
            assert contents(run) == contents(reference)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            files = sorted(str(path.relative_to(run)) for path in run.rglob("*") if len(path.relative_to(run).parts) <= 2)
            moments.append((words[0], round(moment, 1), files))
            if (run / "config.json").exists():
                words = ["resume", str(run), "--checkpoint-every", "0.05s"]
    print(name, f"{length:.1f} s", *moments, sep="\n")
    if not (run / "curve.png").exists():
        assert table(finish(words, cache)) == table(expected)
    assert contents(run) == contents(reference)
    assert {path.name for path in run.iterdir()} == {path.name for path in reference.iterdir()}
