"""Generate docs/library.md, the reference of the functions that can be used on their own, from their docstrings."""

import ast
import importlib
import inspect
import itertools
import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "library.md"
MODULES = ("losses", "returns", "distributions", "schedules", "exploration", "replay", "replay.prioritized")
HEAD = """# Functions for your own JAX code

These functions take and return arrays, and do not need the rest of jaxrl. `scripts/reference.py` generates this page from
their docstrings, which also describe the shapes of all arguments and the exceptions, and give an example.
"""


def public_names(module: Any) -> list[str]:
    """`__all__` without modules, or what the module itself defines without an underscore, in the order of its source."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    names = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def documentation(module: Any, name: str) -> str:
    """The docstring of a function or class, or the string below a module's constant."""
    value = getattr(module, name)
    if inspect.isfunction(value) or inspect.isclass(value):
        return inspect.getdoc(value) or ""
    body = ast.parse(inspect.getsource(module)).body
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return inspect.cleandoc(ast.literal_eval(after.value)) if isinstance(after, ast.Expr) else ""
    return ""


def signature(module: Any, name: str) -> str:
    value = getattr(module, name)
    if not inspect.isfunction(value):
        return name
    names, keyword_only = [], False
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind == parameter.KEYWORD_ONLY and not keyword_only:
            names.append("*")
            keyword_only = True
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        names.append(parameter.name + default)
    return f"{name}({', '.join(names)})"


def summary(text: str) -> str:
    """The paragraphs of a docstring before its arguments, joined."""
    before = re.split(r"\n\s*(?:Args|Returns|Raises):\n|\n>>> ", text)[0]
    return " ".join(before.split()).replace("a*", r"a\*")  # a single asterisk would begin italics


def page() -> str:
    parts = [HEAD]
    for module_name in MODULES:
        module = importlib.import_module(f"jaxrl.{module_name}")
        parts.append(f"\n## jaxrl.{module_name}\n\n{summary(inspect.getdoc(module) or '')}\n")
        for name in public_names(module):
            parts.append(f"\n**`{signature(module, name)}`**  \n{summary(documentation(module, name))}\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
