"""Prioritized experience replay (Schaul et al. 2016, arXiv 1511.05952), in its proportional variant, as pure functions.

A buffer consists of a `jaxrl.replay.Replay` with the items, and a sum tree of their priorities. `add` gives new items the
largest priority so far, `sample` draws in proportion to the priorities, and `update` replaces the priorities of the items
that were drawn. Called in this order, they write in place.

>>> import jax, jax.numpy as jnp
>>> from jaxrl.replay import uniform as replay
>>> from jaxrl.replay import prioritized
>>> buffer = prioritized.init({"obs": jnp.zeros(3)}, capacity=8)
>>> buffer = prioritized.add(buffer, {"obs": jnp.ones((4, 3))}, jnp.int32(0))
>>> noise = prioritized.noise(jax.random.key(0), (4,))
>>> batch = prioritized.sample(buffer, noise, replay.num_stored(1, 4, 8), beta=1.0)
>>> batch.items["obs"].shape, batch.indices.tolist(), batch.weights.tolist()  # all are new, so all are alike
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
from jaxrl._src.shards import minimum, num_shards
from jaxrl.replay import uniform as replay

_write = make_write(axis=-1)  # a level of sums: float32[..., nodes]

# Number of children of a node. They are searched one by one: more children mean fewer levels, but more code to compile.
_WIDTH = 16


class Prioritized(NamedTuple):
    """A replay buffer with a priority p for each item."""

    rows: replay.Replay
    # float32[nodes] for each level: the p^α of all rows, their sums in groups of 16, the sums of those in groups of 16,
    # and so on, until at most 16 are left. Each level is padded to whole groups. Padding and empty rows are 0.
    sums: tuple[jax.Array, ...]
    largest: jax.Array  # float32 scalar: the largest p^α so far, at least 1


class Batch(NamedTuple):
    """What `sample` draws."""

    items: Any  # leaves [batch, ...]
    indices: jax.Array  # int32[batch]: the rows of the items, for `update`
    weights: jax.Array  # float32[batch] in [0, 1]: for the losses of the items


def init(example: Any, capacity: int) -> Prioritized:
    """An empty buffer for `capacity` items with the structure, shapes and dtypes of `example`, one unbatched item."""
    rows = replay.init(example, capacity)
    sizes = [rows.capacity]
    while sizes[-1] > _WIDTH:
        parents = -(-sizes[-1] // _WIDTH)
        sizes[-1:] = [parents * _WIDTH, parents]
    return Prioritized(rows, tuple(jnp.zeros(size, jnp.float32) for size in sizes), jnp.float32(1.0))


def add(buffer: Prioritized, items: Any, num_adds: jax.Array) -> Prioritized:
    """Add `items` as `replay.add` does, each with the largest priority so far (algorithm 1, line 6).

    Args:
      buffer: the buffer. Donate it at the jit boundary to write in place.
      items: leaves `[n, ...]`, with the same n in every call.
      num_adds: int32 scalar, the number of previous calls of `add`. If it is batched, the writes become scatters.

    Raises:
      ValueError: if the capacity is not a multiple of n, or `items` differ from the example.
    """
    rows = replay.add(buffer.rows, items, num_adds)
    n = jax.tree.leaves(items)[0].shape[0]
    position = (num_adds % (rows.capacity // n)) * n
    sums = [_write(buffer.sums[0], jnp.broadcast_to(buffer.largest, (n,)), position)]
    for level in buffer.sums[1:]:
        # The parents of adjacent rows are adjacent, and at most this many: one slice, not a scatter.
        parents = sums[-1].shape[0] // _WIDTH
        n = min((n - 1) // _WIDTH + 2, parents)
        position = jnp.minimum(position // _WIDTH, parents - n)
        children = jax.lax.dynamic_slice_in_dim(sums[-1], position * _WIDTH, n * _WIDTH)
        sums.append(_write(level, _sum(children.reshape(n, _WIDTH)), position))
    return Prioritized(rows, tuple(sums), buffer.largest)


def noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw the uniform numbers that `sample` maps to items, `float32[shape]` in [0, 1)."""
    return jax.random.uniform(key, shape, jnp.float32)


