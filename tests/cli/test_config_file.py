"""`jaxrl train --config FILE` and `--dry-run`; `--quiet`, `--json` and completion, which all commands have."""

import json
import os
import re
import subprocess
import sys

import pytest

from jaxrl import presets
from jaxrl.cli import COMMANDS, _completion, main
from jaxrl.experiment import Config, planning
from jaxrl.experiment.config_file import read_config
from jaxrl.presets import DEFAULTS, Settings, override

TOML = """
algorithm = "qr-dqn"
env = "CartPole-v1"
steps = 100_000
wrappers = ["time_aware"]

[network]
hidden = [8, 4]

[schedules]
epsilon_fraction = inf

[hparams]
tau = 1

[sweep]
learning_rate = [1e-3, 1]
"""


@pytest.fixture
def resolved(monkeypatch, capsys):
    """A function from the words after `jaxrl train` to the configuration that `--dry-run` prints, without a compilation."""
    monkeypatch.setattr(planning, "plan", lambda config: planning.Plan(config.num_runs, 1, 1, 2**20, 0, 2**30, 1, 1, "1 × cpu"))

    def resolve(*words):
        assert main(["train", *map(str, words), "--dry-run"]) == 0
        return json.loads(capsys.readouterr().out)

    return resolve


@pytest.mark.parametrize("algorithm", ["dqn", "reinforce"])
def test_a_configuration_that_was_saved_is_reproduced(tmp_path, resolved, monkeypatch, algorithm):
    """With settings that no preset has: no schedule, tuples, infinity, booleans."""
    settings = Settings(algorithm, steps=12_345, num_envs=3, network={"hidden": ()}, hparams={"learning_rate": 0.1234567890123})
    config = Config(
        env="CartPole-v1", settings=settings, wrappers=("flatten", "frame_stack:2"), seeds=3, seed=7, batch_size=2,
        hparams={"learning_rate_iterations": float("inf")}, sweep={"discount": [0.9, 0.123456789012]},
        num_shards=3, deterministic=True,
    )  # fmt: skip
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # which deterministic changes
    assert settings.schedules == {} != presets.tuned(algorithm, "CartPole-v1").schedules
    config.save(tmp_path / "config.json")
    assert read_config(tmp_path / "config.json") == config
    saved = json.loads((tmp_path / "config.json").read_text())
    assert resolved("--config", tmp_path / "config.json") == saved
    assert resolved(algorithm, f"--config={tmp_path / 'config.json'}") == saved


def test_samples_of_a_search_are_reproduced(tmp_path, resolved):
    samples = [{"learning_rate": 1e-3, "tau": 0.1}, {"learning_rate": 2e-3, "tau": 0.3}]
    Config(env="CartPole-v1", settings=DEFAULTS["dqn"], samples=samples).save(tmp_path / "config.json")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert resolved("--config", tmp_path / "config.json") == saved


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["--sweep.discount", 0.9], {"sweep": {"discount": [0.9]}}),
        (["--sweep.tau", 0.5], {"samples": [{"learning_rate": 1e-3}, {"learning_rate": 2e-3}], "sweep": {"tau": [0.5]}}),
        (["--hparams.learning_rate=0.5"], {"samples": [{"tau": 0.1}], "hparams": {"learning_rate": 0.5}}),
        (["--hparams.learning-rate", 0.5, "--hparams.tau", 1], {"samples": [], "hparams": {"learning_rate": 0.5, "tau": 1.0}}),
        (["--sweep.discount", "uniform:0.5:1", "--samples", 1], {"samples": [{"discount": 0.818481}]}),
    ],
)
def test_samples_keep_what_the_command_line_does_not_give(tmp_path, resolved, words, changes):
    samples = [{"learning_rate": 1e-3, "tau": 0.1}, {"learning_rate": 2e-3, "tau": 0.1}]
    Config(env="CartPole-v1", settings=DEFAULTS["dqn"], samples=samples).save(tmp_path / "config.json")
    saved = json.loads((tmp_path / "config.json").read_text())
    assert resolved("--config", tmp_path / "config.json", *words) == saved | changes


