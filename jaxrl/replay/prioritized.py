"""Prioritized experience replay (Schaul et al. 2016, arXiv 1511.05952), its proportional variant, as pure functions.

Items are kept by `jaxrl.replay`, with its clock; beside them stands a tree of sums of their priorities.
`add` gives new items the largest priority so far, `sample` draws in proportion to the priorities, `update`
replaces those of the items drawn. In this order they write in place.

>>> import jax, jax.numpy as jnp
>>> from jaxrl.replay import uniform as replay
>>> from jaxrl.replay import prioritized
>>> buffer = prioritized.init({"obs": jnp.zeros(3)}, capacity=8)
>>> buffer = prioritized.add(buffer, {"obs": jnp.ones((4, 3))}, jnp.int32(0))
>>> noise = prioritized.noise(jax.random.key(0), (4,))
>>> batch = prioritized.sample(buffer, noise, replay.num_stored(1, 4, 8), beta=1.0)
>>> batch.items["obs"].shape, batch.indices.tolist(), batch.weights.tolist()  # all are new: each has its turn
((4, 3), [0, 1, 2, 3], [1.0, 1.0, 1.0, 1.0])
>>> buffer = prioritized.update(buffer, batch.indices, jnp.array([0.0, 8.0, 0.0, -2.0]), alpha=1.0, eps=0.0)
>>> batch = prioritized.sample(buffer, noise, replay.num_stored(1, 4, 8), beta=1.0)
>>> batch.indices.tolist(), batch.weights.tolist()
([1, 1, 1, 3], [0.25, 0.25, 0.25, 1.0])
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.in_place import make_write
from jaxrl._src.packing import unpack
from jaxrl.replay import uniform as replay

_write = make_write(axis=-1)  # a level of sums: float32[..., nodes]

# Children of a node: few enough to walk over them one by one; more would make fewer levels and longer compiling.
_WIDTH = 16


class Prioritized(NamedTuple):
    rows: replay.Replay
    # float32[nodes] for each level: the p^α of all rows, the sums of those 16 by 16, the sums of these, … until at
    # most 16 are left. A level is filled up to whole nodes. What fills it, and rows without an item, are 0.
    sums: tuple[jax.Array, ...]
    largest: jax.Array  # float32 scalar: the largest p^α there has been, at least 1


class Batch(NamedTuple):
    items: Any  # leaves [batch, ...]
    indices: jax.Array  # int32[batch]: the rows of the items, for `update`
    weights: jax.Array  # float32[batch] in [0, 1]: for the losses of the items


def init(example: Any, capacity: int) -> Prioritized:
    """An empty buffer for `capacity` items with the shapes and dtypes of `example`, one unbatched item."""
    rows = replay.init(example, capacity)
    sizes = [rows.capacity]
    while sizes[-1] > _WIDTH:
        parents = -(-sizes[-1] // _WIDTH)
        sizes[-1:] = [parents * _WIDTH, parents]
    return Prioritized(rows, tuple(jnp.zeros(size, jnp.float32) for size in sizes), jnp.float32(1.0))


def add(buffer: Prioritized, items: Any, clock: jax.Array) -> Prioritized:
    """Write `items` as `replay.add` does, each with the largest priority there has been (algorithm 1, line 6).

    Args:
      buffer: donate it at the jit boundary and the write is in place.
      items: leaves `[n, ...]`; every call for one buffer has the same n.
      clock: int32 scalar, how often `add` was called before. Not batched, or the writes are scatters.

    Raises:
      ValueError: where the capacity is not a multiple of n, or `items` differ from the example.
    """
    rows = replay.add(buffer.rows, items, clock)
    n = jax.tree.leaves(items)[0].shape[0]
    position = (clock % (rows.capacity // n)) * n
    sums = [_write(buffer.sums[0], jnp.broadcast_to(buffer.largest, (n,)), position)]
    for level in buffer.sums[1:]:
        # Rows side by side have parents side by side, at most this many: one slice, not a scatter.
        parents = sums[-1].shape[0] // _WIDTH
        n = min((n - 1) // _WIDTH + 2, parents)
        position = jnp.minimum(position // _WIDTH, parents - n)
        children = jax.lax.dynamic_slice_in_dim(sums[-1], position * _WIDTH, n * _WIDTH)
        sums.append(_write(level, _sum(children.reshape(n, _WIDTH)), position))
    return Prioritized(rows, tuple(sums), buffer.largest)


def noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The uniform numbers that `sample` turns into items, `float32[shape]` in [0, 1)."""
    return jax.random.uniform(key, shape, jnp.float32)


