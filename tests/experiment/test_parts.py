"""Runs in parts, by separate commands and by the processes of a job, equal the runs of one process."""

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrl import cli, experiment, presets
from jaxrl.cli import _distributed
from jaxrl.experiment import Config, folder, hosts, parts
from jaxrl.experiment.config import load_config
from jaxrl.experiment.parts import part_folder
from jaxrl.experiment.policies import abstract_policies
from jaxrl.presets import override
from tests.experiment.run_folders import write_run
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
        divided = [config.part(i, 3) for i in (1, 2, 3)]
        name = lambda run: tuple(sorted(run.items()))
        found = sorted(name(run) for part in divided for run in part.identifiers())
        assert found == sorted(name(run) for run in config.identifiers())
        assert max(part.num_runs for part in divided) - min(part.num_runs for part in divided) <= 1


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
    assert config == load_config(whole)
    for x, y in zip(*(map(np.asarray, jax.tree.leaves(policies_of(run, config))) for run in (out, whole)), strict=True):
        np.testing.assert_array_equal(x, y)
    joined, alone = folder.read_metrics(out), folder.read_metrics(whole)
    for name in set(alone) - {"wall_seconds"}:
        np.testing.assert_array_equal(joined[name], alone[name], err_msg=name)
    assert (out / "evaluation.csv").read_bytes() == (whole / "evaluation.csv").read_bytes()
    assert folder.read_record(out) == folder.read_record(whole)
    assert {path.name for path in whole.iterdir()} <= {path.name for path in out.iterdir()}
    assert folder.is_finished(out)
    systems = [json.loads((run / "system.json").read_text()) for run in (out, whole)]
    assert systems[0].pop("parts").endswith("each trained by a process of its own")
    assert systems[0]["jax"] == systems[1]["jax"]


def interrupted(config, out, chunks=2):
    """A run folder with a checkpoint."""
    asked = iter([False] * chunks)
    with pytest.raises(experiment.Interrupted):
        experiment.run(config, out, stop=lambda: next(asked, True))


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


def test_parts_of_other_runs_are_refused(tmp_path):
    out = tmp_path / "run"
    assert parts.begin(out, config_of(), 2) == 2
    assert parts.begin(out, config_of(seeds=4), 3) == 3, "no part has begun"
    part = part_folder(out, 1, 3)
    part.mkdir()
    config_of(seeds=4).part(1, 3).save(part / folder.CONFIG)
    assert parts.begin(out, config_of(seeds=4), 2) == 3, "the division stays"
    assert parts.whole_config(out) == config_of(seeds=4)
    with pytest.raises(ValueError, match=r"holds parts of other runs: seeds was 4 and is 3\. Choose another folder"):
        parts.begin(out, config_of(), 2)
    with pytest.raises(ValueError, match=r"has parts that are not joined: `jaxrl resume .*` finishes and joins them"):
        load_config(out)
    config_of().save(out / folder.CONFIG)
    assert parts.whole_config(out) is None
    with pytest.raises(ValueError, match=r"has a config\.json already"):
        parts.begin(out, config_of(seeds=4), 2)


@pytest.fixture
def two_parts(tmp_path):
    """The folders and configurations of two parts, of two seeds and of one, and the configuration of all."""
    paths = [tmp_path / "1-of-2", tmp_path / "2-of-2"]
    configs = [write_run(paths[0], [5.0], seeds=2), write_run(paths[1], [6.0], seeds=1, seed=2)]
    return paths, configs, dataclasses.replace(configs[0], seeds=3)


