"""The scripts of the repository: what is imported alone, in a loop of somebody else's, and the page that lists it."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