def sample(buffer: Prioritized, noise: jax.Array, num_stored: jax.Array, *, beta) -> Batch:
    """Items drawn with probability P(i) = p_i^α / Σ_k p_k^α (eq. 1), in time proportional to batch · log(capacity).

    The priorities are cut into `batch` segments of equal mass, and one item is drawn from each (appendix
    B.2.1), in their order. No item of priority 0 is drawn, unless all are 0: then the draw is uniform.

    The weights are w_i = (N · P(i))^−β (section 3.4) divided by the largest in the batch, so that they only
    scale losses down. N and the sum of priorities cancel, and (min_j p_j^α / p_i^α)^β is left. Divided by the
    largest in the buffer, all would be as small as its least likely item is rare.

    Args:
      buffer: the buffer.
      noise: `float32[batch]` in [0, 1), from `noise`. It has 23 bits: where priorities are alike, an item's
        probability is met to about N / (batch · 2^23), relatively.
      num_stored: int32 scalar in 1 … capacity, from `replay.filled`; matters where all priorities are 0.
      beta: β in [0, 1], a scalar that may be traced; 1 corrects the bias of the draw in full, 0 not at all.

    Returns:
      A `Batch`. The weights are 1 where all priorities are 0.

    Raises:
      ValueError: where `noise` has not one axis, or is empty.
      TypeError: where `noise` is not float32.
    """
    if noise.ndim != 1 or noise.size == 0:
        raise ValueError(
            f"prioritized.sample: noise must be float32[batch], not empty; got shape {noise.shape}; vmap over others"
        )
    if noise.dtype != jnp.float32:
        raise TypeError(f"prioritized.sample: noise must be float32, got {noise.dtype}; draw it with prioritized.noise")
    row, priority = _find(buffer.sums, noise)
    num_stored = jnp.asarray(num_stored, jnp.int32)
    uniform = jnp.minimum((noise * num_stored.astype(jnp.float32)).astype(jnp.int32), num_stored - 1)
    row = jnp.where(priority > 0, row, uniform)
    weights = jnp.where(priority > 0, (jnp.min(priority) / priority) ** jnp.asarray(beta, jnp.float32), 1.0)
    items = unpack(buffer.rows.rows.at[row].get(mode="promise_in_bounds"), buffer.rows.layout)
    return Batch(items, row, weights)


