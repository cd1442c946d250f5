"""What a function can read and change besides its arguments, in a form that shows whether it has changed."""

import functools
import types
from typing import Any

import numpy as np

_DEPTH = 4  # of containers in containers
_PLAIN = (int, float, complex, str, bytes, type(None))


def external_state(function: Any, depth: int = _DEPTH) -> dict[str, Any]:
    """The closure, the module's variables, the object of a method and the arguments of a `functools.partial`, by name, as
    values that compare equal as long as nothing in them changes.

    Functions in the closure are followed, since a wrapper holds the environment inside; modules and classes are not.
    """
    if isinstance(function, functools.partial):
        given = {**{f"args[{i}]": value for i, value in enumerate(function.args)}, **function.keywords}
        return {name: _snapshot(value, depth) for name, value in given.items()} | external_state(function.func, depth)
    if isinstance(function, types.MethodType):
        attributes = getattr(function.__self__, "__dict__", {})
        bound = {f"self.{name}": _snapshot(value, depth) for name, value in attributes.items()}
        return bound | external_state(function.__func__, depth)
    if not isinstance(function, types.FunctionType):
        call = function.__call__ if callable(function) else None  # a method, unless it is written in C
        return external_state(call, depth) if isinstance(call, types.MethodType) else {}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    closure = {name: cell.cell_contents for name, cell in cells}
    named = {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}
    found = {name: _snapshot(value, depth) for name, value in named.items() if not callable(value)}
    for name, value in closure.items():
        inner = external_state(value, depth - 1) if callable(value) and depth else {}
        found |= {f"{name}.{inside}": snapshot for inside, snapshot in inner.items()} or {name: _snapshot(value, depth)}
    return found


def _snapshot(value: Any, depth: int) -> Any:
    """Equal for equal contents; an object of unknown contents, such as a jax array, equals only itself."""
    if isinstance(value, types.ModuleType | type) or depth == 0:
        return None
    if isinstance(value, _PLAIN):
        return type(value), repr(value)
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, dict):
        return [(repr(name), _snapshot(item, depth - 1)) for name, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_snapshot(item, depth - 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, types.FunctionType | types.MethodType):
        return external_state(value, depth - 1)
    return id(value), _snapshot(getattr(value, "__dict__", None), depth - 1)
