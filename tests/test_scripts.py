"""The scripts of the repository: what is imported alone, in a loop of somebody else's, and the page that lists it."""

import ast
import importlib
import inspect
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
import yaml

from jaxrl.cli import _train

SCRIPTS = Path(__file__).parent.parent / "scripts"
# What is a definition, or a tool of the others, has no paper.
NO_PAPER = {"greedy", "select", "Distribution", "VTrace"}


@pytest.fixture(scope="module")
def reference():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        yield importlib.import_module("reference")


def test_the_page_of_the_library_is_up_to_date(reference):
    assert reference.PAGE.read_text() == reference.page(), "run scripts/reference.py"


def test_the_page_names_every_public_function(reference):
    page = reference.page()
    for name in reference.MODULES:
        module = importlib.import_module(f"jaxrl.{name}")
        defined = [n for n, x in vars(module).items() if inspect.isfunction(x) and x.__module__.startswith(module.__name__)]
        for public in [n for n in defined if not n.startswith("_")]:
            assert f"**`{public}(" in page


@pytest.mark.parametrize("module", ["losses", "returns", "distributions"])
def test_every_function_says_what_it_computes_and_where_that_comes_from(reference, module):
    module = importlib.import_module(f"jaxrl.{module}")
    for name in reference.public_names(module):
        text = reference.documentation(module, name)
        assert len(reference.summary(text)) > 20, name
        assert name in NO_PAPER or re.search(r"\b(19|20)\d\d[ab]?\b", text), f"{name} names no paper"
        if inspect.isfunction(getattr(module, name)):
            assert ">>> " in text, f"{name} has no example"


