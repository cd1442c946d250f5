"""The command line as a user meets it: output, files, one line and exit code 2 for a wrong input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from jaxrl import agents, compilation, presets
from jaxrl._src.signatures import Option
from jaxrl.agents import DQNHParams
from jaxrl.algorithms import ALGORITHMS
from jaxrl.cli import _running, _train, main
from jaxrl.cli._parsing import Parser, UsageError, add_option, plain, show
from jaxrl.experiment import Config, Interrupted
from jaxrl.experiment.config import load_config
from jaxrl.experiment.curves import read_curves
from jaxrl.types import Box, Discrete

SMALL = ["--steps", "240", "--seeds", "2", "--agent.num-envs", "4", "--agent.hidden", "8", "--agent.warmup-steps", "40"]
SMALL_DQN = [*SMALL, "--agent.batch-size", "8", "--agent.capacity", "64"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "dqn", *SMALL_DQN, "--sweep.learning-rate", "1e-3", "1e-2", "--out", str(out)]) == 0
    return out


def test_train_prints_a_table_and_leaves_a_folder(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "dqn", *SMALL_DQN, "--hparams.learning-rate", "1e-3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "worst seed" in printed
    assert "dqn on CartPole-v1, 2 runs: 0% compiling" in printed  # lines, since the output is not a terminal
    assert "dqn on CartPole-v1, 2 runs: 100%" in printed
    assert "2 runs of 240 environment steps" in printed
    assert (out / "curve.png").exists()


def test_a_sweep_has_a_row_for_each_setting(finished, capsys):
    assert main(["eval", str(finished), "--episodes", "2"]) == 0
    printed = capsys.readouterr().out
    assert "learning_rate" in printed
    assert "0.001" in printed
    assert "0.01" in printed


def test_reinforce_trains_on_continuous_actions(tmp_path, capsys):
    static = ["--agent.mode", "episodic", "--agent.baseline", "mean", "--agent.rollout-length", "50", "--agent.hidden", "8"]
    options = ["--env", "PointMass", "--seeds", "2", "--steps", "400", "--agent.num-envs", "2", "--out", str(tmp_path / "run")]
    assert main(["train", "reinforce", *static, *options]) == 0
    assert "reinforce on PointMass" in capsys.readouterr().out


def test_plot_draws_several_runs(finished, tmp_path, capsys):
    picture = tmp_path / "both.png"
    assert main(["plot", str(finished), str(finished), "-o", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_envs_and_agents_are_listed(capsys):
    assert main(["envs"]) == 0
    printed = capsys.readouterr().out
    assert "PointMass" in printed
    assert "CartPole-v1" in printed
    assert main(["agents"]) == 0
    printed = capsys.readouterr().out
    assert "--hparams.learning-rate" in printed
    assert "reinforce: actions Discrete, MultiDiscrete or Box" in printed


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert main(["train", "--help"]) == 0
    assert main(["--version"]) == 0
    assert "jaxrl 0." in capsys.readouterr().out
    assert main(["train", "dqn", "--help"]) == 0
    printed = capsys.readouterr().out
    for option in ("--env", "--seeds", "--hparams.learning-rate", "--sweep.learning-rate", "--agent.num-envs", "--batch-size"):
        assert option in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("bogus", "unknown command 'bogus'; there are train"),
        ("train trpo", f"unknown algorithm 'trpo'; there are {', '.join(ALGORITHMS)}"),
        ("train dqn --env CartPole", "unknown environment 'CartPole'; did you mean CartPole-v1"),
        ("train dqn --env PointMass", "needs a Discrete action space"),
        (
            "train ddpg --env CartPole-v1",
            "ddpg needs a Box action space, and that of CartPole-v1 is Discrete(2); algorithms for it: a2c",
        ),
        ("train qr-dqn --env PointMass", "qr_dqn needs a Discrete action space"),
        ("train dqn --foo 3", "--foo"),
        ("train dqn --seeds x", "--seeds cannot be 'x'"),
        ("train dqn --steps 1e5", "--steps cannot be '1e5'"),
        ("train dqn --hparams.discount x", "--hparams.discount cannot be 'x'"),
        ("train dqn --seeds 0", "seeds must be at least 1, got 0"),
        ("train dqn --steps 10", "steps=10 is too few"),
        ("train dqn --hparams.learning-rate nan", "hparams.learning_rate must lie in [0, 3.40282e+38], got nan"),
        ("train dqn --hparams.learning-rate inf", "hparams.learning_rate must lie in [0, 3.40282e+38], got inf"),
        ("train dqn --steps 1" + 30 * "0", "is too many: iterations are numbered"),
        ("train dqn --seed 4294967296", "seed must be at most 4294967295"),
        ("train dqn --seed 4294967290 --seeds 16", "seeds are numbers below 2^32"),
        ("train dqn --agent.capacity 99999999999999", "capacity must be at most 2147483647"),
        ("train dqn --agent.num-envs 1000000000000", "num_envs must be at most 2147483647"),
        ("train dqn --agent.warmup-steps -1000", "warmup_steps must be at least 0, got -1000"),
        ("train dqn --agent.epsilon-fraction 2", "epsilon_fraction is a share of the run, between 0 and 1, or inf"),
        ("train dqn --sweep.tau", "--sweep.tau expected at least one argument"),
        ("train dqn --sweep.tau --seeds 2", "--sweep.tau expected at least one argument"),
        ("train dqn --sweep.tau x", "tau cannot be 'x': give a number, or a range such as"),
        ("train dqn --sweep.tau uniform:0:1 0.5", "tau takes numbers or one range"),
        ("train dqn --sweep.tau normal:0:1 --samples 2", "'normal:0:1' is not a range; write uniform:LOW:HIGH or loguniform"),
        ("train dqn --sweep.tau uniform:1:0 --samples 2", "must have finite ends with LOW < HIGH"),
        ("train dqn --sweep.tau loguniform:0:1 --samples 2", "must have LOW > 0"),
        ("train dqn --sweep.tau uniform:0:1", "--samples and a range belong together"),
        ("train dqn --samples 4", "--samples and a range belong together"),
        ("train dqn --sweep.tau uniform:0:1 --samples 0", "samples must be at least 1, got 0"),
        ("train dqn --sweep.tau uniform:0.5:3 --samples 9", "hparams.tau must lie in [0, 1], got"),
        ("train dqn --sweep.tau none", "the swept values of tau must be one or more different numbers; got []"),
        ("train dqn --sweep.tau 0.5 0.5", "the swept values of tau must be one or more different numbers; got [0.5, 0.5]"),
        ("train dqn --agent.loss absolute", "loss must be one of 'squared', 'huber'; got 'absolute'"),
        ("train dqn --agent.hidden", "--agent.hidden expected at least one argument"),
        ("train dqn --agent.hidden --seeds 2", "--agent.hidden expected at least one argument"),
        ("train dqn --agent.hidden 8 x", "--agent.hidden cannot be 'x': give an integer"),
        ("train dqn --env", "--env expected one argument"),
        ("train dqn --wrap", "--wrap expected one argument"),
        ("train dqn --wrap stack:4", "unknown wrapper 'stack'; there are action_repeat, clip_actions, "),
        ("train dqn --wrap frame_stack", "wrapper 'frame_stack': frame_stack takes num_frames; got 0 numbers"),
        ("train dqn --wrap frame_stack:4,4", "wrapper 'frame_stack:4,4': frame_stack takes num_frames; got 2 numbers"),
        ("train dqn --wrap frame_stack:four", "wrapper 'frame_stack:four': 'four' is not a number"),
        ("train dqn --wrap frame_stack:0", "wrapper 'frame_stack:0': "),
        ("train dqn --wrap partial_observation", "wrapper 'partial_observation': partial_observation takes a 1 or 0 for each "),
        (
            "train dqn --wrap partial_observation:1,2,1,0",
            "partial_observation takes a 1 or 0 for each component, such as 1,0,1,0",
        ),
        ("train dqn --wrap partial_observation:1,0,1", "wrapper 'partial_observation:1,0,1': "),
        ("train dqn --wrap one_hot", "one_hot needs Discrete or MultiDiscrete observations"),
        ("train dqn --wrap sticky_actions:2", "wrapper 'sticky_actions:2': "),
        ("train dqn --hparams.discount -1", "hparams.discount must lie in [0, 1], got -1.0"),
        ("train dqn --sweep.tau 0.5 2", "hparams.tau must lie in [0, 1], got 2.0"),
        ("train dqn --agent.batch-size 64 --agent.capacity 32", "batch_size 64 is larger than the replay's capacity 32"),
        ("train dqn --agent.num-envs 0", "num_envs must be at least 1"),
        ("train dqn --out /proc/nowhere/run", "cannot write to"),
        ("train reinforce --agent.mode continuing --agent.baseline mean", "needs baseline='value'"),
        ("train dqn --checkpoint-every 5", "--checkpoint-every cannot be '5': give a time such as 90s, 5m or 1h, or none"),
        ("resume", "the following arguments are required: RUN"),
        ("resume /nowhere", "/nowhere is not a run folder"),
        ("resume /nowhere --checkpoint-every -1s", "--checkpoint-every cannot be '-1s': give a time such as 90s"),
        ("eval /nowhere", "/nowhere is not a run folder"),
        ("plot /nowhere", "/nowhere is not a run folder"),
        ("plot", "name at least one run folder"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_code_2(argv, message, capsys):
    assert main(argv.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("jaxrl: error: ")
    assert error.count("\n") == 1


def test_options_reach_the_configuration(monkeypatch):
    options = (
        "--agent.hidden none --agent.double --agent.loss huber --agent.warmup_steps 64 --agent.rollout-length 2 "
        "--agent.epsilon-fraction 0.5 --hparams.tau 0.5 --sweep.discount 0.9 0.99 --seeds 3 --seed 7 --batch-size=2 "
        "--agent.num-envs 4 --wrap flatten --wrap frame_stack:2 --env Acrobot-v1 --steps 4000"
    )
    config = parsed_config(monkeypatch, "dqn", *options.split())
    assert config == Config(
        env="Acrobot-v1",
        settings=presets.override(
            presets.tuned("dqn", "Acrobot-v1", 4000),
            num_envs=4,
            rollout_length=2,
            network={"hidden": ()},
            agent={"double": True, "loss": "huber", "warmup_steps": 64},
            schedules={"epsilon_fraction": 0.5},
        ),
        wrappers=("flatten", "frame_stack:2"),
        seeds=3,
        seed=7,
        hparams={"tau": 0.5},
        sweep={"discount": [0.9, 0.99]},
        batch_size=2,
    )
    assert not parsed_config(monkeypatch, "dqn", "--agent.double", "--agent.no-double").settings.agent["double"]


def test_an_existing_folder_is_not_overwritten(finished, capsys):
    assert main(["train", "dqn", *SMALL_DQN, "--out", str(finished)]) == 2
    assert "exists and is not an empty folder" in capsys.readouterr().err


def test_the_installed_command_gives_the_exit_code():
    done = subprocess.run([sys.executable, "-m", "jaxrl", "bogus"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("where", ["off", "here", "user"])
def test_compiled_programs_are_kept_where_the_user_wants_them(tmp_path, where):
    variables = {"HOME": str(tmp_path), "JAXRL_CACHE": {"off": "off", "here": str(tmp_path / "here"), "user": ""}[where]}
    inherited = {k: v for k, v in os.environ.items() if k not in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")}
    code = "import jax; from jaxrl.cli import _set_up; _set_up.set_up_jax(); print(jax.config.jax_compilation_cache_dir)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=inherited | variables)
    expected = {"off": "None", "here": str(tmp_path / "here"), "user": str(tmp_path / ".cache" / "jaxrl")}[where]
    assert done.stdout.strip() == expected, done.stderr


@pytest.mark.parametrize("command", ["eval", "plot"])
def test_seeds_and_places_are_checked_before_anything_is_played(finished, tmp_path, command, capsys):
    wrong = {
        "eval": [(["--seed", "-1"], "seed must be at least 0"), (["--seed", str(2**40)], "seed must be at most 4294967295")],
        "plot": [(["-o", str(tmp_path)], "is a folder"), (["-o", "/proc/nowhere/a.png"], "cannot write the picture")],
    }
    for options, message in wrong[command]:
        assert main([command, str(finished), *options]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_picture_without_a_suffix_is_a_png(finished, tmp_path, capsys):
    assert main(["plot", str(finished), "-o", str(tmp_path / "both")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "both.png")
    assert (tmp_path / "both.png").exists()


def test_damaged_run_folders_are_named(finished, tmp_path, capsys):
    def damaged(name, change):
        run = tmp_path / name
        shutil.copytree(finished, run)
        change(run)
        return run

    def other_network(run):
        config = json.loads((run / "config.json").read_text())
        config["settings"]["network"]["hidden"] = [16]
        (run / "config.json").write_text(json.dumps(config))

    for command, run, message in [
        ("eval", damaged("policies", lambda run: shutil.rmtree(run / "policies" / "arrays")), "policies is damaged"),
        ("eval", damaged("network", other_network), "do not belong together"),
        ("plot", damaged("binary", lambda run: (run / "metrics.csv").write_bytes(b"\x83\xff")), "metrics.csv is damaged"),
        (
            "plot",
            damaged("cell", lambda run: (run / "metrics.csv").write_text("seed,env_steps\n0,x1\n")),
            "metrics.csv is damaged",
        ),
        ("plot", damaged("config", lambda run: (run / "config.json").unlink()), "is not a run folder: it has no config.json"),
    ]:
        assert main([command, str(run)]) == 2, run
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


@pytest.mark.parametrize("words", ["agents", "--help", "plot --help"])  # printed by rich, by print, by the parser
def test_a_closed_pipe_is_no_traceback(words):
    reader, writer = os.pipe()
    os.close(reader)  # whoever read has gone before a word was written
    done = subprocess.run([sys.executable, "-m", "jaxrl", *words.split()], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 1


def parsed_config(monkeypatch, *argv):
    """The configuration that `jaxrl train` would run."""
    configs = []

    def run(config, out, **options):
        configs.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxrl.experiment.run", run)
    assert main(["train", *argv]) == 130
    return configs[0]


@pytest.mark.parametrize("steps", [["--steps", "500_000"], ["--steps=500000"], ["--steps", "100000", "--steps", "500000"]])
def test_defaults_are_tuned_for_the_environment_and_the_length_given(steps, monkeypatch):
    """However these are written: never the settings tuned for one length with the hyperparameters tuned for another."""
    config = parsed_config(monkeypatch, "dqn", "--env", "Acrobot-v1", "--env", "CartPole-v1", *steps)
    assert config.settings == presets.tuned("dqn", "CartPole-v1", 500_000)


def test_the_help_of_every_option_shows_text_and_default(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1000")  # so that no word is broken at a hyphen
    for row in ALGORITHMS.values():
        assert main(["train", row.name, "--env", "none", "--help"]) == 0
        words = " ".join(capsys.readouterr().out.split())
        settings = presets.default_settings(row.name)
        values = {**vars(settings), **settings.agent, **settings.network}
        expected = {
            f"agent.{'no-' if option.type is bool else ''}{option.name}": (option.help, values[option.name])
            for option in (*presets.SIZES, *presets.options_of_agent(row), *row.network_options)
        }
        expected |= {f"hparams.{name}": (row.hparams_help[name], value) for name, value in settings.hparams.items()}
        for name, (text, value) in expected.items():
            entry = words.partition(f" --{name.replace('_', '-')} ")[2].partition(" --")[0]
            assert plain(text) in entry, name
            scheduled = name.removeprefix("hparams.").replace("_iterations", "_fraction") in settings.schedules
            default = "from the schedule" if scheduled else show(value)
            assert f"(default: {default})" in entry, name


def test_a_third_algorithm_is_a_row(monkeypatch, tmp_path, capsys):
    """Listed, trained and plotted without any other change."""
    row = ALGORITHMS["dqn"]._replace(name="third", title="Third", factory=third, action_spaces=(Discrete, Box))
    monkeypatch.setitem(ALGORITHMS, "third", row)
    assert main(["agents"]) == 0
    printed = capsys.readouterr().out
    assert "third: actions Discrete or Box" in printed
    assert "--agent.width" in printed
    assert main(["train", "third", "--help"]) == 0
    assert "an option of its own (default: 5)" in " ".join(capsys.readouterr().out.split())
    out = tmp_path / "run"
    sizes = "--steps 240 --seeds 1 --agent.num-envs 4 --agent.rollout-length 1 --agent.hidden 8 --agent.width 8"
    assert main(["train", "third", *sizes.split(), "--out", str(out)]) == 0
    assert read_curves(out)[0].label == "Third on CartPole-v1"


def third(network, action_space, *, width: int = 5, hparams: DQNHParams = DQNHParams(tau=0.5)):
    """A third algorithm.

    Args:
      width: an option of its own.
    """
    return agents.dqn(network, action_space, batch_size=width, capacity=16, warmup=4, hparams=hparams)


def test_wrappers_are_recorded_and_played(tmp_path, capsys):
    out = tmp_path / "run"
    wraps = ["--wrap", "time_aware", "--wrap", "frame_stack:4", "--wrap", "sticky_actions:0.25"]
    assert main(["train", "dqn", *SMALL_DQN, "--seeds", "1", *wraps, "--out", str(out)]) == 0
    assert json.loads((out / "config.json").read_text())["wrappers"] == wraps[1::2]
    learner = load_config(out).preset().learner
    assert learner.env.observation_space.shape == (20,)
    assert float(learner.env.params.probability) == 0.25
    assert main(["eval", str(out), "--episodes", "1"]) == 0
    assert "time_aware, frame_stack:4, sticky_actions:0.25" in " ".join(capsys.readouterr().out.split())
    assert main(["render", str(out), "-o", str(tmp_path / "sheet.png"), "--max-steps", "6"]) == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert read_curves(out)[0].label == "DQN on CartPole-v1 (time_aware, frame_stack:4, sticky_actions:0.25)"


def test_runs_started_in_the_same_second_have_folders_of_their_own(monkeypatch):
    monkeypatch.setattr("time.strftime", lambda format: "20300101-000000")
    names = {_train._default_folder("dqn", "gymnasium/CartPole-v1") for _ in range(20)}
    assert len(names) == 20
    assert all(str(name).startswith("runs/dqn-gymnasium-CartPole-v1-20300101-000000-") for name in names)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_and_says_how_to_continue(tmp_path, monkeypatch, capfd, number, code):
    def run(config, out, *, report, stop, checkpoint_every, loggers):
        assert checkpoint_every == 90.0
        assert stop() is None
        os.kill(os.getpid(), number)
        while not stop():
            time.sleep(0.01)
        raise Interrupted(saved=True)

    monkeypatch.setattr("jaxrl.experiment.run", run)
    out = tmp_path / "run"
    before = signal.getsignal(number)
    assert main(["train", "dqn", "--out", str(out), "--checkpoint-every", "90s"]) == code
    heard, left = capfd.readouterr().err.splitlines()
    assert heard == f"jaxrl: {number.name}: stopping after the computation in progress; once more ends at once"
    assert left == f"jaxrl: interrupted; a checkpoint is saved. Continue with `jaxrl resume {out}`"
    assert signal.getsignal(number) == before


def test_a_second_signal_ends_at_once():
    """Also where Python cannot run its handlers, such as in a compiled program."""
    code = """
