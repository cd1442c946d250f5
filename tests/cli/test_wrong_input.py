"""Wrong command lines and damaged folders, for every command: exit code 2, one line, and nothing is left behind."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from jaxrl.cli import COMMANDS, main
from jaxrl.experiment import folder
from jaxrl.experiment.policies import abstract_policies
from tests.experiment.run_folders import write_run


def zeros(config):
    return jax.tree.map(np.zeros_like, abstract_policies(config))


def edited(path, **changes):
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | changes))


def damaged(root, name, change):
    shutil.copytree(root / "run", root / name)
    change(root / name)


def write_text(name, text):
    return lambda run: (run / name).write_bytes(text)


def flip(run):
    """One bit of the largest file of the policies."""
    path = max((p for p in (run / "policies").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


CHANGES = {
    "no-config": lambda run: (run / "config.json").unlink(),
    "binary-config": write_text("config.json", b"\x00\xff\xfe"),
    "empty-config": write_text("config.json", b""),
    "list-config": write_text("config.json", b"[1, 2]"),
    "half-config": write_text("config.json", b'{"jaxrl": "0.1.0", "env": "CartPo'),
    "later-config": lambda run: edited(run / "config.json", jaxrl="99.0"),
    "other-field": lambda run: edited(run / "config.json", colour="blue"),
    "other-env": lambda run: edited(run / "config.json", env="CartPoleX"),
    "null-env": lambda run: edited(run / "config.json", env=None),
    "no-seeds": lambda run: edited(run / "config.json", seeds=0),
    "text-seeds": lambda run: edited(run / "config.json", seeds="many"),
    "other-sweep": lambda run: edited(run / "config.json", sweep={"bogus": [1.0]}),
    "other-wrapper": lambda run: edited(run / "config.json", wrappers=["sneeze"]),
    "wrong-eval": lambda run: edited(run / "config.json", eval_every="often"),
    "fewer-seeds": lambda run: edited(run / "config.json", seeds=2),
    "in-parts": lambda run: [(run / "config.json").unlink(), (run / "metrics.csv").unlink(), (run / "parts").mkdir()],
    "no-policies": lambda run: shutil.rmtree(run / "policies"),
    "no-best": lambda run: shutil.rmtree(run / "best_policies"),
    "flipped": flip,
    "no-checksums": lambda run: (run / "policies" / "checksums.json").unlink(),
    "no-record": lambda run: (run / "policies" / "record.json").unlink(),
    "binary-record": write_text("policies/record.json", b"\xff\x00"),
    "no-arrays": lambda run: shutil.rmtree(run / "policies" / "arrays"),
    "no-metrics": lambda run: [(run / name).unlink() for name in ("metrics.csv", "evaluation.csv")],
    "empty-metrics": write_text("metrics.csv", b""),
    "binary-metrics": write_text("metrics.csv", b"\x83\xff\x00"),
    "text-metrics": write_text("metrics.csv", b"seed,tau,env_steps,episode_return\r\n1,0.5,x,3\r\n"),
    "ragged-metrics": write_text("metrics.csv", b"seed,tau,env_steps,episode_return\r\n1,0.5\r\n"),
    "no-column": write_text("metrics.csv", b"seed,tau,env_steps\r\n1,0.5,3\r\n"),
    "binary-evaluation": write_text("evaluation.csv", b"\x83\xff\x00"),
    "other-evaluation": write_text("evaluation.csv", b"seed,tau,env_steps,episode,return\r\n99,0.5,1,0,1.0\r\n"),
    "no-column-evaluation": write_text("evaluation.csv", b"seed,env_steps,episode,return\r\n1,1,0,1.0\r\n"),
    "no-evaluation": lambda run: (run / "evaluation.csv").unlink(),
    "damaged-system": write_text("system.json", b"["),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("wrong")
    config = write_run(path / "run", [100, 200], sweep={"tau": [0.5, 1.0]}, seeds=3)
    folder.save_policies(path / "run", zeros(config))
    folder.save_policies(path / "run", zeros(config), {"returns": [0.0] * 6, "env_steps": [1] * 6}, name="best_policies")
    for name, change in CHANGES.items():
        damaged(path, name, change)
    (path / "empty").mkdir()
    (path / "file").write_text("text")
    (path / "bad.toml").write_text("env = [")
    (path / "field.toml").write_text('algorithm = "dqn"\nenv = "Chain"\ncolour = 1\n')
    (path / "often.toml").write_text('algorithm = "dqn"\nenv = "Chain"\neval_every = "often"\n')
    return path


NOT_A_RUN = "is not a run folder: it has no config.json"
CANNOT = "is not a configuration that this version of jaxrl can read"
WRONG = [
    # the command itself
    ("trian", "unknown command 'trian'"),
    ("--bogus", "unknown command '--bogus'"),
    ("Train dqn", "unknown command 'Train'"),
    # explain
    ("explain empty", NOT_A_RUN),
    ("explain run extra", "unrecognized arguments: extra"),
    ("explain run --seed 99", "99"),
    ("explain run --dims 1", "--dims expected 2 arguments"),
    ("explain run --dims 0 0", "dims must be two different components of the observation"),
    ("explain run --dims 0 4", "got 0 4"),
    ("explain run --episodes 0", "episodes must be at least 1, got 0"),
    ("explain run --max-steps 0", "max_steps must be at least 1, got 0"),
    ("explain run --episode-seed -1", "the seed of the episodes must be at least 0, got -1"),
    ("explain run -o empty", "-o/--out cannot be 'empty': it is a folder, so name a file in it"),
    ("explain no-policies", "holds no policies"),
    # train
    ("train --env CartPole-v1", "name an algorithm first"),
    ("train dqn ppo", "unrecognized arguments: ppo (see `jaxrl train dqn --help`)"),
    ("train dqn --learning_rate 1", "--learning-rate 1 (did you mean --hparams.learning-rate or --sweep.learning-rate?)"),
    ("train ppo --agent.epochs=3", "--agent.epochs=3 (did you mean --agent.num-epochs?)"),
    ("train dqn --eval-every often", "--eval-every cannot be 'often': give an integer"),
    ("train dqn --eval-every 1e4", "--eval-every cannot be '1e4': give an integer"),
    ("train dqn --eval-every 0", "eval_every must be at least 1, got 0"),
    ("train dqn --eval-every -5", "eval_every must be at least 1, got -5"),
    ("train dqn --eval-every", "--eval-every expected one argument"),
    ("train dqn --log", "--log expected one argument"),
    ("train dqn --log neptune", "--log invalid choice: 'neptune'"),
    ("train dqn --checkpoint-every soon", "--checkpoint-every cannot be 'soon'"),
    ("train dqn --checkpoint-every infm", "--checkpoint-every cannot be 'infm'"),
    ("train dqn --out run", "run exists and is not an empty folder"),
    ("train dqn --out file", "file exists and is not an empty folder"),
    ("train dqn --out file/run", "cannot write to file/run"),
    ("train dqn --out", "--out expected one argument"),
    ("train dqn --part 1/2", "need --out, a folder that all processes share"),
    ("train dqn --part half --out new", "--part must be two numbers such as 3/8"),
    ("train dqn --part 3/2 --out new", "the parts are 1/2 to 2/2; got 3/2"),
    ("train dqn --part 0/2 --out new", "part must be at least 1, got 0"),
    ("train dqn --seed -1 --sweep.tau uniform:0:1 --samples 2 --out new", "seed must be at least 0, got -1"),
    ("train dqn --part 1/99 --seeds 2 --out new", "the runs cannot be divided into 99 parts"),
    ("train dqn --part 1/2 --distributed --out new", "leave out --part"),
    ("train dqn --distributed", "need --out"),
    ("train dqn --seed -1", "seed must be at least 0, got -1"),
    ("train dqn --seeds 1.5", "--seeds cannot be '1.5': give an integer"),
    ("train dqn --batch-size 0", "batch_size must be at least 1, got 0"),
    ("train dqn --steps -5", "steps"),
    ("train dqn --env ''", "unknown environment"),
    ("train dqn --env brax/nothing", "brax"),
    ("train dqn --config", "--config expected one argument"),
    ("train dqn --config nothing.toml", "cannot read nothing.toml"),
    ("train dqn --config bad.toml", "bad.toml is not TOML"),
    ("train dqn --config field.toml", "it has the field 'colour'"),
    ("train dqn --config often.toml", 'eval_every must be a number of environment steps, "auto" or "none"; got \'often\''),
    ("train ppo --config run/config.json", "is a configuration of dqn, not of ppo"),
    ("train --config half-config/config.json", "is not JSON"),
    ("train --config later-config/config.json", "was written by jaxrl 99.0, which is later than this version"),
    ("train --config run", "cannot read run (Is a directory)"),
    ("train dqn --hparams.bogus 1", "--hparams.bogus"),
    ("train dqn --hparams.tau 0.5 --sweep.tau 0.5 1", "tau is both swept and set"),
    ("train dqn --agent.hidden 0", "hidden"),
    # resume
    ("resume empty", NOT_A_RUN),
    ("resume file", NOT_A_RUN),
    ("resume no-config", NOT_A_RUN),
    ("resume half-config", CANNOT),
    ("resume later-config", "which is later than this version"),
    ("resume run --log neptune", "--log invalid choice"),
    ("resume run run", "unrecognized arguments: run"),
    ("resume other-env", "unknown environment 'CartPoleX'"),
    ("resume null-env", "env must be text, got None"),
    ("resume flipped", "policies is damaged"),
    # tune
    ("tune trpo", "unknown algorithm 'trpo'"),
    ("tune dqn --out new", "there is nothing to search"),
    ("tune dqn --method guess", "--method invalid choice: 'guess'"),
    ("tune dqn --sweep.tau uniform:0:1 --out new", "--samples and a range belong together"),
    ("tune dqn --sweep.tau 0.5 1 --out run", "run exists and is not an empty folder"),
    ("tune dqn --sweep.tau 0.5 1 --method pbt --out new", "pbt searches ranges"),
    # merge
    ("merge", "the following arguments are required: RUN"),
    ("merge run", "run has no parts to join"),
    ("merge nothing", "nothing has no parts to join"),
    # eval
    ("eval", "the following arguments are required: RUN"),
    ("eval empty", NOT_A_RUN),
    ("eval run --episodes 0", "num_episodes must be at least 1, got 0"),
    ("eval run --episodes few", "--episodes cannot be 'few'"),
    ("eval run --policy worst", "--policy invalid choice: 'worst'"),
    ("eval no-best --policy best", "holds no best policies: it was trained without evaluations"),
    ("render no-best --policy best", "holds no best policies: it was trained without evaluations"),
    ("export no-best --policy best", "holds no best policies: it was trained without evaluations"),
    ("explain no-best --policy best", "holds no best policies: it was trained without evaluations"),
    ("eval no-policies", "holds no policies: the run did not finish; continue with `jaxrl resume no-policies`"),
    ("eval flipped", "policies is damaged"),
    ("eval no-checksums", "policies is damaged (there is no checksums.json)"),
    ("eval no-record", "policies is damaged (there is no record.json)"),
    ("eval binary-record", "policies is damaged (record.json was altered)"),
    ("eval no-arrays", "policies is damaged"),
    ("eval fewer-seeds", "do not belong together"),
    ("eval binary-config", CANNOT),
    ("eval empty-config", CANNOT),
    ("eval list-config", CANNOT),
    ("eval other-field", CANNOT),
    ("eval no-seeds", "seeds must be at least 1"),
    ("eval text-seeds", CANNOT),
    ("eval other-sweep", "dqn has no hyperparameter 'bogus'"),
    ("eval other-wrapper", "unknown wrapper 'sneeze'"),
    ("eval wrong-eval", '"auto" or "none"'),
    # compare
    ("compare empty", NOT_A_RUN),
    ("compare run later-config", "which is later than this version"),
    ("compare binary-evaluation", "evaluation.csv is damaged"),
    ("compare other-evaluation", "do not belong together"),
    ("compare no-column-evaluation", "evaluation.csv is damaged (it has no column tau)"),
    ("compare", "name at least one run folder"),
    ("compare run/../run run", "is given twice: name each run folder once"),
    ("compare run --bogus", "--bogus"),
    ("compare run --reference CartPole-v1 0", "--reference expected 3 arguments"),
    ("compare run --reference CartPole-v1 1 x", "--reference takes an environment and two numbers, LOW < HIGH; got"),
    ("compare run --reference CartPole-v1 1 1", "--reference takes an environment and two numbers, LOW < HIGH; got"),
    ("compare run --reference CartPole-v1 nan 1", "--reference takes an environment and two numbers, LOW < HIGH; got"),
    # report
    ("report", "name at least one run folder"),
    ("report empty", NOT_A_RUN),
    ("report run run", "is given twice"),
    ("report run -o empty", "-o/--out cannot be 'empty': it is a folder, so name a file in it"),
    ("report run -o nothing/page.html", "cannot write nothing/page.html: there is no folder nothing"),
    ("report run -o /proc/page.html --films 0", "cannot write /proc/page.html"),
    ("report run -o page.pdf", "a report is a page, with the suffix .html; got page.pdf"),
    ("report run --films -1", "--films must be at least 0, got -1"),
    ("report run --films x", "--films cannot be 'x'"),
    ("report run --reference a 1", "--reference expected 3 arguments"),
    ("report binary-metrics --films 0", "metrics.csv is damaged"),
    ("report damaged-system --films 0", "system.json is damaged"),
    # plot
    ("plot run empty", NOT_A_RUN.replace("config.json", "metrics.csv")),
    ("plot in-parts", "in-parts has parts that are not joined: `jaxrl resume in-parts` finishes and joins them"),
    ("plot no-metrics", "it has no metrics.csv"),
    ("plot empty-metrics", "metrics.csv holds no rows yet"),
    ("plot text-metrics", "metrics.csv is damaged"),
    ("plot ragged-metrics", "metrics.csv is damaged"),
    ("plot no-column", "has no column 'episode_return'"),
    ("plot run --evaluation", "run has no evaluations during training"),
    ("plot no-evaluation --evaluation", "no-evaluation has no evaluations: there is no evaluation.csv"),
    ("plot empty --evaluation", NOT_A_RUN),
    ("plot run -o empty", "cannot be 'empty': it is a folder, so name a file in it"),
    ("plot run -o a.xyz", "xyz"),
    ("plot run -o file/a.png", "cannot write the picture file/a.png"),
    # render
    ("render", "the following arguments are required: RUN"),
    ("render empty", NOT_A_RUN),
    ("render run --seeds 99", "run has the seeds 0 to 2; got 99"),
    ("render run --seeds", "--seeds expected at least one argument"),
    ("render run --seeds x", "--seeds cannot be 'x'"),
    ("render run --episodes 0", "num_episodes must be at least 1, got 0"),
    ("render run --max-steps 100000", "600,000 pictures"),
    ("render run --fps 100", "fps must be at most 50, got 100"),
    ("render run --seed -1", "seed must be at least 0"),
    ("render run -o film.mp4", "a film is a .gif, or a .png"),
    ("render run -o nothing/film.gif", "there is no folder nothing"),
    ("render no-policies", "holds no policies"),
    ("render no-policies --max-steps 100000", "holds no policies"),
    # export
    ("export run --format pickle", "--format invalid choice: 'pickle'"),
    ("export run --seed 99", "run has seeds 0 to 2"),
    ("export run --setting tau", "--setting cannot be 'tau': give NAME=VALUE"),
    ("export run --setting tau=x", "give a number"),
    ("export run --setting discount=1", "run sweeps tau; got a value of 'discount'"),
    ("export no-policies", "holds no policies"),
    ("export run -o empty", "cannot be 'empty': it is a folder, so name a file in it"),
    # runs, envs, agents, completion
    ("runs nothing", "nothing is not a folder"),
    ("runs file", "file is not a folder"),
    ("runs --yaml", "--yaml"),
    ("envs CartPole-v1", "unrecognized arguments: CartPole-v1"),
    ("agents --bogus", "--bogus"),
    ("completion", "the following arguments are required: shell"),
    ("completion tcsh", "invalid choice: 'tcsh'"),
]


def contents(root):
    """Every file with its size and time; a folder only by its name, since a lock may have been in it."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None for path in root.rglob("*")}