def sample(buffer: Prioritized, noise: jax.Array, num_stored: jax.Array, *, beta) -> Batch:
    """Draw items with probability P(i) = p_i^α / Σ_k p_k^α (eq. 1), in time proportional to batch · log(capacity).

    The range of the summed priorities is divided into `batch` segments of equal size, and one item is drawn from
    each, in order (appendix B.2.1). An item of priority 0 is never drawn, unless all are 0: then the draw is uniform.

    The weights are w_i = (N · P(i))^−β (section 3.4) divided by the largest in the batch, so that they only
    scale losses down. N and the sum of the priorities cancel, which leaves (min_j p_j^α / p_i^α)^β. If they were divided
    by the largest weight in the buffer, all weights would be tiny as soon as one item is very unlikely.

    If an agent has several shards (see `jaxrl.shards`), each draws its part of the batch from its own items; P(i) is divided by
    their number, and the largest weight is that in the batch of all shards.

    Args:
      buffer: the buffer.
      noise: `float32[batch]` in [0, 1), from `noise`. It has 23 bits: with N similar priorities, the probability of an
        item has a relative error of about N / (batch · 2^23).
      num_stored: int32 scalar in 1 … capacity, from `replay.num_stored`; used only if all priorities are 0.
      beta: β in [0, 1], a scalar that may be traced; 1 corrects the bias of the draw completely, 0 not at all.

    Returns:
      A `Batch`. The weights are 1 if all priorities are 0.

    Raises:
      ValueError: if `noise` does not have exactly one axis, or is empty.
      TypeError: if `noise` is not float32.
    """
    if noise.ndim != 1 or noise.size == 0:
        raise ValueError(
            f"prioritized.sample: noise must be float32[batch] and not empty, got shape {noise.shape}; use vmap for further axes"
        )
    if noise.dtype != jnp.float32:
        raise TypeError(f"prioritized.sample: noise must be float32, got {noise.dtype}; draw it with prioritized.noise")
    row, priority = _find(buffer.sums, noise)
    num_stored = jnp.asarray(num_stored, jnp.int32)
    uniform = jnp.minimum((noise * num_stored.astype(jnp.float32)).astype(jnp.int32), num_stored - 1)
    row = jnp.where(priority > 0, row, uniform)
    relative = priority
    if num_shards() > 1:  # each draws from its own priorities, so the probabilities are relative to their sums
        whole = jnp.maximum(_sum(buffer.sums[-1][None]), jnp.finfo(jnp.float32).tiny)
        relative = jnp.where(priority > 0, priority / whole, jnp.inf)
    weights = jnp.where(priority > 0, (minimum(jnp.min(relative)) / relative) ** jnp.asarray(beta, jnp.float32), 1.0)
    return Batch(replay.take(buffer.rows, row), row, weights)


