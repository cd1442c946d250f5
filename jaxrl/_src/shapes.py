"""Checks of shapes at trace time. Broadcasting would hide mistakes: `[B]` and `[B, 1]` become `[B, B]`."""

import jax
import jax.numpy as jnp

from jaxrl._src.dtypes import dtype_of, is_array


def _shape(function: str, name: str, x) -> tuple[int, ...]:
    """The shape of an array. Raises TypeError for anything else, such as a list."""
    if not is_array(x):
        raise TypeError(
            f"{function}: {name} must be an array, got {x!r}" + "; jnp.asarray makes one of a list" * isinstance(x, list)
        )
    return jnp.shape(x)


def check_equal(function: str, **arrays) -> None:
    """Raise ValueError unless all `arrays` have the same shape."""
    shapes = {name: _shape(function, name, x) for name, x in arrays.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"{function}: all shapes must be equal, got " + ", ".join(f"{k} {s}" for k, s in shapes.items()))


def check_like(function: str, what: str, shape: tuple[int, ...], *, free: int = 0, **arrays) -> None:
    """Raise ValueError unless every array has `shape`, which is `what`, such as "the leading axes of q_tm1".

    The last `free` axes of the arrays may be anything.
    """
    for name, x in arrays.items():
        given = _shape(function, name, x)
        if len(given) != len(shape) + free or given[: len(shape)] != shape:
            raise ValueError(f"{function}: {name} must have {what}, {shape}; got {given}")


def leading_axes(function: str, own: str, **array) -> tuple[int, ...]:
    """The axes of `array` before its `own`, such as "A, N". Raises ValueError if it has fewer, or if one of its own is empty."""
    ((name, x),) = array.items()
    shape, count = _shape(function, name, x), len(own.split(", "))
    if len(shape) < count or 0 in shape[-count:]:
        raise ValueError(f"{function}: {name} must be [..., {own}] with {own} at least 1, got {shape}")
    return shape[:-count]


def scalar_or_like(function: str, name: str, value, like: jax.Array) -> jax.Array:
    """`value` as an array of the dtype of `like`. Raises ValueError unless it is a scalar or has the shape of `like`."""
    value = jnp.asarray(value, like.dtype)
    if value.shape not in ((), like.shape):
        raise ValueError(f"{function}: {name} must be a scalar or {like.shape}, got {value.shape}")
    return value


def check_bools(function: str, **flags) -> None:
    """Raise TypeError unless all `flags` that are not None hold bools: `~` of the integers 0 and 1 gives −1 and −2, both true."""
    for name, x in flags.items():
        if x is not None and dtype_of(x) != jnp.bool_:
            raise TypeError(f"{function}: {name} must hold bools, got {dtype_of(x)}{list(jnp.shape(x))}; use .astype(bool)")


def check_integers(action) -> None:
    """Raise TypeError unless `action` holds integers: a float could match no action at all."""
    if not jnp.issubdtype(dtype_of(action), jnp.integer):
        raise TypeError(f"actions must be integers, got {dtype_of(action)}{list(jnp.shape(action))}; use .astype(int)")
