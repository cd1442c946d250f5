"""The dtype rule of `losses`, `returns`, `distributions` and `dynamic_programming`.

Floating-point arguments of a call are promoted to their common floating type (bfloat16 and float16 to float32, float32
and float64 to float64), and the result has that type. Integers and booleans, such as rewards or discounts, are converted to
it; nothing is ever converted to an integer type. Without a floating-point argument, the type is JAX's default: float32, or
float64 under `jax_enable_x64`. Hyperparameters (λ, temperatures, clip ranges) and noise are converted to that type and do
not widen it. `jax_numpy_dtype_promotion` has no effect.
"""

from typing import Any

import jax
import jax.numpy as jnp


def is_array(x: Any) -> bool:
    """Whether it is an array or a number."""
    return hasattr(x, "dtype") or isinstance(x, (bool, int, float, complex))


def dtype_of(array: Any) -> Any:
    """The dtype of an array or a number. Raises TypeError for anything else, such as a list."""
    if not is_array(array):
        raise TypeError(f"expected an array or a number, got {array!r}; jnp.asarray makes an array of a list")
    return jnp.result_type(array)


def floating_type(*arrays: Any) -> Any:
    """The common floating type of `arrays`, where None does not count. Raises TypeError unless all are real numbers."""
    floating = []
    for array in arrays:
        dtype = jnp.bool_ if array is None else dtype_of(array)
        if jnp.issubdtype(dtype, jnp.floating):
            floating.append(array)
        elif not (dtype == jnp.bool_ or jnp.issubdtype(dtype, jnp.integer)):
            raise TypeError(f"expected real numbers, got {jax.typeof(array)}")
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*floating) if floating else jnp.result_type(float)


def promote(*arrays: Any) -> list[Any]:
    """Convert `arrays` to their common floating type; None stays None. Arrays that already have it add no operation."""
    dtype = floating_type(*arrays)
    return [None if x is None else jnp.asarray(x, dtype) for x in arrays]