def test_options_of_the_command_line_override_the_file(tmp_path, resolved):
    config = Config(
        env="CartPole-v1", settings=DEFAULTS["dqn"], wrappers=("flatten",), hparams={"tau": 0.1}, sweep={"discount": [0.9, 0.99]}
    )
    config.save(tmp_path / "config.json")
    saved = json.loads((tmp_path / "config.json").read_text())
    changed = resolved(
        "--config", tmp_path / "config.json", "--env", "Acrobot-v1", "--seeds", 2, "--steps=9000", "--agent.double",
        "--hparams.discount", 0.5, "--sweep.tau", 0.2, 0.3, "--wrap", "time_aware",
    )  # fmt: skip
    settings = saved["settings"] | {"steps": 9000, "agent": saved["settings"]["agent"] | {"double": True}}
    assert changed == saved | {
        "env": "Acrobot-v1", "seeds": 2, "settings": settings, "hparams": {"discount": 0.5}, "sweep": {"tau": [0.2, 0.3]},
        "wrappers": ["time_aware"],
    }  # fmt: skip


def test_a_file_written_by_hand_changes_what_is_tuned(tmp_path, resolved):
    (tmp_path / "run.toml").write_text(TOML)
    expected = Config(
        env="CartPole-v1",
        settings=override(
            presets.tuned("qr_dqn", "CartPole-v1", 100_000),
            steps=100_000,
            network={"hidden": (8, 4)},
            schedules={"epsilon_fraction": float("inf")},
        ),
        wrappers=("time_aware",),
        hparams={"tau": 1.0},
        sweep={"learning_rate": [1e-3, 1.0]},
    )
    assert read_config(tmp_path / "run.toml") == expected
    expected.save(tmp_path / "config.json")
    assert resolved("--config", tmp_path / "run.toml") == json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("env = ", "run.toml is not TOML"),
        ("env = 'CartPole-v1'", "run.toml is not a configuration (no 'algorithm')"),
        ("algorithm = 'dqn'", "run.toml is not a configuration (no 'env')"),
        ("algorithm = 'dqn'\nenv = 'X'\nseed_count = 3", "it has the field 'seed_count'; there are algorithm, steps, num_envs"),
        ("algorithm = 'trpo'\nenv = 'CartPole-v1'", "trpo"),
        ("algorithm = 'dqn'\nenv = 'CartPole-v1'\n[hparams]\nspeed = 1", "dqn has no hyperparameter 'speed'"),
        ("algorithm = 'dqn'\nenv = 'CartPole-v1'\n[hparams]\ntau = 'x'", "hparams.tau must be a number, got 'x'"),
        ("algorithm = 'dqn'\nenv = 'CartPole-v1'\n[sweep]\ntau = 0.5", "sweep.tau must be a list of numbers, got 0.5"),
        ("algorithm = 'dqn'\nenv = 'CartPole-v1'\n[agent]\ndouble = 'false'", "agent.double must be true or false, got 'false'"),
        ("algorithm = 'dqn'\nenv = 'CartPole-v1'\n[network]\nhidden = 64", "network.hidden must be a list of integers, got 64"),
        ("algorithm = 'dqn'\nenv = 'CartPole-v1'\nwrappers = 'flatten'", "wrappers must be a list of texts, got 'flatten'"),
        ("algorithm = 'dqn'\nenv = 'CartPole-v1'\nsteps = 1e5", "steps must be an int, got 100000.0"),
        ("algorithm = 'dqn'\nenv = 'Chain'\nsettings = 3", "settings must be a table of names and values, got 3"),
        ("algorithm = 'dqn'\nenv = ['CartPole-v1']", "env must be text, got ['CartPole-v1']"),
        ("algorithm = 'dqn'\nenv = 'CartPole-v1'\n[agent]\nspeed = 1", "dqn has no agent option 'speed'"),
        ("algorithm = 'dqn'\nenv = 'CartPole-v1'\nseeds = 0", "seeds must be at least 1, got 0"),
        ("algorithm = 3\nenv = 'CartPole-v1'", "unknown algorithm '3'"),
        ("jaxrl = '99.0'\nalgorithm = 'dqn'\nenv = 'CartPole-v1'", "was written by jaxrl 99.0, which is later than this version"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, message, capsys):
    (tmp_path / "run.toml").write_text(text)
    assert main(["train", "--config", str(tmp_path / "run.toml")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("env", None, "env must be text, got None"),
        ("env", {}, "env must be text, got {}"),
        ("hparams", [], "hparams must be a table of names and values, got []"),
        ("hparams", "", "hparams must be a table of names and values, got ''"),
        ("hparams", {"tau": "a"}, "hparams.tau must be a number, got 'a'"),
        ("hparams", {"tau": None}, "hparams.tau must be a number, got None"),
        ("hparams", {"tau": [1]}, "hparams.tau must be a number, got [1]"),
        ("hparams", {"tau": True}, "hparams.tau must be a number, got True"),
        ("sweep", {"tau": ["a"]}, "sweep.tau must be a list of numbers, got ['a']"),
        ("sweep", [], "sweep must be a table of names and values, got []"),
        ("samples", {"tau": 1}, "samples must be a list of tables of hyperparameters, got {'tau': 1}"),
        ("samples", [3], "samples[0] must be a table of names and values, got 3"),
        ("samples", [{"tau": 1}, {"tau": "a"}], "samples[1].tau must be a number, got 'a'"),
        ("wrappers", "frame_stack:4", "wrappers must be a list of texts, got 'frame_stack:4'"),
        ("wrappers", [[1]], "wrappers must be a list of texts, got [[1]]"),
        ("deterministic", "no", "deterministic must be true or false, got 'no'"),
        ("settings", [], "settings must be a table of names and values, got []"),
    ],
)
def test_a_wrong_entry_of_a_saved_configuration_is_named(tmp_path, name, value, message):
    path = tmp_path / "config.json"
    Config(env="CartPole-v1", settings=DEFAULTS["dqn"]).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ValueError, match=re.escape(message)):
        read_config(path)


