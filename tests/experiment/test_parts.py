"""Runs in parts, by separate commands and by the processes of a job, equal the runs of one process."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxrl import cli, experiment, presets
from jaxrl.experiment import Config, folder
from jaxrl.experiment.config import load_config
from jaxrl.experiment.parts import part_folder
from jaxrl.experiment.policies import abstract_policies
from jaxrl.presets import override
from tests.problems import plain


def config_of(**changes):
    settings = override(
        presets.tuned("a2c", "CartPole-v1", 128) or presets.default_settings("a2c"),
        steps=4 * 8 * 4,
        num_envs=4,
        rollout_length=8,
        network={"hidden": (4,)},
    )
    return Config(**({"env": "CartPole-v1", "settings": settings, "seeds": 3} | changes))


def test_parts_have_every_run_once():
    for config in (config_of(seeds=7), config_of(seeds=1, sweep={"learning_rate": [1e-3, 2e-3, 3e-3, 4e-3, 5e-3]})):
        parts = [config.part(i, 3) for i in (1, 2, 3)]
        name = lambda run: tuple(sorted(run.items()))
        found = sorted(name(run) for part in parts for run in part.identifiers())
        assert found == sorted(name(run) for run in config.identifiers())
        assert max(part.num_runs for part in parts) - min(part.num_runs for part in parts) <= 1


def test_a_part_that_cannot_be_is_an_error():
    with pytest.raises(ValueError, match="cannot be divided into 4 parts: there are 3 seeds and 0 values"):
        config_of().part(1, 4)
    with pytest.raises(ValueError, match="the parts are 1/2 to 2/2; got 3/2"):
        config_of().part(3, 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    experiment.run(config_of(), out)
    return out


def policies_of(out, config):
    return plain(folder.load_policies(out, abstract_policies(config)))


def assert_equal_runs(out, whole):
    config = load_config(out)
    assert config == config_of() == load_config(whole)
    for x, y in zip(*(map(np.asarray, jax.tree.leaves(policies_of(run, config))) for run in (out, whole)), strict=True):
        np.testing.assert_array_equal(x, y)
    joined, alone = folder.read_metrics(out), folder.read_metrics(whole)
    for name in set(alone) - {"wall_seconds"}:
        np.testing.assert_array_equal(joined[name], alone[name], err_msg=name)


@pytest.mark.slow
def test_joined_parts_equal_one_run_to_the_bit(tmp_path, whole):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match="has no parts to join"):
        experiment.merge(out)
    experiment.run(config_of().part(2, 2), part_folder(out, 2, 2))
    with pytest.raises(ValueError, match="not finished are the parts 1/2"):
        experiment.merge(out)
    experiment.run(config_of().part(1, 2), part_folder(out, 1, 2))
    assert experiment.merge(out) == config_of()
    assert_equal_runs(out, whole)
    with pytest.raises(ValueError, match="its parts are joined"):
        experiment.merge(out)


# --- two processes of a job, on one machine


def start(out, num_processes=2, steps=4 * 8 * 4):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = f"train a2c --seeds 3 --steps {steps} --agent.num-envs 4 --agent.rollout-length 8 --agent.hidden 4 --out {out}"
    job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(num_processes), "JAX_PLATFORMS": "cpu"}
    job["JAXRL_CACHE"] = jax.config.jax_compilation_cache_dir
    return [
        subprocess.Popen(
            [sys.executable, "-m", "jaxrl", *words.split(), "--distributed"], env=os.environ | job | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(num_processes)
    ]  # fmt: skip


def test_two_processes_of_a_job_equal_one_process_to_the_bit(tmp_path, whole):
    out = tmp_path / "run"
    processes = start(out)
    printed = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "3 runs joined" in printed[0]
    assert_equal_runs(out, whole)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_within_a_minute(tmp_path):
    processes = start(tmp_path / "run", steps=10**9)
    metrics = [part_folder(tmp_path / "run", i, 2) / folder.METRICS for i in (1, 2)]
    limit = time.monotonic() + 200
    while not all(path.is_file() for path in metrics):
        assert time.monotonic() < limit
        time.sleep(1)
    processes[1].send_signal(signal.SIGKILL)
    processes[1].communicate(timeout=60)  # its child ends with it
    printed = processes[0].communicate(timeout=60)[0]
    assert processes[0].returncode != 0
    assert "another task died" in printed


def test_options_that_do_not_fit_are_errors(capsys):
    for words, message in {
        "--part 1/2": "need --out",
        "--distributed": "need --out",
        "--part 1/2 --distributed --out x": "leave out --part",
        "--part two --out x": "must be two numbers such as 3/8",
    }.items():
        assert cli.main(["train", "a2c", *words.split()]) == 2
        assert message in capsys.readouterr().err
