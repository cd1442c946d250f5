"""A replay buffer as pure functions: `init`, `add`, `sample`.

The buffer is one array of packed rows, with one row for each item. Adding is one in-place write and sampling is one
gather; neither takes longer for a larger capacity. The buffer holds no counter. Instead, the caller passes the number of
previous calls of `add`, so that the position of the write stays unbatched under `vmap` over seeds, and the write in place.

>>> import jax, jax.numpy as jnp
>>> from jaxrl import replay
>>> buffer = replay.init({"obs": jnp.zeros(3), "done": jnp.bool_(False)}, capacity=8)
>>> items = {"obs": jnp.ones((4, 3)), "done": jnp.ones(4, bool)}
>>> buffer = replay.add(buffer, items, jnp.int32(0))
>>> batch = replay.sample(buffer, replay.noise(jax.random.key(0), (32,)), replay.num_stored(1, 4, 8))
>>> batch["obs"].shape, bool(batch["done"].all())
((32, 3), True)
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_size
from jaxrl._src.in_place import make_write
from jaxrl._src.packing import Layout, PackedRows, layout_of, pack, unpack

_write = make_write(axis=-2)  # rows: uint32[..., capacity, W]


@partial(jax.tree_util.register_dataclass, data_fields=["rows"], meta_fields=["layout"])
@dataclass(frozen=True)
class Replay:
    """A buffer of items, which are pytrees of arrays."""

    rows: jax.Array  # uint32[capacity, W]
    layout: Layout  # static: the structure, shapes and dtypes of an item

    @property
    def capacity(self) -> int:
        return self.rows.shape[-2]


def init(example: Any, capacity: int) -> Replay:
    """An empty buffer for `capacity` items with the structure, shapes and dtypes of `example`, one unbatched item.

    Raises:
      ValueError: if the capacity is less than 1.
      TypeError: if the capacity is not an int, or `example` holds keys or complex numbers.
    """
    capacity = check_size("capacity", capacity)
    example = jax.tree.map(lambda x: x if hasattr(x, "dtype") else jnp.asarray(x), example)
    for path, x in jax.tree.leaves_with_path(example):
        if not any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
            raise TypeError(
                f"replay.init: example{jax.tree_util.keystr(path)} must hold bools, integers or real numbers, got {x.dtype}; "
                "of a key, store jax.random.key_data(key), and of complex numbers, both parts"
            )
    layout = layout_of(example)
    return Replay(jnp.zeros((capacity, layout.num_words), jnp.uint32), layout)


def add(replay: Replay, items: Any, num_adds: jax.Array) -> Replay:
    """Add `items` to the buffer; in a full buffer, they replace the n oldest ones.

    Args:
      replay: the buffer. Donate it at the jit boundary to write in place.
      items: leaves `[n, ...]`, with the same n in every call.
      num_adds: int32 scalar, the number of previous calls of `add`. If it is batched, the write becomes a scatter.

    Raises:
      ValueError: if the capacity is not a multiple of n, `items` differ from the example, or they do not have n in common.
      TypeError: if `replay` is another buffer.
    """
    _check_replay("add", replay)
    layout = layout_of(items, batch_ndim=1)
    if layout != replay.layout:
        raise ValueError(f"replay.add: items must be as in init, {_describe(replay.layout)}; got {_describe(layout)}")
    shapes = [x.shape for x in jax.tree.leaves(items)]
    if () in shapes or len({shape[0] for shape in shapes}) != 1:
        raise ValueError(f"replay.add: all leaves need one number of items in front, got the shapes {shapes}")
    n = shapes[0][0]
    check_capacity(replay.capacity, n)
    position = (num_adds % (replay.capacity // n)) * n
    return Replay(_write(replay.rows, pack(items, batch_ndim=1).rows, position), layout)


def check_capacity(capacity: int, rows_per_add: int) -> None:
    """Raise ValueError unless `capacity` is a positive multiple of `rows_per_add`, the number of items in each `add`.

    Raises TypeError unless `rows_per_add` is an int.
    """
    rows_per_add = check_size("rows_per_add, the number of items in each add,", rows_per_add)
    if capacity < rows_per_add or capacity % rows_per_add:
        nearest = max(1, round(capacity / rows_per_add)) * rows_per_add
        raise ValueError(
            f"the replay's capacity {capacity} must be a multiple of the {rows_per_add} rows that one iteration "
            f"stores (num_envs * rollout_length); the nearest is {nearest}"
        )


def num_stored(num_adds, rows_per_add: int, capacity: int) -> jax.Array:
    """The number of rows that hold items after `num_adds` calls of `add`, int32 scalar. Does not overflow.

    Raises ValueError if the capacity is not a multiple of `rows_per_add`.
    """
    check_capacity(capacity, rows_per_add)
    return jnp.minimum(jnp.asarray(num_adds, jnp.int32), capacity // rows_per_add) * rows_per_add


def noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw the random bits that `sample` maps to indices, `uint32[shape]`."""
    return jax.random.bits(key, shape, jnp.uint32)


def check_noise(function: str, noise: jax.Array) -> None:
    """Raise TypeError unless `noise` is uint32: of floats in [0, 1), each remainder would be the index 0."""
    if noise.dtype != jnp.uint32:
        raise TypeError(f"{function}: noise must be uint32, got {noise.dtype}; draw it with replay.noise")


def sample(replay: Replay, noise: jax.Array, num_stored: jax.Array) -> Any:
    """Draw items uniformly, with replacement, in time proportional to their number.

    Args:
      replay: the buffer.
      noise: `uint32[*shape]`, from `noise`. The index is noise mod num_stored, so the probabilities
        differ from uniform by at most num_stored / 2^32, relatively.
      num_stored: int32 scalar in 1 … capacity, from `num_stored`.

    Returns:
      Items with leaves `[*shape, ...]`.

    Raises:
      TypeError: if `noise` is not uint32, or `replay` is another buffer.
    """
    _check_replay("sample", replay)
    check_noise("replay.sample", noise)
    return take(replay, (noise % jnp.asarray(num_stored, jnp.uint32)).astype(jnp.int32))


def take(replay: Replay, indices: jax.Array) -> Any:
    """The items in the rows `indices`, int32 `[*shape]` in 0 … capacity − 1 (not checked): leaves `[*shape, ...]`."""
    _check_replay("take", replay)
    return unpack(PackedRows(replay.rows.at[indices].get(mode="promise_in_bounds"), replay.layout))


def _check_replay(function: str, replay: Any) -> None:
    if not isinstance(replay, Replay):
        raise TypeError(
            f"replay.{function} needs a Replay, from replay.init; got {type(replay).__name__}. "
            "The functions for a Prioritized are in jaxrl.replay.prioritized"
        )


def _describe(layout: Layout) -> str:
    leaves = [f"{dtype}{list(shape)}" for shape, dtype in zip(layout.shapes, layout.dtypes, strict=True)]
    return str(jax.tree.unflatten(layout.treedef, leaves))