def test_numbers_that_json_writes_as_words_are_read(tmp_path):
    path = tmp_path / "run.json"
    record = {"algorithm": "dqn", "env": "CartPole-v1", "schedules": {"epsilon_fraction": "inf"}, "sweep": {"tau": [1, "1e-3"]}}
    path.write_text(json.dumps(record | {"samples": [{"importance_exponent_iterations": "inf", "discount": 1}]}))
    config = read_config(path)
    assert (config.settings.schedules["epsilon_fraction"], config.sweep) == (float("inf"), {"tau": [1.0, 1e-3]})
    assert config.samples == [{"importance_exponent_iterations": float("inf"), "discount": 1.0}]
    assert type(config.samples[0]["discount"]) is float


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config"], "--config expected one argument"),
        (["--config", "/nowhere/a.toml"], "cannot read /nowhere/a.toml (No such file or directory)"),
        (["--config", "/proc/self/mem.json"], "cannot read"),
        (["--seeds", "3"], "name an algorithm first, such as dqn, or a file with --config; got '--seeds'"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(words, message, capsys):
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_file_of_another_algorithm_is_refused(tmp_path, capsys):
    (tmp_path / "run.toml").write_text(TOML)
    assert main(["train", "dqn", "--config", str(tmp_path / "run.toml")]) == 2
    assert "run.toml is a configuration of qr_dqn, not of dqn" in capsys.readouterr().err
    (tmp_path / "list.json").write_text("[1]")
    assert main(["train", "--config", str(tmp_path / "list.json")]) == 2
    assert "list.json is not a configuration: it must be a table of fields" in capsys.readouterr().err


def test_a_dry_run_says_what_is_needed_and_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "--env",
        "PointMass",
        "--steps",
        "400",
        "--agent.num-envs",
        "2",
        "--agent.rollout-length",
        "2",
        "--agent.hidden",
        "none",
    ]
    assert main(["train", "reinforce", *words, "--seeds", "3", "--out", "run", "--dry-run"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["seeds"] == 3
    first, memory, at_once = printed.err.splitlines()[-3:]
    assert first.startswith("3 runs of 400 environment steps (100 iterations) on 2 × ")
    assert memory.startswith("memory: ")
    assert at_once == "at once: all"
    assert not list(tmp_path.iterdir())


def test_the_number_of_runs_at_once_follows_from_the_memory(monkeypatch):
    class Analysis:
        argument_size_in_bytes, output_size_in_bytes, alias_size_in_bytes, temp_size_in_bytes = 100, 90, 80, 500

    class Compiled:
        memory_analysis = Analysis

    monkeypatch.setattr(planning, "_compile", lambda *_: Compiled)
    settings = override(DEFAULTS["reinforce"], num_envs=2, rollout_length=2, steps=8, network={"hidden": ()})
    config = Config(env="PointMass", settings=settings, seeds=9)
    for usable, at_once, batches in [(499, 0, 0), (609, 0, 0), (610, 2, 5), (830, 6, 2), (10_000, 9, 1)]:  # on two devices
        monkeypatch.setattr(planning, "usable_memory", lambda devices, usable=usable: usable)
        found = planning.plan(config)
        assert (found.bytes_per_run, found.bytes_shared, found.at_once, found.num_batches) == (110, 500, at_once, batches)
    monkeypatch.setattr(planning, "usable_memory", lambda devices: 700 // len(devices))  # one device can use all of it
    found = planning.plan(config)
    assert (found.at_once, found.num_batches, found.devices.split()[0]) == (1, 9, "1")


def test_quiet_prints_nothing_but_errors(tmp_path, capsys):
    assert main(["runs", str(tmp_path), "--quiet"]) == 0
    assert main(["-q", "runs"]) == 2  # options follow the command
    assert main(["runs", "-q", str(tmp_path / "nowhere")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 2


def test_agents_are_listed_as_json(capsys):
    assert main(["agents", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # no NaN or Infinity, which are not JSON
    dqn = next(agent for agent in listed if agent["algorithm"] == "dqn")
    assert (dqn["title"], dqn["actions"]) == ("DQN", "Discrete")
    tau = next(option for option in dqn["options"] if option["option"] == "--hparams.tau")
    assert tau["default"] == presets.default_settings("dqn").hparams["tau"]
    assert tau["help"]


def test_environments_are_listed_as_json(capsys, monkeypatch):
    monkeypatch.setattr("jaxrl.envs.names", lambda: ["PointMass", "CartPole-v1"])
    assert main(["envs", "--json"]) == 0
    point_mass, cart_pole = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (point_mass["env"], point_mass["action_space"]["low"]) == ("PointMass", -1.0)
    assert cart_pole["action_space"] == {"type": "Discrete", "n": 2, "shape": [], "dtype": "int32"}
    assert cart_pole["observation_space"]["high"][1] == "inf"
    assert "dqn" in cart_pole["presets"]


@pytest.fixture(scope="module")
def bash():
    done = subprocess.run([sys.executable, "-m", "jaxrl", "completion", "bash"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.needs("shtab")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("jaxrl tra", {"train"}),
        ("jaxrl train recurrent", {"recurrent_ppo"}),
        ("jaxrl train dqn --hparams.ta", {"--hparams.tau"}),
        ("jaxrl train dqn --seeds 3 --env CartP", {"CartPole-v1"}),
        ("jaxrl export --format o", {"onnx"}),
        ("jaxrl completion z", {"zsh"}),
    ],
)
def test_bash_completes_what_there_is(bash, words, expected):
    run = (
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '"$(complete -p jaxrl | sed "s/.*-F \\([^ ]*\\).*/\\1/")"; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", f"{bash}\n{run}", "bash", *words.split()], capture_output=True, text=True)
    assert set(done.stdout.split()) == expected, done.stderr


def test_every_command_can_be_completed():
    class Shtab:
        FILE, DIRECTORY = "file", "folder"

    (commands,) = [a for a in _completion._whole_parser(Shtab)._actions if a.dest == "==SUPPRESS=="]
    assert list(commands.choices) == list(COMMANDS)
    (algorithms,) = [a for a in commands.choices["train"]._actions if a.dest == "==SUPPRESS=="]
    options = [o for action in algorithms.choices["sac"]._actions for o in action.option_strings]
    assert {"--env", "--config", "--dry-run", "--quiet", "--hparams.tau", "--sweep.tau", "--agent.hidden"} <= set(options)


def test_completion_without_its_extra_is_an_error_that_names_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert capsys.readouterr().err == "jaxrl: error: completion needs the package shtab: pip install 'jaxrl[completion]'\n"