import ctypes, os, signal
from jaxrl.cli._running import stop_signals
with stop_signals():
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
        ctypes.PyDLL(None).usleep(0)
    ctypes.CDLL(None).sleep(20)
"""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert done.returncode == 143
    assert done.stderr.splitlines()[1:] == ["jaxrl: ended at once"]
    assert time.perf_counter() - begun < 15


def test_a_repeated_signal_of_a_launcher_and_the_end_of_the_parent_are_no_second_request():
    """One is sent to the process and to its group; a second request comes later, and is not SIGHUP."""
    code = """
import os, signal, time
from jaxrl.cli import _running
_running._REPEATED = 0.3
with _running.stop_signals() as received:
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(0.1)
    print(received(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "15\n")
    assert done.stderr.splitlines()[1:] == ["jaxrl: ended at once"]


@pytest.mark.parametrize("text", ["-1", "-.5", "-2.", "-5e-05", "-1E+3", "-1_000", "-inf", "-Infinity", "-nan"])
def test_negative_numbers_are_values_however_they_are_written(text):
    parser = Parser("test")
    group = parser.add_argument_group("group")
    add_option(group, "hparams", Option("x", float, False, None, ""), None)
    add_option(group, "sweep", Option("x", str, True, None, ""), None)
    parser.add_argument("word", type=float)
    found = vars(parser.parse(["--hparams.x", text, text, "--sweep.x", text, text, "-q"]))
    assert [str(found["hparams.x"]), str(found["word"])] == 2 * [str(float(text))]
    assert (found["sweep.x"], found["quiet"]) == ((text, text), True)
    with pytest.raises(UsageError, match="expected one argument"):
        parser.parse(["--hparams.x", "-info"])


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("0s", 0), ("none", None)])
def test_times_have_units(text, seconds):
    assert _running.duration(text) == seconds


