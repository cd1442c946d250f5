"""The command line as a user meets it: output, files, one line and exit code 2 for a wrong input."""

import os
import subprocess
import sys

import pytest

from jaxrl.cli import main

pytestmark = pytest.mark.xdist_group("cli")  # one worker: its runs are shared


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
    assert "reinforce: actions Discrete or Box" in printed


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert main(["train", "--help"]) == 0
    assert main(["--version"]) == 0
    assert "jaxrl 0." in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["train", "dqn", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--env", "--seeds", "--hparams.learning-rate", "--sweep.learning-rate", "--agent.num-envs", "--batch-size"):
        assert option in printed


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("bogus", "unknown command 'bogus'; there are train"),
        ("train ppo", "unknown algorithm 'ppo'; there are dqn, reinforce"),
        ("train dqn --env CartPole", "unknown environment 'CartPole'; did you mean CartPole-v1"),
        ("train dqn --env PointMass", "needs a Discrete action space"),
        ("train dqn --foo 3", "--foo"),
        ("train dqn --seeds x", "--seeds"),
        ("train dqn --seeds 0", "seeds must be at least 1, got 0"),
        ("train dqn --steps 10", "steps=10 is too few"),
        ("train dqn --hparams.learning-rate nan", "hparams.learning_rate must lie in [0, inf], got nan"),
        ("train dqn --hparams.discount -1", "hparams.discount must lie in [0, 1], got -1.0"),
        ("train dqn --sweep.tau 0.5 2", "hparams.tau must lie in [0, 1], got 2.0"),
        ("train dqn --agent.batch-size 64 --agent.capacity 32", "batch_size 64 is larger than the replay's capacity 32"),
        ("train dqn --agent.num-envs 0", "num_envs must be at least 1"),
        ("train dqn --seeds 10000000", "use --batch-size"),
        ("train dqn --out /proc/nowhere/run", "cannot write to"),
        ("train reinforce --agent.mode continuing --agent.baseline mean", "needs baseline='value'"),
        ("eval /nowhere", "/nowhere is no run folder"),
        ("plot /nowhere", "/nowhere is no run folder"),
        ("plot", "name at least one run folder"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_code_2(argv, message, capsys):
    assert main(argv.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("jaxrl: error: ")
    assert error.count("\n") == 1


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
    code = "import jax, jaxrl.cli as cli; cli._set_up_jax(); print(jax.config.jax_compilation_cache_dir)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=inherited | variables)
    expected = {"off": "None", "here": str(tmp_path / "here"), "user": str(tmp_path / ".cache" / "jaxrl")}[where]
    assert done.stdout.strip() == expected, done.stderr