def test_a_loop_of_ones_own_learns_with_one_loss_and_the_replay():
    script = SCRIPTS / "own_loop.py"
    assert len(script.read_text().splitlines()) < 80
    imported = [node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, ast.ImportFrom)]
    assert [(node.module, [alias.name for alias in node.names]) for node in imported] == [("jaxrl", ["losses", "replay"])]
    done = subprocess.run([sys.executable, str(script), "2500"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    # Eight seeds gave 147 to 312; random actions give 22, and what does not learn stays below 60.
    assert float(done.stdout.split()[-1]) > 80


# --- what runs the tests


def test_contributing_lists_every_script_that_tests():
    text = (SCRIPTS.parent / "CONTRIBUTING.md").read_text()
    scripts = sorted(SCRIPTS.glob("test*.sh"))
    assert len(scripts) > 8
    assert not [script.name for script in scripts if f"scripts/{script.name}" not in text]


def test_what_needs_another_package_has_the_mark_that_its_script_looks_for():
    """`importorskip` would be skipped there too. The suites have a script of their own."""
    tests = [path for path in (SCRIPTS.parent / "tests").rglob("*.py") if path.parent.name != "suites" and path != Path(__file__)]
    assert not [path.name for path in tests if "importorskip" in path.read_text()]
    assert sum("pytest.mark.needs(" in path.read_text() for path in tests) > 5


def test_the_site_is_built_with_the_packages_that_its_extra_names(tmp_path):
    """They are installed once, and again when the list has changed or could not be installed."""
    bin, log = tmp_path / "venv" / "bin", tmp_path / "log"
    bin.mkdir(parents=True)
    pip = f'echo "$@" >> {log}; [ ! -e {tmp_path}/offline ]'
    (bin / "python").write_text(f'#!/usr/bin/env bash\nif [ "$1" = -m ]; then {pip}; else exec {sys.executable} "$@"; fi\n')
    (bin / "mkdocs").write_text(f"#!/usr/bin/env bash\necho mkdocs $@ >> {log}\n")
    for program in bin.iterdir():
        program.chmod(0o755)

    def build():
        log.write_text("")
        done = subprocess.run(
            [SCRIPTS / "docs.sh", "serve"], env=os.environ | {"JAXRL_VENV": str(bin.parent)}, capture_output=True
        )
        return done.returncode, [line.split()[0] if "pip" not in line else "pip" for line in log.read_text().splitlines()]

    assert build() == (0, ["pip", "mkdocs"])
    assert build() == (0, ["mkdocs"])
    (bin.parent / "installed.txt").write_text("mkdocs>=1\n")
    (tmp_path / "offline").touch()
    assert build() == (1, ["pip"])
    (tmp_path / "offline").unlink()
    assert build() == (0, ["pip", "mkdocs"])
    assert "mkdocstrings" in (bin.parent / "installed.txt").read_text()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """The scripts in a folder of their own, where no environment of theirs is."""
    shutil.copytree(SCRIPTS, tmp_path / "clone" / "scripts")
    shutil.copy(SCRIPTS.parent / "pyproject.toml", tmp_path / "clone")
    for name in ("JAXRL_VENV", "PYTHON", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "clone"


def fake_python(path, log, *, able=True, plugin=False, index=True):
    """A Python that writes down what it is called for. `able`: to run the tests, by itself or after `pip`."""
    path.parent.mkdir(parents=True)
    path.write_text(f"""#!/usr/bin/env bash
case "$*" in
  *"import chex"*) {str(able).lower()} || [ -e {log}.able ] || {{ echo "No module named 'chex'" >&2; exit 1; }} ;;
  *jax_cuda*) {str(plugin).lower()} ;;
  *"-m pip"*) echo "pip ${{@: -1}}" >> {log}; touch {log}.able; {str(index).lower()} ;;
  *"-m pytest"*) echo "pytest $0 $PYTHONPATH" >> {log} ;;
esac
""")
    path.chmod(0o755)


def run_gpu(clone, log, **variables):
    done = subprocess.run([clone / "scripts/test-gpu.sh"], env=os.environ | variables, capture_output=True, text=True)
    return done, log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize("chosen", [True, False])
def test_on_a_gpu_what_has_all_packages_is_used_as_it_is(clone, tmp_path, chosen):
    """There may be no package index, and jaxrl need not be installed."""
    log, python = tmp_path / "log", tmp_path / "a venv" / "bin" / ("python" if chosen else "python3")
    fake_python(python, log)
    variables = {"JAXRL_VENV": str(python.parent.parent)} if chosen else {"PATH": f"{python.parent}:{os.environ['PATH']}"}
    done, called = run_gpu(clone, log, **variables)
    assert done.returncode == 0, done.stderr
    assert called == [f"pytest {python} {clone}"]


@pytest.mark.parametrize(("plugin", "extras"), [(False, "[gymnax,test,cuda]"), (True, "[gymnax,test]")])
def test_on_a_gpu_what_is_missing_is_installed_but_no_second_plugin(clone, tmp_path, plugin, extras):
    log, python = tmp_path / "log", tmp_path / "venv" / "bin" / "python"
    fake_python(python, log, able=False, plugin=plugin)
    done, called = run_gpu(clone, log, JAXRL_VENV=str(python.parent.parent))
    assert done.returncode == 0, done.stderr
    assert called == [f"pip .{extras}", f"pytest {python} {clone}"]
    assert "cannot run these tests: No module named 'chex'" in done.stderr


def test_on_a_gpu_without_packages_and_index_it_says_what_is_missing(clone, tmp_path):
    log, python = tmp_path / "log", tmp_path / "venv" / "bin" / "python"
    fake_python(python, log, able=False, index=False)
    done, called = run_gpu(clone, log, JAXRL_VENV=str(python.parent.parent))
    assert (done.returncode, called) == (1, ["pip .[gymnax,test,cuda]"])
    assert "No module named 'chex'" in done.stderr
    assert "is there a connection to a package index?" in done.stderr


@pytest.mark.parametrize("script", ["scripts/test-lowest.sh", "scripts/test-newest.sh"])
def test_another_version_than_the_page_names_is_a_warning(clone, script):
    assert f"\nsay_versions {script}\n" in (SCRIPTS.parent / script).read_text()
    fake = clone / ".venv" / "bin" / "python"
    fake.parent.mkdir(parents=True)
    fake.write_text(f'#!/usr/bin/env bash\nexec {sys.executable} "$@"\n')
    fake.chmod(0o755)
    page = clone / "docs" / "install.md"
    page.parent.mkdir()
    page.write_text((SCRIPTS.parent / "docs" / "install.md").read_text())
    (row,) = [line for line in page.read_text().splitlines() if f"`{script}`" in line]
    here = f"Python {sys.version_info.major}.{sys.version_info.minor}, jax {jax.__version__}"

    def said():
        code = f". scripts/environment.sh; say_versions {script}"
        done = subprocess.run(["bash", "-euc", code], cwd=clone, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"jaxrl: testing with {here}, flax ")
        return done.stderr

    python, version = row.split(" | ")[1:3]
    named = f"Python {python}, jax {version}"
    assert (f"WARNING: docs/install.md names {named} for this test" in said()) == (named != here)
    page.write_text(page.read_text().replace(f"| {python} | {version} |", "| {} | {} |".format(*re.findall(r"[\d.]+", here))))
    assert said() == ""


def test_the_lists_of_tests_name_what_is_there():
    """pytest would run none of the others."""
    code = '. scripts/environment.sh; printf "%s\\n" "${CORE[@]}" "${ON_GPU[@]}"'
    names = subprocess.check_output(["bash", "-euc", code], cwd=SCRIPTS.parent, text=True).split()
    assert {"tests/losses", "tests/agents"} <= set(names)
    for path, _, test in (name.partition("::") for name in names):
        assert (SCRIPTS.parent / path).exists(), path
        assert not test or f"\ndef {test}(" in (SCRIPTS.parent / path).read_text(), test


# --- clusters


def slurm(tmp_path, step, signal_after=None, cancelling="true"):
    """Run the batch file with commands of SLURM that write down how they are called; `step` is what srun does, and `cancelling`
    what scancel does after the step has heard of it."""
    bin = tmp_path / "bin"
    bin.mkdir()
    log = tmp_path / "log"
    for name, does in {"srun": step, "scancel": f"touch {tmp_path}/stop\n{cancelling}", "scontrol": "true"}.items():
        (bin / name).write_text(f'#!/usr/bin/env bash\necho {name} "$@" >> {log}\n{does}\n')
        (bin / name).chmod(0o755)
    variables = {"PATH": f"{bin}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "16"}
    process = subprocess.Popen([SCRIPTS / "slurm.sh", "dqn", "--out", "a b"], env=os.environ | variables)
    if signal_after is not None:
        while not log.exists():
            time.sleep(0.02)
        time.sleep(signal_after)
        process.send_signal(signal.SIGTERM)
    return process.wait(timeout=60), log.read_text().splitlines()


TRAIN = "srun --kill-on-bad-exit=0 jaxrl train dqn --out a b --distributed"


@pytest.mark.parametrize("code", [0, 3])
def test_a_job_under_slurm_ends_with_its_processes(tmp_path, code):
    assert slurm(tmp_path, f"exit {code}") == (code, [TRAIN])


def test_a_job_under_slurm_saves_at_its_time_limit_and_goes_back_to_the_queue(tmp_path):
    saving = f"while [ ! -e {tmp_path}/stop ]; do sleep 0.05; done; sleep 0.3; touch {tmp_path}/saved; exit 143"
    code, log = slurm(tmp_path, saving, signal_after=0.2)
    assert (code, log) == (143, [TRAIN, "scancel --signal=TERM 7", "scontrol requeue 7"])
    assert (tmp_path / "saved").exists(), "it waits for the checkpoints"


@pytest.mark.parametrize("cancelling", ["true", "sleep 1"])
def test_a_job_that_finishes_at_its_time_limit_is_not_queued_again(tmp_path, cancelling):
    """Also if the step ends while the script still handles the signal."""
    step = f"while [ ! -e {tmp_path}/stop ]; do sleep 0.05; done"
    code, log = slurm(tmp_path, step, signal_after=0.2, cancelling=cancelling)
    assert (code, log) == (0, [TRAIN, "scancel --signal=TERM 7"])


def test_the_processes_of_a_job_under_slurm_have_its_cores(tmp_path):
    assert slurm(tmp_path, "exit $SRUN_CPUS_PER_TASK")[0] == 16


def test_the_processes_of_the_jobset_find_each_other():
    jobset = yaml.safe_load((SCRIPTS / "jobset.yaml").read_text())
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    name = jobset["metadata"]["name"]
    port = container["ports"][0]["containerPort"]
    assert variables["JAX_COORDINATOR_ADDRESS"] == f"{name}-{job['name']}-0-0.{name}:{port}"
    assert variables["JAX_NUM_PROCESSES"] == str(spec["parallelism"]) == str(spec["completions"])
    program, command, *words = container["command"]
    assert (program, command, words[-1]) == ("jaxrl", "train", "--distributed")
    options = _train._parser(_train._settings(words[0], words[1:])).parse(words[1:])
    assert options.distributed
    assert str(options.out).startswith(container["volumeMounts"][0]["mountPath"])