def test_a_finished_run_is_not_resumed(finished, capsys):
    assert main(["resume", str(finished)]) == 0
    assert "is finished: there is nothing to resume" in capsys.readouterr().out


def test_deterministic_flags_reach_the_compiler_and_the_folder(tmp_path):
    """XLA ends the process for a flag that it does not know, which shows that it reads them after this. What other processes have
    measured does not reach it."""
    code = """
import jax, os, sys
from jaxrl.cli import _set_up
_set_up._DETERMINISTIC += tuple(sys.argv[1:])
_set_up.set_up_jax(deterministic=True)
print(os.environ["XLA_FLAGS"])
from jax._src.compiler import get_compile_options
options = get_compile_options(1, 1)
print("measured:", options.executable_build_options.debug_options.xla_gpu_per_fusion_autotune_cache_dir)
"""
    flags = "--xla_backend_optimization_level=0 --xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
    variables = os.environ | {"XLA_FLAGS": flags.split()[0], "JAX_PLATFORMS": "cpu", "JAXRL_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=variables)
    assert done.stdout == flags + "\nmeasured: \n", done.stderr
    done = subprocess.run([sys.executable, "-c", code, "--xla_no_such_flag=1"], capture_output=True, text=True, env=variables)
    assert done.returncode
    assert "xla_no_such_flag" in done.stderr


def test_without_a_home_there_is_no_cache_and_no_error(monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert compilation._user_cache() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert compilation._user_cache() == "/cache/jaxrl"