@pytest.mark.parametrize("file", [folder.METRICS, "evaluation.csv"])
@pytest.mark.parametrize("damaged", [0, 1])
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (None, "it is not there"),
        (lambda text: b"", "the same rows for each run"),
        (lambda text: text[:15], "the same rows for each run|other columns"),
        (lambda text: text[: text.index(b"\n") + 1], "the same rows for each run"),
        (lambda text: text[: text.index(b"\n") + 12], "line 2 is not whole|line 2 has no run or time"),
        (lambda text: text[:-1], r"line \d+ is not whole"),
        (lambda text: text[:-20], r"line \d+ is not whole"),
        (lambda text: b"".join(text.splitlines(keepends=True)[:-1]), "the same rows|lacks rows at"),
        (lambda text: b"".join(text.splitlines(keepends=True)[:-3]), "the same rows|lacks rows at"),
        (lambda text: b'{"a": [1, null]}\n', "the same rows for each run|other columns"),
        (lambda text: text.replace(b"env_steps", b"env_steqs"), "line 2 has no run or time"),
        (
            lambda text: text + text.splitlines(keepends=True)[-1].replace(b",2000,", b",2500,"),
            "the same rows|lacks rows at 2,500",
        ),
    ],
)
def test_a_damaged_table_of_a_part_is_named(two_parts, tmp_path, file, damaged, damage, why):
    paths, configs, whole = two_parts
    tables = [path / file for path in paths]
    parts._join_table(tmp_path / "joined.csv", tables, configs, whole)
    rows = [tables[0].read_bytes().splitlines(), tables[1].read_bytes().splitlines()[1:]]
    assert sorted((tmp_path / "joined.csv").read_bytes().splitlines()) == sorted(rows[0] + rows[1])
    if damage is None:
        tables[damaged].unlink()
    else:
        tables[damaged].write_bytes(damage(tables[damaged].read_bytes()))
    with pytest.raises(ValueError, match=why) as raised:
        parts._join_table(tmp_path / "joined.csv", tables, configs, whole)
    assert str(raised.value).count(".csv") in (1, 2)


@pytest.mark.parametrize("missing", [0, 1])
def test_policies_that_one_part_lacks_are_an_error(two_parts, tmp_path, missing):
    paths, configs, whole = two_parts
    for path, config in zip(paths, configs, strict=True):
        if path != paths[missing]:
            policies = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), abstract_policies(config))
            folder.save_policies(path, policies, name=folder.BEST_POLICIES)
    with pytest.raises(ValueError, match=rf"{paths[missing].name}/best_policies is damaged \(there is no"):
        parts._join_policies(tmp_path, paths, configs, whole, {})


def test_a_disk_that_is_full_when_parts_are_joined_is_one_line(tmp_path, monkeypatch):
    out = tmp_path / "run"
    assert parts.begin(out, config_of(), 2) == 2
    for i in (1, 2):
        path = part_folder(out, i, 2)
        (path / folder.POLICIES).mkdir(parents=True)
        (path / folder.CURVE).touch()
        config_of().part(i, 2).save(path / folder.CONFIG)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parts, "_join_table", full)
    with pytest.raises(ValueError, match=r"cannot join the parts in .*: make room and call `jaxrl merge .*` again") as raised:
        experiment.merge(out)
    assert "No space left" in str(raised.value)
    assert not (out / folder.CONFIG).exists()


def test_processes_that_begin_together_agree_on_the_whole(tmp_path, monkeypatch):
    """Each writes a file of its own first, so none can move or read half of another's."""
    out, save = tmp_path / "run", Config.save
    seen = []

    def save_twice(config, path):
        seen.append(path)
        if len(seen) == 1:
            assert parts.begin(out, config_of(), 2) == 2
        save(config, path)

    monkeypatch.setattr(Config, "save", save_twice)
    assert parts.begin(out, config_of(), 2) == 2
    assert len(set(seen)) == 2
    assert parts.whole_config(out) == config_of()


def test_systems_are_joined():
    systems = [{"devices": "1 × A", "jax": "1"}, {"devices": "2 × B", "jax": "1"}, {"devices": "1 × A", "jax": "1"}]
    joined = {"devices": "1 × A; 2 × B", "jax": "1", "parts": "3, each trained by a process of its own"}
    assert parts._join_systems(systems) == joined


