"""The output of commands: any encoding, any path, no reader, no device; and JAX's own checks of a command's programs."""

import io
import logging
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress as Bar

from jaxrl._src.paths import as_utf8
from jaxrl.cli import _output
from jaxrl.cli._parsing import UsageError
from jaxrl.cli._set_up import check_devices
from jaxrl.experiment import Config, terminal
from jaxrl.experiment.policies import abstract_policies
from jaxrl.learner import episode_means
from jaxrl.presets import default_settings, override
from jaxrl.rollout import zero_stats
from jaxrl.vectorization import vectorize


def jaxrl(*words, **options):
    return subprocess.run([sys.executable, "-m", "jaxrl", *words], stderr=subprocess.PIPE, **options)


@pytest.fixture(scope="module", autouse=True)
def _handler():
    _output.codecs.register_error(_output._ERRORS, _output._readable)


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("λ – 9.5 … 10.0 × 3", "ascii", b"lambda - 9.5 ~ 10.0 x 3"),
        ("λ × 3", "latin-1", b"lambda \xd7 3"),
        ("λ × 3", "utf-8", "λ × 3".encode()),
        ("┏━┓│█日", "ascii", b"+-+|#?"),
        (os.fsdecode(b"caf\xe9/run"), "utf-8", b"caf\xe9/run"),
        (os.fsdecode(b"caf\xe9\xe9 \xc3\xa9"), "ascii", b"caf\xe9\xe9 ?"),
    ],
)
def test_what_an_encoding_lacks_is_replaced(text, encoding, expected):
    assert text.encode(encoding, _output._ERRORS) == expected


def test_every_replacement_is_ascii():
    assert len(_output._ASCII) > 50
    assert all(replacement.isascii() for replacement in _output._ASCII.values())


def test_a_listing_is_printed_in_ascii():
    done = jaxrl("agents", stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert b"lambda" in done.stdout.replace(b"\n", b" ")
    assert done.stdout.isascii()


def test_output_to_a_closed_descriptor_is_dropped():
    done = subprocess.run(["sh", "-c", '"$0" -m jaxrl --help >&-', sys.executable], stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_output_to_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:
        done = jaxrl("--help", stdout=full)
    assert (done.returncode, done.stderr) == (1, b"jaxrl: error: cannot write the output (No space left on device)\n")


def test_work_goes_on_without_a_reader(tmp_path):
    """Output that fails is dropped, and nothing is raised into what prints it."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = _output._Output(os.fdopen(writer, "wb"), "utf-8", write_through=True)
    for _ in range(3):
        print("progress", file=stream, flush=True)
    assert stream.failure.errno == _output.errno.EPIPE
    stream.close()


@pytest.mark.parametrize(
    ("width", "name"), [(80, "ppo on Mountain"), (200, "ppo on MountainCarContinuous-v0 (time_limit:200), 16 runs")]
)
def test_in_a_narrow_terminal_the_name_is_shortened_and_the_numbers_are_whole(width, name):
    console = Console(width=width, file=io.StringIO())
    bar = Bar(*terminal._columns(), console=console)
    task = bar.add_task("ppo on MountainCarContinuous-v0 (time_limit:200), 16 runs", total=100, speed="", mean="")
    bar.update(task, completed=40, speed="1,234,567 steps/s", mean="-123.4")
    console.print(bar.get_renderable())
    (line,) = console.file.getvalue().splitlines()
    assert line.startswith(name)
    assert " 40% 1,234,567 steps/s return -123.4 left --:--" in line


@pytest.mark.parametrize("command", ["envs", "eval"])
@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_without_a_device_is_one_line(command, platform, monkeypatch, capsys):
    def devices():
        raise AssertionError if platform == "cuda" else RuntimeError("Unable to initialize backend 'nonsense'\nand more")

    from jaxrl.cli import main

    monkeypatch.setattr(jax, "devices", devices)
    assert main([command, *(["/nowhere"] if command == "eval" else [])]) == 2
    error = capsys.readouterr().err
    assert error.startswith("jaxrl: error: JAX finds no device")
    assert error.count("\n") == 1


def test_what_jax_logs_about_devices_is_a_note_or_the_reason(monkeypatch, capsys):
    def devices():
        logging.getLogger("jax._src.xla_bridge").error("no plugin\nwith a traceback")
        if fails:
            raise AssertionError

    monkeypatch.setattr(jax, "devices", devices)
    fails = False
    check_devices()
    assert capsys.readouterr().err == "jaxrl: note: no plugin\n"
    fails = True
    with pytest.raises(UsageError, match=r"^JAX finds no device.*: no plugin$"):
        check_devices()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", [b"plain", b"caf\xe9"])
def test_a_folder_whose_name_is_not_utf8_has_a_link_that_is(tmp_path, name):
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    with as_utf8(folder) as path:
        str(path).encode()
        (path / "file").write_text("text")
    assert (folder / "file").read_text() == "text"
    assert (path == folder) == (name == b"plain")
    assert path.exists() == (name == b"plain")


def test_no_key_is_consumed_twice_on_the_way_to_the_runs():
    settings = override(default_settings("reinforce"), num_envs=2, rollout_length=2, steps=8, network={"hidden": ()})
    config = Config(env="PointMass", settings=settings, seeds=2, sweep={"discount": [0.9, 0.99]})
    with jax.debug_key_reuse(True):
        preset = config.preset()
        keys, hparams = config.runs(preset)
        states = vectorize(preset.learner.init)(keys, hparams)
        abstract = abstract_policies(config, preset)
    data = jax.random.key_data(keys)
    np.testing.assert_array_equal(data[:2], data[2:])  # the same seeds for both values
    assert not np.array_equal(data[0], data[1])
    policies = preset.learner.agent.policy(states.agent)
    assert jax.tree.map(np.shape, abstract.params) == jax.tree.map(np.shape, policies)


def test_an_interval_without_episodes_is_no_error_of_debug_nans():
    stats = zero_stats(3)
    means = jax.jit(lambda stats: episode_means(stats))(stats)
    assert np.isnan([means["episode_return"], means["episode_length"]]).all()
    with jax.debug_nans(True):
        means = jax.jit(lambda stats: episode_means(stats))(stats)
    assert means == {"episode_return": 0, "episode_length": 0, "episodes": 0}
    one = stats._replace(finished=stats.finished.at[1].set(2), finished_return=stats.finished_return.at[1].set(5.0))
    assert episode_means(one)["episode_return"] == 2.5
