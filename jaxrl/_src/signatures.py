"""Options of a function, read from its signature and its docstring."""

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple


class Option(NamedTuple):
    """A keyword-only argument that can be written as text."""

    name: str
    type: type  # bool, int, float or str: of the value, or of its elements
    repeated: bool  # whether the value is a tuple of elements
    default: Any
    help: str


def options_of(function: Callable, *, without: Collection[str] = ()) -> tuple[Option, ...]:
    """The keyword-only arguments of `function` that are booleans, numbers, strings, or tuples of these.

    Arguments of other types, such as an optimizer, and those named in `without` are left out.

    >>> def agent(network, *, batch_size: int = 32, widths: tuple[int, ...] = (), optimizer=None):
    ...     '''An agent.
    ...
    ...     Args:
    ...       network: its network.
    ...       batch_size: transitions in
    ...         a gradient step.
    ...     '''
    >>> [(option.name, option.repeated, option.help) for option in options_of(agent)]
    [('batch_size', False, 'transitions in a gradient step.'), ('widths', True, '')]
    """
    hints, texts, options = typing.get_type_hints(function), help_of(function), []
    for name, parameter in inspect.signature(function).parameters.items():
        kind = _element_type(hints.get(name))
        if parameter.kind is parameter.KEYWORD_ONLY and kind is not None and name not in without:
            options.append(Option(name, *kind, parameter.default, texts.get(name, "")))
    return tuple(options)


def _element_type(hint: Any) -> tuple[type, bool] | None:
    """The type of a value or of its elements, and whether there are several; None for types that are not plain."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        present = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return _element_type(present[0]) if len(present) == 1 else None
    if typing.get_origin(hint) is typing.Literal:
        return type(typing.get_args(hint)[0]), False
    if typing.get_origin(hint) in (tuple, Sequence):
        element = _element_type(typing.get_args(hint)[0])
        return None if element is None else (element[0], True)
    return (hint, False) if hint in (bool, int, float, str) else None


def help_of(function: Any) -> dict[str, str]:
    """The text of each argument in the "Args:" section of a Google-style docstring, or each field in "Attributes:".

    "as for `other`" stands for the text in the docstring of `other`, a name in the same module or package.
    """
    texts: dict[str, str] = {}
    names: list[str] = []
    for line in _section(inspect.getdoc(function) or "", ("Args:", "Attributes:")):
        if entry := re.match(r"  (\w+(?:, \w+)*):(?: (.*))?$", line):
            names = entry[1].split(", ")
            texts |= dict.fromkeys(names, entry[2] or "")
        else:
            texts |= {name: f"{texts[name]} {line.strip()}".strip() for name in names}
    for name, text in texts.items():
        if reference := re.match(r"as for `(\w+)`", text):
            texts[name] = help_of(_named(reference[1], function.__module__)).get(name, text)
    return texts


def _named(name: str, module: str) -> Any:
    """The object of this name in a module or, if it has none, in the package of the module."""
    here = sys.modules[module]
    return getattr(here, name) if hasattr(here, name) else getattr(sys.modules[here.__package__ or module], name)


def _section(docstring: str, headings: Collection[str]) -> list[str]:
    """The lines below the first of these headings, up to the next line that is not indented."""
    lines = docstring.split("\n")
    begin = next((i + 1 for i, line in enumerate(lines) if line in headings), len(lines))
    end = next((i for i in range(begin, len(lines)) if lines[i] and not lines[i].startswith("  ")), len(lines))
    return lines[begin:end]