def test_the_chips_of_a_host_are_no_pod(monkeypatch):
    monkeypatch.delenv("TPU_CHIPS_PER_PROCESS_BOUNDS", raising=False)
    assert _distributed.tpu_variables(0) == {}
    four = _distributed.tpu_variables(4)
    assert (four["TPU_PROCESS_BOUNDS"], four["TPU_CHIPS_PER_PROCESS_BOUNDS"]) == ("1,1,1", "2,2,1")
    assert four["TPU_VISIBLE_CHIPS"] == "0,1,2,3"
    monkeypatch.setenv("TPU_CHIPS_PER_PROCESS_BOUNDS", "1,4,1")
    assert _distributed.tpu_variables(4)["TPU_CHIPS_PER_PROCESS_BOUNDS"] == "1,4,1"


@pytest.mark.parametrize("code", [0, 137])
def test_processes_meet_only_when_all_parts_are_trained(tmp_path, monkeypatch, capsys, code):
    """The meeting of JAX has a time limit, which a part that takes longer than the others must not meet."""
    out, met = tmp_path / "run", []

    def finish_part(index):
        path = part_folder(out, index, 2)
        (path / folder.POLICIES).mkdir(parents=True)
        (path / folder.CURVE).touch()
        config_of().part(index, 2).save(path / folder.CONFIG)

    def train(words, variables):
        if words[0] == "train":
            assert words == ["train", "a2c", "-q", "--out", str(out), "--part", "1/2"]
            finish_part(1)
            threading.Timer(0.3, finish_part, [2]).start()
        else:
            assert words == ["merge", str(out), "-q"]
            return code
        return 0

    monkeypatch.setattr(hosts, "initialize", lambda: (0, 2))
    monkeypatch.setattr(hosts, "from_first", lambda what, number: number)
    monkeypatch.setattr(hosts, "wait_for_all", lambda what: met.append(folder.is_finished(part_folder(out, 2, 2))))
    monkeypatch.setattr(_distributed, "_run_child", train)
    monkeypatch.setattr(_distributed, "_BETWEEN_LOOKS", 0.05)
    monkeypatch.setenv(_distributed._CONNECTED, "1")
    with jax_settings("jax_platforms", "jax_enable_preemption_service"):
        assert _distributed.train_parts("train", config_of(), out, ["a2c", "-q", "--distributed", "--out", str(out)]) == code
    assert met == [True]
    assert ("the parts are not joined: `jaxrl merge" in capsys.readouterr().err) == (code > 0)


SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES")


