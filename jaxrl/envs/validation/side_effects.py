"""What a function can reach besides its arguments, in a form that shows when it has changed."""

import types
from typing import Any

import numpy as np

_DEPTH = 4  # of containers in containers
_PLAIN = (int, float, complex, str, bytes, type(None))


def outside(function: Any, depth: int = _DEPTH) -> dict[str, Any]:
    """By name: the closure, the module's variables and the object of a method, as values that compare equal
    while nothing in them has changed.

    Functions in the closure are followed (a wrapper holds the environment inside it), modules and classes are not.
    """
    if isinstance(function, types.MethodType):
        attributes = getattr(function.__self__, "__dict__", {})
        bound = {f"self.{name}": _print(value, depth) for name, value in attributes.items()}
        return bound | outside(function.__func__, depth)
    if not isinstance(function, types.FunctionType):
        return {}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    closure = {name: cell.cell_contents for name, cell in cells}
    named = {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}
    found = {name: _print(value, depth) for name, value in named.items() if not callable(value)}
    for name, value in closure.items():
        inner = outside(value, depth - 1) if callable(value) and depth else {}
        found |= {f"{name}.{inside}": print_ for inside, print_ in inner.items()} or {name: _print(value, depth)}
    return found


def _print(value: Any, depth: int) -> Any:
    """Equal for equal contents; an object whose contents are unknown, such as a jax array, is equal to itself alone."""
    if isinstance(value, types.ModuleType | type) or depth == 0:
        return None
    if isinstance(value, _PLAIN):
        return type(value), repr(value)
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if isinstance(value, dict):
        return [(repr(name), _print(item, depth - 1)) for name, item in value.items()]
    if isinstance(value, (list, tuple)):
        return [_print(item, depth - 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, types.FunctionType | types.MethodType):
        return outside(value, depth - 1)
    return id(value), _print(getattr(value, "__dict__", None), depth - 1)