@pytest.mark.parametrize(("line", "message"), WRONG, ids=[line for line, _ in WRONG])
def test_a_wrong_input_is_one_line_and_leaves_nothing(root, line, message, monkeypatch, capsys):
    monkeypatch.chdir(root)
    before = contents(root)
    argv = ["" if word == "''" else word for word in line.split()]
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("jaxrl: error: ")
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert contents(root) == before, "files are left behind or changed"


def test_the_table_is_of_every_command():
    assert len(WRONG) >= 100
    assert {line.split()[0] for line, _ in WRONG} >= set(COMMANDS)
    assert len({line for line, _ in WRONG}) == len(WRONG)
    named = {word.partition("/")[0] for line, _ in WRONG for word in line.split()}
    assert set(CHANGES) <= named


def test_a_folder_that_cannot_be_written_is_one_line(root, monkeypatch, capsys):
    """In /proc, not even root may."""
    monkeypatch.chdir(root)
    (root / "empty").chmod(0o500)
    try:
        for out in ("/proc/run", *(() if os.geteuid() == 0 else ("empty/run",))):
            assert main(["train", "dqn", "--out", out]) == 2
            error = capsys.readouterr().err
            assert "cannot write to" in error
            assert error.count("\n") == 1
    finally:
        (root / "empty").chmod(0o700)
