"""Checks of shapes, at trace time. A shape that would broadcast is the dangerous mistake: `[B]` against `[B, 1]` is `[B, B]`."""

import jax.numpy as jnp


def check_equal(function: str, **arrays) -> None:
    """Raise ValueError unless all `arrays` have one shape."""
    if len({jnp.shape(x) for x in arrays.values()}) > 1:
        given = ", ".join(f"{name} {jnp.shape(x)}" for name, x in arrays.items())
        raise ValueError(f"{function}: these must have one shape, got {given}")


def check_leading(function: str, of: str, shape: tuple[int, ...], **arrays) -> None:
    """Raise ValueError unless every array has `shape`, the leading axes of the argument named `of`."""
    for name, x in arrays.items():
        if jnp.shape(x) != shape:
            raise ValueError(f"{function}: {name} must have the leading axes of {of}, {shape}; got {jnp.shape(x)}")


def check_integers(action) -> None:
    """Raise TypeError unless `action` is an array of integers: a float would be compared with each action, and match none."""
    if not jnp.issubdtype(jnp.result_type(action), jnp.integer):
        raise TypeError(f"actions must be integers, got {jnp.result_type(action)}{list(jnp.shape(action))}; use .astype(int)")