def update(buffer: Prioritized, indices: jax.Array, td_error: jax.Array, *, alpha=0.6, eps=1e-6) -> Prioritized:
    """Set the priority of items to p^α = (|δ| + ε)^α (section 3.3).

    Sums are recomputed from their terms, so rounding errors do not accumulate. If an index occurs more than once, the
    largest of its priorities is kept.

    Args:
      buffer: the buffer. Donate it at the jit boundary to write in place.
      indices: integers `[...]`, from `sample`.
      td_error: δ, `[...]`. If it is NaN, infinite, or so large that a buffer full of such errors would overflow,
        the item gets the largest priority so far, like a new item. Sampling then still works, but diverged learning
        must be detected elsewhere.
      alpha: α ≥ 0, a scalar that may be traced; 0 is uniform sampling. It is applied only here, so a changed α
        affects only priorities that are written afterwards.
      eps: ε ≥ 0, a scalar that may be traced, in units of δ. With 0, items without error are never drawn
        again. A p^α below 1.2e-38 (the smallest normal float32) becomes 0.

    Raises:
      ValueError: if the shapes of `indices` and `td_error` differ, or are empty.
      TypeError: if `indices` are not integers.
    """
    indices, td_error = jnp.asarray(indices), jnp.asarray(td_error)
    if indices.shape != td_error.shape or indices.size == 0:
        got = f"{indices.shape} and {td_error.shape}"
        raise ValueError(f"prioritized.update: indices and td_error must have one shape and not be empty, got {got}")
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"prioritized.update: indices must be integers, got {indices.dtype}; pass batch.indices, then td_error")
    at = jnp.ravel(indices)
    limits = jnp.finfo(jnp.float32)
    priority = jnp.abs(jnp.asarray(td_error, jnp.float32).reshape(-1)) + jnp.asarray(eps, jnp.float32)
    priority = priority ** jnp.asarray(alpha, jnp.float32)
    priority = jnp.where(priority <= float(limits.max) / (2 * buffer.rows.capacity), priority, buffer.largest)  # false for NaN
    priority = jnp.where(priority >= limits.tiny, priority, 0.0)
    # Set to 0, then take the maximum: duplicates may be written in any order, and a maximum does not depend on it.
    cleared = buffer.sums[0].at[at].set(0.0, mode="promise_in_bounds")
    sums = [cleared.at[at].max(priority, mode="promise_in_bounds")]
    for level in buffer.sums[1:]:
        at = at // _WIDTH
        sums.append(level.at[at].set(_sum(_children(sums[-1], at)), mode="promise_in_bounds"))
    return Prioritized(buffer.rows, tuple(sums), jnp.maximum(buffer.largest, jnp.max(priority)))


def _find(sums: tuple[jax.Array, ...], noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The rows where the cumulative sum first exceeds (i + noise_i) / batch of the total, and their p^α, both `[batch]`.

    A priority is 0 only if all are, and the row is then arbitrary.
    """
    segment = _sum(sums[-1][None]) / noise.shape[0]
    # `target` is the point to find and `edge` the start of the node, both relative to the start of the segment: relative
    # to 0, points would be rounded to the last bit of the total.
    target = noise * segment
    edge = -jnp.arange(noise.shape[0], dtype=jnp.float32) * segment
    node = jnp.zeros(noise.shape, jnp.int32)
    for level in reversed(sums):
        children = _children(level, node)
        # Rounding may put the point outside of the node: clip it to just below the end.
        inside = jnp.clip(target - edge, 0.0, _sum(children) * (1 - 2**-24))
        child, start, priority = _pick(children, inside)
        node, edge = node * children.shape[1] + child, edge + start
    return node, priority


def _pick(children: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The first of the `children` `[batch, width]` whose end exceeds `inside` `[batch]`, with its start and its size.

    A child of size 0 ends where it starts, so it is never the one.
    """

    def walk(children, inside, unroll):
        def step(carry, x):
            child, start, mass, end = carry
            reached = end <= inside
            start, mass = jnp.where(reached, end, start), jnp.where(reached, x, mass)
            return (child + reached.astype(jnp.int32), start, mass, end + x), None

        before, zero = jnp.full(inside.shape, -1, jnp.int32), jnp.zeros_like(inside)
        return jax.lax.scan(step, (before, zero, zero, zero), children.T, unroll=unroll)[0][:3]

    # On a CPU, a loop of two iterations keeps XLA from fusing the whole descent into each use of its result, which
    # would make a step two to three times as slow.
    on_cpu = functools.partial(walk, unroll=max(1, children.shape[1] // 2))
    return jax.lax.platform_dependent(children, inside, cpu=on_cpu, default=functools.partial(walk, unroll=True))


def _children(level: jax.Array, node: jax.Array) -> jax.Array:
    """The children in `level`, `[batch, width]`, of the nodes `node` `[batch]` above it."""
    width = min(_WIDTH, level.shape[0])
    return level.reshape(-1, width).at[node].get(mode="clip")


def _sum(children: jax.Array) -> jax.Array:
    """Sum `children` `[nodes, width]` over the width, in the order of `_pick` and so with the same rounding: `[nodes]`."""
    return functools.reduce(jnp.add, [children[:, i] for i in range(children.shape[1])])
