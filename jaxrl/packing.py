"""Many small arrays as one row of 32-bit words, bit for bit, so that storing them is one write.

Leaves of four and eight bytes become words; narrower ones (bool, uint8, bfloat16) stay as narrow as
they are, joined, and the row is rounded up to a whole word.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Layout(NamedTuple):
    """How to read a row back: hashable, so that it can be static."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]

    @property
    def num_words(self) -> int:
        sizes = [math.prod(s) * d.itemsize for s, d in zip(self.shapes, self.dtypes, strict=True)]
        return sum(math.ceil(part / 4) for part in _split(self.dtypes, sizes) if part)


def _split(dtypes, values) -> tuple[int, int]:
    """Sum `values` over the leaves that are words, and over those that are narrower."""
    wide = sum(v for d, v in zip(dtypes, values, strict=True) if d.itemsize >= 4)
    return wide, sum(values) - wide


def layout_of(tree: Any, batch_ndim: int = 0) -> Layout:
    """The layout of a pytree of arrays (or ShapeDtypeStructs) after `batch_ndim` leading batch axes."""
    leaves, treedef = jax.tree.flatten(tree)
    return Layout(treedef, tuple(x.shape[batch_ndim:] for x in leaves), tuple(np.dtype(x.dtype) for x in leaves))


def pack(tree: Any, batch_ndim: int) -> jax.Array:
    """Join the leaves `[*batch, ...]` of `tree` into rows `uint32[*batch, W]`."""
    words: list[jax.Array] = []
    narrow: list[jax.Array] = []
    for x in jax.tree.leaves(tree):
        batch = x.shape[:batch_ndim]
        if x.dtype == jnp.bool_:
            x = x.astype(jnp.uint8)
        wide = x.dtype.itemsize >= 4
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32 if wide else jnp.uint8)
        (words if wide else narrow).append(bits.reshape(*batch, -1))
    if narrow:
        joined = jnp.concatenate(narrow, axis=-1)
        padding = -joined.shape[-1] % 4
        joined = jnp.pad(joined, [(0, 0)] * batch_ndim + [(0, padding)])
        joined = joined.reshape(*joined.shape[:-1], -1, 4).astype(jnp.uint32)
        # Shifts, here and in `unpack`: a bitcast that changes the shape does not fuse with its neighbours on a GPU.
        words.append(joined[..., 0] | joined[..., 1] << 8 | joined[..., 2] << 16 | joined[..., 3] << 24)
    return jnp.concatenate(words, axis=-1)


def unpack(rows: jax.Array, layout: Layout) -> Any:
    """The inverse of `pack`: leaves `[*batch, ...]` from rows `uint32[*batch, W]`."""
    batch = rows.shape[:-1]
    sizes = [math.prod(s) * d.itemsize for s, d in zip(layout.shapes, layout.dtypes, strict=True)]
    num_wide = _split(layout.dtypes, sizes)[0] // 4
    words = rows[..., :num_wide]
    shifts = jnp.arange(0, 32, 8, dtype=jnp.uint32).reshape((1,) * rows.ndim + (4,))
    narrow = ((rows[..., num_wide:, None] >> shifts) & jnp.uint32(0xFF)).astype(jnp.uint8).reshape(*batch, -1)
    leaves, at_word, at_byte = [], 0, 0
    for shape, dtype, size in zip(layout.shapes, layout.dtypes, sizes, strict=True):
        if dtype.itemsize >= 4:
            bits, at_word = words[..., at_word : at_word + size // 4], at_word + size // 4
            unit = 4
        else:
            bits, at_byte = narrow[..., at_byte : at_byte + size], at_byte + size
            unit = 1
        bits = bits.reshape(*batch, *shape, *([dtype.itemsize // unit] if dtype.itemsize > unit else []))
        leaves.append(bits.astype(jnp.bool_) if dtype == np.bool_ else jax.lax.bitcast_convert_type(bits, dtype))
    return jax.tree.unflatten(layout.treedef, leaves)
