"""Consecutive steps of one environment from a replay buffer: for n-step returns and for recurrent agents.

These functions are for buffers in which every `add` writes a rollout `[T, num_envs, ...]` as `T * num_envs` rows, in order
of time. The next step of the same environment is then `num_envs` rows later. The rows of a sequence are computed and read in
one gather. A sequence never continues from the newest step into the oldest, although they are adjacent in a full buffer.

>>> import jax, jax.numpy as jnp
>>> from jaxrl import replay
>>> steps = {"reward": jnp.arange(12.0), "done": jnp.arange(12) == 6}  # six steps of two environments: 0, 2, … and 1, 3, …
>>> buffer = replay.add(replay.init({"reward": jnp.float32(0), "done": jnp.bool_(False)}, 12), steps, jnp.int32(0))
>>> bits = jnp.array([0, 3, 7], jnp.uint32)
>>> batch = replay.sample_sequences(buffer, bits, jnp.int32(1), length=3, num_envs=2, rows_per_add=12)
>>> batch["reward"].tolist()
[[0.0, 2.0, 4.0], [3.0, 5.0, 7.0], [7.0, 9.0, 11.0]]
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_size
from jaxrl._src.shapes import check_bools, check_equal
from jaxrl.replay.uniform import Replay, check_capacity, check_noise, num_stored, take


def sample_sequences(
    replay: Replay, noise: jax.Array, num_adds: jax.Array, *, length: int, num_envs: int, rows_per_add: int
) -> Any:
    """Draw sequences uniformly from all stored ones, with replacement. They may span several episodes.

    Args:
      replay: the buffer.
      noise: `uint32[*shape]`, from `replay.noise`.
      num_adds: int32 scalar, the number of calls of `add` so far. At least `length` steps of each environment must be
        stored, or the sequences contain rows that were never written.
      length: number of steps in a sequence.
      num_envs: number of environments in each `add`.
      rows_per_add: number of rows in each `add`, a multiple of `num_envs`.

    Returns:
      Items with leaves `[*shape, length, ...]`.

    Raises:
      ValueError: if the sizes do not fit together.
      TypeError: if `noise` is not uint32.
    """
    check_noise("replay.sample_sequences", noise)
    length = _check_sizes(replay, length, num_envs, rows_per_add)
    stored = num_stored(num_adds, rows_per_add, replay.capacity)
    num_sequences = jnp.maximum(stored - (length - 1) * num_envs, 1)
    age = (noise % num_sequences.astype(jnp.uint32)).astype(jnp.int32)
    ages = age[..., None] + _offsets(age, length, num_envs)
    return take(replay, _shift(ages, _oldest_row(replay, num_adds, rows_per_add), replay.capacity))


def sequences_at(
    replay: Replay, indices: jax.Array, num_adds: jax.Array, *, length: int, num_envs: int, rows_per_add: int
) -> tuple[Any, jax.Array]:
    """The sequences that start at given rows, for example at those that `prioritized.sample` has drawn.

    Args:
      replay: the buffer; for a prioritized buffer, its field `rows`.
      indices: int32 `[*shape]`, rows that hold items.
      num_adds, length, num_envs, rows_per_add: as for `sample_sequences`.

    Returns:
      Items with leaves `[*shape, length, ...]`, and a mask of the valid ones, bool `[*shape, length]`: a sequence that
      reaches the newest step ends there, and is padded with copies of it.

    Raises:
      ValueError: if the sizes do not fit together.
    """
    length = _check_sizes(replay, length, num_envs, rows_per_add)
    oldest = _oldest_row(replay, num_adds, rows_per_add)
    age = _shift(indices, replay.capacity - oldest, replay.capacity)
    later = num_stored(num_adds, rows_per_add, replay.capacity) - 1 - age
    offsets = _offsets(age, length, num_envs)
    valid = offsets <= later[..., None]
    ages = age[..., None] + jnp.minimum(offsets, (later - later % num_envs)[..., None])
    return take(replay, _shift(ages, oldest, replay.capacity)), valid


def _check_sizes(replay: Replay, length: int, num_envs: int, rows_per_add: int) -> int:
    length, num_envs = check_size("length", length), check_size("num_envs", num_envs)
    check_capacity(replay.capacity, rows_per_add)
    if rows_per_add % num_envs:
        raise ValueError(
            f"rows_per_add {rows_per_add} must be a multiple of num_envs {num_envs}: whole steps of all environments"
        )
    if length * num_envs > replay.capacity:
        raise ValueError(
            f"sequences of {length} steps of {num_envs} environments do not fit into the replay's capacity {replay.capacity}"
        )
    return length


def _oldest_row(replay: Replay, num_adds: jax.Array, rows_per_add: int) -> jax.Array:
    """The row of the oldest item: 0 until the buffer is full, then the position of the next write."""
    num_blocks = replay.capacity // rows_per_add
    return jnp.where(num_adds < num_blocks, 0, (num_adds % num_blocks) * rows_per_add)


def _offsets(index: jax.Array, length: int, num_envs: int) -> jax.Array:
    """The offsets of `length` consecutive steps, `[*(1, …), length]`, to be added to `index[..., None]`."""
    return (num_envs * jnp.arange(length, dtype=jnp.int32)).reshape((1,) * index.ndim + (length,))


def _shift(index: jax.Array, by: jax.Array, capacity: int) -> jax.Array:
    """`(index + by) % capacity` for both in 0 … capacity, without overflow."""
    return jnp.where(index < capacity - by, index + by, index - (capacity - by))


# --- n-step returns


class NStep(NamedTuple):
    """The parts of an n-step target, `returns + discount * value(next_obs of step last)`."""

    returns: jax.Array  # [*shape], float32, or float64 if the rewards are: Σ γ^k r_k over the steps up to `last`
    discount: jax.Array  # [*shape], of the same dtype: γ^(last + 1), or 0 if the episode terminated
    last: jax.Array  # int32[*shape] in 0 … n − 1: the step from whose successor to bootstrap


def n_step(reward: jax.Array, terminated: jax.Array, truncated: jax.Array, discount, valid: jax.Array | None = None) -> NStep:
    """n-step returns of the first step of each sequence (Sutton & Barto 2018, eq. 7.1), as short as the episode requires.

    A return ends with the n-th step, with the episode, or with the last valid step, whichever comes first. There is no
    bootstrapping after a termination. After a truncation, the true successor's value is discounted by the steps taken.

    Args:
      reward, terminated, truncated: float32 and bool `[*shape, n]`. The loop over n is unrolled.
      discount: γ, scalar, may be traced.
      valid: bool `[*shape, n]`, from `sequences_at`; true in the first step.

    Returns:
      `NStep`. The target for the observation and action of step 0 is
      `returns + discount * value(step_at(items.next_obs, last))`.

    Raises:
      ValueError: if the shapes differ.
      TypeError: if a flag is not boolean.

    >>> flags = jnp.array([[False, False, False], [False, True, False]])
    >>> out = n_step(jnp.array([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]), flags, jnp.zeros_like(flags), 0.5)
    >>> out.returns.tolist(), out.discount.tolist(), out.last.tolist()
    ([3.0, 2.0], [0.125, 0.0], [2, 1])
    """
    flags = {"terminated": terminated, "truncated": truncated} | ({} if valid is None else {"valid": valid})
    check_equal("n_step", reward=reward, **flags)
    check_bools("n_step", **flags)
    discount = jnp.asarray(discount, jnp.float32)
    returns, factor, ended = jnp.zeros_like(reward[..., 0]), jnp.ones_like(reward[..., 0]), jnp.zeros_like(terminated[..., 0])
    last = jnp.zeros(ended.shape, jnp.int32)
    for k in range(reward.shape[-1]):
        counts = ~ended if k == 0 or valid is None else ~ended & valid[..., k]
        returns = returns + jnp.where(counts, factor * reward[..., k], 0.0)
        factor = jnp.where(counts, factor * discount, factor)
        last = jnp.where(counts, k, last)
        factor = jnp.where(counts & terminated[..., k], 0.0, factor)
        ended = ~counts | terminated[..., k] | truncated[..., k]
    return NStep(returns, factor, last)


def step_at(sequences: Any, index: jax.Array) -> Any:
    """Select step `index`, int32 `[*shape]`, of each sequence: leaves `[*shape, n, ...]` to `[*shape, ...]`.

    Raises TypeError if `index` does not hold integers.
    """
    index = jnp.asarray(index)
    if not jnp.issubdtype(index.dtype, jnp.integer):
        raise TypeError(f"replay.step_at: index must hold integers, got {index.dtype}; such as NStep.last")

    def choose(x):
        chosen = x[(slice(None),) * index.ndim + (0,)]
        for k in range(1, x.shape[index.ndim]):
            at = (index == k).reshape(index.shape + (1,) * (chosen.ndim - index.ndim))
            chosen = jnp.where(at, x[(slice(None),) * index.ndim + (k,)], chosen)
        return chosen

    return jax.tree.map(choose, sequences)