def update(buffer: Prioritized, indices: jax.Array, td_error: jax.Array, *, alpha=0.6, eps=1e-6) -> Prioritized:
    """Give items the priority p^α = (|δ| + ε)^α (section 3.3).

    Sums are computed afresh from what they are sums of, so rounding errors do not add up. Where an index
    occurs more than once, the largest of its priorities holds.

    Args:
      buffer: donate it at the jit boundary and the write is in place.
      indices: integers `[...]`, from `sample`.
      td_error: δ, `[...]`. One that is NaN, infinite, or so large that a buffer full of its like would
        overflow, gives the largest priority there has been, as if the item were new. So the buffer stays
        sound; that learning has diverged must be seen elsewhere.
      alpha: α ≥ 0, a scalar that may be traced; 0 is uniform sampling. It is applied here and nowhere
        else: a changed α holds for what is written from then on.
      eps: ε ≥ 0, a scalar that may be traced, in units of δ. With 0, items without error are never drawn
        again. A p^α below 1.2e-38 (the smallest normal float32) is 0.

    Raises:
      ValueError: where the shapes of `indices` and `td_error` differ, or are empty.
      TypeError: where `indices` are not integers.
    """
    if indices.shape != td_error.shape or indices.size == 0:
        got = f"{indices.shape} and {td_error.shape}"
        raise ValueError(f"prioritized.update: indices and td_error must have one shape and not be empty, got {got}")
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"prioritized.update: indices must be integers, got {indices.dtype}; pass batch.indices, then td_error")
    at = jnp.ravel(indices)
    limits = jnp.finfo(jnp.float32)
    priority = jnp.abs(jnp.asarray(td_error, jnp.float32).reshape(-1)) + jnp.asarray(eps, jnp.float32)
    priority = priority ** jnp.asarray(alpha, jnp.float32)
    priority = jnp.where(priority <= float(limits.max) / (2 * buffer.rows.capacity), priority, buffer.largest)  # nor is NaN
    priority = jnp.where(priority >= limits.tiny, priority, 0.0)
    # Cleared and then raised: unlike writes, which may come in any order, a maximum has no order.
    cleared = buffer.sums[0].at[at].set(0.0, mode="promise_in_bounds")
    sums = [cleared.at[at].max(priority, mode="promise_in_bounds")]
    for level in buffer.sums[1:]:
        at = at // _WIDTH
        sums.append(level.at[at].set(_sum(_children(sums[-1], at)), mode="promise_in_bounds"))
    return Prioritized(buffer.rows, tuple(sums), jnp.maximum(buffer.largest, jnp.max(priority)))


def _find(sums: tuple[jax.Array, ...], noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the running sum of the priorities first exceeds (i + noise_i) / batch of the total: rows and priorities `[batch]`.

    The priority is 0 only where all are, and the row is then any number.
    """
    segment = _sum(sums[-1][None]) / noise.shape[0]
    # `target` is the point, `edge` the beginning of the node, both counted from where the segment begins.
    # Counted from 0, points would be as coarse as the last bit of the total.
    target = noise * segment
    edge = -jnp.arange(noise.shape[0], dtype=jnp.float32) * segment
    node = jnp.zeros(noise.shape, jnp.int32)
    for level in reversed(sums):
        children = _children(level, node)
        # Within the node, also where rounding has it outside: below the end by one bit at least.
        inside = jnp.clip(target - edge, 0.0, _sum(children) * (1 - 2**-24))
        child, start, priority = _pick(children, inside)
        node, edge = node * children.shape[1] + child, edge + start
    return node, priority


def _pick(children: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The first of the children `[batch, width]` whose end exceeds `inside` `[batch]`, its start, and its mass.

    One without mass ends where it starts, and is passed over.
    """

    def walk(children, inside, unroll):
        def step(carry, x):
            child, start, mass, end = carry
            reached = end <= inside
            start, mass = jnp.where(reached, end, start), jnp.where(reached, x, mass)
            return (child + reached.astype(jnp.int32), start, mass, end + x), None

        before, zero = jnp.full(inside.shape, -1, jnp.int32), jnp.zeros_like(inside)
        return jax.lax.scan(step, (before, zero, zero, zero), children.T, unroll=unroll)[0][:3]

    # The two turns of a loop are a boundary. Without one, XLA's CPU compiler computes the whole descent anew for
    # each use of its result, and a step takes twice or three times as long.
    on_cpu = functools.partial(walk, unroll=max(1, children.shape[1] // 2))
    return jax.lax.platform_dependent(children, inside, cpu=on_cpu, default=functools.partial(walk, unroll=True))


def _children(level: jax.Array, node: jax.Array) -> jax.Array:
    """What is below `node` `[batch]` in `level`, where the children of one node lie side by side: `[batch, width]`."""
    width = min(_WIDTH, level.shape[0])
    return level.reshape(-1, width).at[node].get(mode="clip")


def _sum(children: jax.Array) -> jax.Array:
    """The sum of `children` `[nodes, width]` in the order in which `_pick` walks, so with the same rounding: `[nodes]`."""
    return functools.reduce(jnp.add, [children[:, i] for i in range(children.shape[1])])
