"""The package as a whole: names, and what an agent needs."""

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import jaxrl

ROOT = Path(jaxrl.__file__).parent
PACKAGES = [
    "jaxrl",
    *(info.name for info in pkgutil.walk_packages([str(ROOT)], "jaxrl.") if info.ispkg and not info.name.endswith("_src")),
]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_public_name_hides_a_module(name):
    """`jaxrl.agents.dqn` is a function, so no module of that name may exist."""
    package = importlib.import_module(name)
    modules = [info.name for info in pkgutil.iter_modules(package.__path__)]
    assert modules
    public = [*getattr(package, "__all__", ()), *(n for n in dir(package) if not n.startswith("_"))]
    hidden = [n for n in modules if n in public and not isinstance(getattr(package, n, None), ModuleType | None)]
    assert not hidden


@pytest.mark.parametrize("path", sorted((ROOT / "agents").glob("_*.py")), ids=lambda path: path.stem)
def test_an_agent_needs_nothing_private(path):
    """What jaxrl's own agents import, an agent outside of it can import too."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    imported = [f"{getattr(node, 'module', '')}.{alias.name}" for node in nodes for alias in node.names]
    assert imported
    private = [name for name in imported if "_src" in name.split(".")]
    assert not private, "agents take their checks from jaxrl.checks, noise from jaxrl.noise, microbatches from jaxrl.minibatches"


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    """No function over 60 lines without its docstring, no file over 400 lines."""
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            length = node.end_lineno - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)
            assert length <= 60, node.name
