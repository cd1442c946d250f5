"""Checks of shapes at trace time. Broadcasting would hide mistakes: `[B]` and `[B, 1]` become `[B, B]`."""

import jax.numpy as jnp


def check_equal(function: str, **arrays) -> None:
    """Raise ValueError unless all `arrays` that are not None have the same shape."""
    shapes = {name: jnp.shape(x) for name, x in arrays.items() if x is not None}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{function}: all shapes must be equal, got " + ", ".join(f"{k} {s}" for k, s in shapes.items()))


def check_like(function: str, what: str, shape: tuple[int, ...], *, free: int = 0, **arrays) -> None:
    """Raise ValueError unless every array has `shape`, which is `what`, such as "the leading axes of q_tm1".

    The last `free` axes of the arrays may be anything.
    """
    for name, x in arrays.items():
        if jnp.ndim(x) != len(shape) + free or jnp.shape(x)[: len(shape)] != shape:
            raise ValueError(f"{function}: {name} must have {what}, {shape}; got {jnp.shape(x)}")


def check_integers(action) -> None:
    """Raise TypeError unless `action` holds integers: a float could match no action at all."""
    if not jnp.issubdtype(jnp.result_type(action), jnp.integer):
        raise TypeError(f"actions must be integers, got {jnp.result_type(action)}{list(jnp.shape(action))}; use .astype(int)")
