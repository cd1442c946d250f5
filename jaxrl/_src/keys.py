"""PRNG keys as plain arrays, for code that cannot handle typed keys: NumPy, files, comparisons."""

from typing import Any

import jax
import jax.numpy as jnp


def is_key(x: Any) -> bool:
    """Whether an array holds typed PRNG keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def unwrap_keys(tree: Any) -> Any:
    """Replace every PRNG key in a tree by its key data, uint32."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def wrap_keys(tree: Any, like: Any) -> Any:
    """The inverse of `unwrap_keys`: keys where `like` has them."""
    return jax.tree.map(lambda x, y: jax.random.wrap_key_data(jnp.asarray(x)) if is_key(y) else x, tree, like)
