"""Pack a pytree of arrays into rows of 32-bit words, bit for bit, so that storing it takes one write.

Elements of four and eight bytes become words. Narrower ones (uint8, bfloat16) keep their width, and a bool takes one bit;
these are joined and padded to a whole number of words.
"""

import functools
import math
import operator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Layout(NamedTuple):
    """The structure, shapes and dtypes of the tree in a row; hashable, so that it can be static."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]

    @property
    def num_words(self) -> int:
        return sum(self.parts)

    @property
    def parts(self) -> tuple[int, int, int]:
        """The numbers of words in a row that hold words, bytes, and bits, in this order."""
        units = {"words": 0, "bytes": 0, "bits": 0}
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            kind = _kind(dtype)
            units[kind] += math.prod(shape) * _units(dtype)
        return units["words"], -(-units["bytes"] // 4), -(-units["bits"] // 32)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["rows"], meta_fields=["layout"])
@dataclass(frozen=True)
class PackedRows:
    """Packed pytrees. `scan` and `vmap` stack the rows and keep the layout."""

    rows: jax.Array  # uint32[*batch, W]
    layout: Layout  # static


def _kind(dtype: np.dtype) -> str:
    return "bits" if dtype == np.bool_ else "words" if dtype.itemsize >= 4 else "bytes"


def _units(dtype: np.dtype) -> int:
    """The number of words, bytes or bits in an element."""
    return dtype.itemsize // 4 if _kind(dtype) == "words" else dtype.itemsize


def layout_of(tree: Any, batch_ndim: int = 0) -> Layout:
    """The layout of a pytree of arrays (or ShapeDtypeStructs) after `batch_ndim` leading batch axes."""
    leaves, treedef = jax.tree.flatten(tree)
    return Layout(treedef, tuple(x.shape[batch_ndim:] for x in leaves), tuple(np.dtype(x.dtype) for x in leaves))


def pack(tree: Any, batch_ndim: int) -> PackedRows:
    """Join the leaves `[*batch, ...]` of `tree`, with `batch_ndim` batch axes, into rows `uint32[*batch, W]`."""
    found: dict[str, list[jax.Array]] = {"words": [], "bytes": [], "bits": []}
    for x in jax.tree.leaves(tree):
        kind = _kind(x.dtype)
        if kind != "bits":
            x = jax.lax.bitcast_convert_type(x, jnp.uint32 if kind == "words" else jnp.uint8)
        found[kind].append(x.reshape(*x.shape[:batch_ndim], -1))
    words = found["words"]
    words += [_join(part, 8) for part in _concatenated(found["bytes"])]
    words += [_join(part, 1) for part in _concatenated(found["bits"])]
    return PackedRows(jnp.concatenate(words, axis=-1), layout_of(tree, batch_ndim))


def _concatenated(parts: list[jax.Array]) -> list[jax.Array]:
    return [jnp.concatenate(parts, axis=-1)] if parts else []


def _join(units: jax.Array, width: int) -> jax.Array:
    """Join units of `width` bits `[*batch, n]` into W words. Unit i is in word i % W, so that the slices are contiguous.

    This and `_split` use shifts: a bitcast that changes the shape does not fuse with its neighbours on a GPU, nor does a sum.
    """
    num = units.shape[-1]
    num_words = max(1, -(-num * width // 32))
    units = jnp.pad(units, [(0, 0)] * (units.ndim - 1) + [(0, -num % num_words)]).astype(jnp.uint32)
    slices = [units[..., i : i + num_words] << (width * i // num_words) for i in range(0, num, num_words)]
    return functools.reduce(operator.or_, slices) if slices else units


def _split(words: jax.Array, width: int) -> jax.Array:
    """The inverse of `_join`, padding included: words `[*batch, W]` to units `[*batch, 32 / width * W]`."""
    shifts = jnp.arange(0, 32, width, dtype=jnp.uint32).reshape((1,) * (words.ndim - 1) + (-1, 1))
    return ((words[..., None, :] >> shifts) & jnp.uint32(2**width - 1)).reshape(*words.shape[:-1], -1)


def unpack(packed: PackedRows) -> Any:
    """The inverse of `pack`: leaves `[*batch, ...]`, even if batch axes were added to or removed from the rows."""
    rows, layout = packed.rows, packed.layout
    batch = rows.shape[:-1]
    num_words, num_bytes, _ = layout.parts
    parts = {
        "words": rows[..., :num_words],
        "bytes": _split(rows[..., num_words : num_words + num_bytes], 8).astype(jnp.uint8),
        "bits": _split(rows[..., num_words + num_bytes :], 1).astype(jnp.bool_),
    }
    leaves, at = [], dict.fromkeys(parts, 0)
    for shape, dtype in zip(layout.shapes, layout.dtypes, strict=True):
        kind, units = _kind(dtype), _units(dtype)
        size = math.prod(shape) * units
        x = parts[kind][..., at[kind] : at[kind] + size].reshape(*batch, *shape, *([units] if units > 1 else []))
        leaves.append(x if kind == "bits" else jax.lax.bitcast_convert_type(x, dtype))
        at[kind] += size
    return jax.tree.unflatten(layout.treedef, leaves)
