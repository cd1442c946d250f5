"""A function that Python runs once for all that trace it with the same shapes."""

from collections.abc import Callable
from typing import Any

import jax


class TracedOnce:
    """`jax.jit(function, inline=True)`, which can be copied and, if `function` can, pickled; a jitted function cannot."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._jitted = jax.jit(function, inline=True)

    def __call__(self, *args: Any) -> Any:
        return self._jitted(*args)

    def __deepcopy__(self, memo: Any) -> "TracedOnce":
        return self  # as for any function

    def __reduce__(self) -> tuple[Any, ...]:
        return TracedOnce, (self._function,)