@pytest.mark.parametrize(
    ("variables", "given", "expected"),
    [
        ({}, None, []),
        ({}, [1, 2], [1, 2]),
        (dict.fromkeys(SLURM, "4"), None, []),
        (dict(zip(SLURM, "84", strict=True)), None, None),
        (dict.fromkeys(SLURM, "4") | {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, None, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, None, []),
        ({"JAX_LOCAL_DEVICE_IDS": "2"}, None, None),
        ({"JAX_LOCAL_DEVICE_IDS": "2"}, [1], [1]),
    ],
)
def test_a_process_that_is_alone_on_its_host_uses_all_devices(monkeypatch, variables, given, expected):
    """JAX takes an empty list for all, and None for those in the environment, or for one device under SLURM and Open MPI."""
    passed = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: passed.append(options["local_device_ids"]))
    for name in (*SLURM, "OMPI_COMM_WORLD_LOCAL_SIZE", "JAX_LOCAL_DEVICE_IDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hosts.initialize(local_device_ids=given) == (0, 1)
    assert passed == [expected]


class Service:
    """The service that connects the processes of a job, without any process."""

    def __init__(self):
        self.values, self.met = {}, []

    def key_value_set(self, key, value):
        self.values[key] = value

    def blocking_key_value_get(self, key, milliseconds):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: no value\nand more")
        return self.values[key]

    def wait_at_barrier(self, name, milliseconds):
        self.met.append(name)


def test_processes_talk_through_the_service_that_connects_them(monkeypatch):
    """Without collectives, for which the names of the hosts would have to lead to their addresses."""
    service = Service()
    monkeypatch.setattr(hosts.distributed.global_state, "client", service)
    assert hosts.from_first("number of parts", 3) == 3
    monkeypatch.setattr(hosts.distributed.global_state, "process_id", 1)
    assert hosts.from_first("number of parts", 0) == 3
    hosts.wait_for_all("all parts are trained")
    assert service.met == ["jaxrl/all parts are trained"]
    with pytest.raises(ValueError, match=r"waited for the other processes \(runs\), .*: DEADLINE_EXCEEDED: no value$"):
        hosts.from_first("runs", 0)


@contextlib.contextmanager
def jax_settings(*names):
    """Put these settings back at the end."""
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


# --- processes of a job, on one machine


CONTAINER = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def start(words, num_processes=2, prefix=()):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(num_processes), "JAX_PLATFORMS": "cpu"}
    job |= {"JAXRL_CACHE": jax.config.jax_compilation_cache_dir, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    return [
        subprocess.Popen(
            [*prefix, sys.executable, "-m", "jaxrl", *map(str, words), "--distributed"],
            env=os.environ | job | {"JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(num_processes)
    ]  # fmt: skip


def outputs(processes):
    """What the processes print, after their end."""
    return [process.communicate(timeout=300)[0] for process in processes]


def finish(words, num_processes=2):
    processes = start(words, num_processes)
    printed = outputs(processes)
    assert [process.returncode for process in processes] == [0] * num_processes, printed
    return printed


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "config.json"
    config_of().save(path)
    return path


def test_two_processes_of_a_job_equal_one_process_to_the_bit(tmp_path, whole, file):
    out = tmp_path / "run"
    assert "3 runs joined" in finish(["train", "--config", file, "--out", out])[0]
    assert_equal_runs(out, whole)


@pytest.mark.slow
def test_three_processes_continue_what_two_have_begun(tmp_path, whole):
    """By `jaxrl resume`: a part with a checkpoint goes on, one that is finished is kept, and a process may have none."""
    out = tmp_path / "run"
    parts.begin(out, config_of(), 2)
    experiment.run(config_of().part(1, 2), part_folder(out, 1, 2))
    interrupted(config_of().part(2, 2), part_folder(out, 2, 2))
    before = (part_folder(out, 1, 2) / folder.METRICS).stat().st_mtime_ns
    printed = finish(["resume", out], 3)
    assert "3 runs joined" in printed[0]
    assert "compiling" in printed[1]
    assert not any("compiling" in printed[i] for i in (0, 2))
    assert_equal_runs(out, whole)
    assert (part_folder(out, 1, 2) / folder.METRICS).stat().st_mtime_ns == before


@pytest.mark.slow
def test_one_process_without_a_job_finishes_what_a_job_has_begun(tmp_path, whole, capsys):
    out = tmp_path / "run"
    parts.begin(out, config_of(), 3)
    interrupted(config_of().part(2, 3), part_folder(out, 2, 3))
    assert cli.main(["merge", str(out)]) == 2
    assert "not finished are the parts 1/3, 2/3, 3/3; `jaxrl resume" in capsys.readouterr().err
    assert cli.main(["resume", str(out), "--part", "2/3"]) == 0
    assert cli.main(["resume", str(out), "--part", "1/2"]) == 2
    assert "is divided into 3 parts already: give one of 1/3 to 3/3" in capsys.readouterr().err
    assert cli.main(["resume", str(out)]) == 0
    assert "2-of-3 is finished" in capsys.readouterr().out
    assert_equal_runs(out, whole)
    assert cli.main(["resume", str(out)]) == 0
    assert cli.main(["resume", str(out), "--part", "1/3"]) == 0
    assert "run is finished" in capsys.readouterr().out


# Long enough to be interrupted: a million steps take some seconds.
LONG = ["--seeds", "3", "--steps", "4000000", "--agent.num-envs", "64", "--agent.hidden", "4", "--agent.rollout-length", "8"]


def wait_for_rows(out, num_parts):
    metrics = [part_folder(out, i, num_parts) / folder.METRICS for i in range(1, num_parts + 1)]
    limit = time.monotonic() + 200
    while not all(path.is_file() and path.stat().st_size for path in metrics):
        assert time.monotonic() < limit
        time.sleep(0.2)


@pytest.fixture(scope="module")
def long_whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("long") / "run"
    done = subprocess.run([sys.executable, "-m", "jaxrl", "train", "a2c", *LONG, "--out", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_sigterm_to_all_saves_and_the_same_command_continues(tmp_path, long_whole):
    out = tmp_path / "run"
    words = ["train", "a2c", *LONG, "--out", out, "--checkpoint-every", "1h"]
    processes = start(words)
    wait_for_rows(out, 2)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for text in outputs(processes):
        assert "a checkpoint is saved. Continue with `jaxrl resume" in text
    assert [process.returncode for process in processes] == [143, 143]
    assert all(list((part_folder(out, i, 2) / folder.CHECKPOINTS).iterdir()) for i in (1, 2))
    assert "3 runs joined" in finish(words, 3)[0]
    assert_equal_runs(out, long_whole)
    assert "is finished: there is nothing to train" in finish(words)[0]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_ends_or_dies_ends_the_others_within_a_minute(tmp_path, how):
    """All save: the child of a process that is killed hears of it, and so do those of the others."""
    out = tmp_path / "run"
    processes = start(["train", "a2c", *LONG, "--steps", "1000000000", "--out", out])
    wait_for_rows(out, 2)
    processes[1].send_signal(how)
    printed = [process.communicate(timeout=60)[0] for process in reversed(processes)]
    assert processes[1].returncode == (143 if how == signal.SIGTERM else -how)
    assert processes[0].returncode == 128 + signal.SIGABRT
    assert "another task died" in printed[1]
    assert "no longer connected. The same command continues all parts" in printed[1]
    for text in printed:
        assert "a checkpoint is saved. Continue with `jaxrl resume" in text
    assert all(list((part_folder(out, i, 2) / folder.CHECKPOINTS).iterdir()) for i in (1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["all", "one"])
def test_all_processes_of_containers_save(tmp_path, how):
    """Each is the first process of a container, with whose end everything in it ends."""
    if shutil.which(CONTAINER[0]) is None or subprocess.run([*CONTAINER, "true"], check=False).returncode:
        pytest.skip("needs unshare, and the right to make a namespace of processes")
    out = tmp_path / "run"
    words = ["train", "a2c", *LONG, "--steps", "1000000000", "--out", out, "--checkpoint-every", "1h"]
    processes = start(words, prefix=CONTAINER)
    wait_for_rows(out, 2)
    for process in processes if how == "all" else processes[1:]:
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
    for text in [process.communicate(timeout=60)[0] for process in processes]:
        assert "a checkpoint is saved. Continue with `jaxrl resume" in text
    assert all(list((part_folder(out, i, 2) / folder.CHECKPOINTS).iterdir()) for i in (1, 2))


def test_a_mistake_in_the_options_is_one_line_in_each_process(tmp_path):
    processes = start(["train", "a2c", "--steps", "1", "--out", tmp_path / "run"])
    for text in outputs(processes):
        assert text.startswith("jaxrl: error: steps=1 is too few")
        assert text.count("\n") == 1
    assert [process.returncode for process in processes] == [2, 2]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", ["--distributed", "--part 1/2"])
def test_a_folder_with_other_runs_is_refused_and_one_with_the_same_is_finished(words, whole, file, capsys, monkeypatch):
    monkeypatch.setattr(hosts, "initialize", lambda: (0, 2))
    monkeypatch.setattr(hosts, "from_first", lambda what, number: number)
    for seeds, code in (("3", 0), ("4", 2)):
        monkeypatch.setenv(_distributed._CONNECTED, "1")
        with jax_settings("jax_platforms", "jax_enable_preemption_service"):
            assert cli.main(["train", "--config", str(file), "--seeds", seeds, "--out", str(whole), *words.split()]) == code
        printed = capsys.readouterr()
        assert ("is finished" in printed.out) == (code == 0)
        assert ("holds other runs: seeds" in printed.err) == (code == 2)


@pytest.mark.parametrize(
    ("address", "process", "message"),
    [
        ("localhost", 0, r"must be HOST:PORT, such as 10.0.0.1:1234; got 'localhost'"),
        (":1234", 1, "must be HOST:PORT"),
        ("localhost:x", 1, "must be HOST:PORT"),
        ("localhost:70000", 0, "must be HOST:PORT"),
        ("no.such.host.invalid:1234", 1, "process 0 does not answer at no.such.host.invalid:1234"),
        ("localhost:{port}", 0, "process 0 cannot listen at port {port}: .*in use"),
        ("localhost:{free}", 1, "process 0 does not answer at localhost:{free}: .*refused"),
    ],
)
def test_a_wrong_address_is_an_error_that_names_it(monkeypatch, address, process, message):
    monkeypatch.setattr(hosts, "_MOST_SECONDS_TO_CONNECT", 0)
    with socket.create_server(("", 0)) as server, socket.create_server(("localhost", 0)) as other:
        port, free = server.getsockname()[1], other.getsockname()[1]
        other.close()
        with pytest.raises(ValueError, match=message.format(port=port, free=free)):
            hosts.initialize(address.format(port=port, free=free), 2, process)


def test_an_address_at_which_jax_does_not_listen_is_not_tried(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **options: None)
    with socket.create_server(("", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(ValueError, match="cannot listen"):
            hosts.initialize(address, 2, 0)
        monkeypatch.setenv("JAX_COORDINATOR_BIND_ADDRESS", "0.0.0.0:1")
        assert hosts.initialize(address, 2, 0) == (0, 1)


def test_options_that_do_not_fit_are_errors(tmp_path, capsys):
    for words, message in {
        "--part 1/2": "need --out",
        "--distributed": "need --out",
        "--part 1/2 --distributed --out x": "leave out --part",
        "--part two --out x": "must be two numbers such as 3/8",
        "--part 3/2 --out x": "the parts are 1/2 to 2/2; got 3/2",
    }.items():
        words = [word.replace("x", str(tmp_path / "x")) if word == "x" else word for word in words.split()]
        assert cli.main(["train", "a2c", *words]) == 2
        assert message in capsys.readouterr().err
    for words in ("--distributed", "--part 1/2", "--eval-every 100", "--num-shards 2", "--checkpoint-every 5m", "--log wandb"):
        assert cli.main(["tune", "a2c", *words.split(), "--out", str(tmp_path / "x")]) == 2
        assert f"unrecognized arguments: {words}" in capsys.readouterr().err
    config_of().save(tmp_path / folder.CONFIG)
    (tmp_path / folder.SEARCH).write_text("{}")
    assert cli.main(["resume", str(tmp_path)]) == 2
    assert "is a search, which cannot be resumed" in capsys.readouterr().err
    assert cli.main(["resume", str(tmp_path), "--distributed", "--part", "1/2"]) == 2
    assert "leave out --part" in capsys.readouterr().err
    assert cli.main(["resume", str(tmp_path), "--distributed"]) == 2
    assert "was not trained in parts: leave out --distributed" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
