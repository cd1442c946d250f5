"""One agent over several shards of its environments: what each shard holds, and means over all of them.

`jaxrl.vectorize(num_shards=S)` runs a function S times, along an axis with the name `AXIS`: on S devices, or on one by `vmap`.
Inside it, each shard has its part of the environments, of the replay and of every batch, and everything that is learned is
averaged over the shards. Outside of it, there is one shard, and these functions return their arguments unchanged: the program is
the same as without them.
"""

from typing import Any

import jax

AXIS = "envs"


def num_shards() -> int:
    """The number of shards S of the function that is being traced; 1 outside of `jaxrl.vectorize(num_shards=S)`."""
    try:
        return jax.lax.axis_size(AXIS)
    except NameError:
        return 1


def shard_size(name: str, total: int) -> int:
    """The part of `total` that belongs to each shard; `name` is for the message.

    Raises:
      ValueError: if the number of shards does not divide it.
    """
    shards = num_shards()
    if total % shards:
        raise ValueError(f"{name} {total} must be a multiple of num_shards {shards}: the shards are of equal size")
    return total // shards


def own(rows: Any) -> Any:
    """The rows of this shard; leaves `[N, ...]` that are equal in all shards, to `[N / S, ...]`."""
    if num_shards() == 1:
        return rows
    size = shard_size("the number of rows", jax.tree.leaves(rows)[0].shape[0])
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(AXIS) * size, size), rows)


def own_key(key: jax.Array) -> jax.Array:
    """A key of this shard, from one that is equal in all shards; the key is consumed."""
    return key if num_shards() == 1 else jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def mean(tree: Any) -> Any:
    """The mean over the shards of each leaf, of any shape; equal in all shards, and differentiable."""
    return tree if num_shards() == 1 else jax.lax.pmean(tree, AXIS)


def total(tree: Any) -> Any:
    """The sum over the shards of each leaf, of any shape; equal in all shards."""
    return tree if num_shards() == 1 else jax.lax.psum(tree, AXIS)


def minimum(tree: Any) -> Any:
    """The minimum over the shards of each leaf, of any shape; equal in all shards."""
    return tree if num_shards() == 1 else jax.lax.pmin(tree, AXIS)


def gather(tree: Any) -> Any:
    """The leaves of all shards, `[S, ...]`; equal in all shards."""
    return jax.tree.map(lambda x: x[None], tree) if num_shards() == 1 else jax.lax.all_gather(tree, AXIS)
