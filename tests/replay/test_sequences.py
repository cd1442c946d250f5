"""Sequences and n-step returns against loops over lists of all steps that were ever added."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl import replay
from jaxrl.replay import prioritized

EXAMPLE = {"obs": {"image": np.zeros((2, 2), bool), "time": np.int32(0)}, "env": np.int32(0)}
# environments, steps in each add, blocks in the buffer, length
SIZES = [(1, 1, 6, 1), (1, 1, 6, 3), (3, 1, 5, 2), (2, 3, 4, 5), (3, 2, 2, 4), (2, 4, 1, 3), (2, 2, 3, 6)]


def block(num_envs, num_steps, index):
    """The `index`-th rollout, flattened: every step knows its time and its environment."""
    time = np.repeat(1 + index * num_steps + np.arange(num_steps, dtype=np.int32), num_envs)
    image = (time[:, None, None] // np.array([[1, 2], [4, 8]])) % 2 == 1
    return {"obs": {"image": image, "time": time}, "env": np.tile(np.arange(num_envs, dtype=np.int32), num_steps)}


@partial(jax.jit, static_argnums=(0, 1, 2))
def filled(num_envs, num_steps, capacity, blocks, first):
    step = lambda buffer, x: (replay.add(buffer, *x), None)
    num = jax.tree.leaves(blocks)[0].shape[0]
    return jax.lax.scan(step, replay.init(EXAMPLE, capacity), (blocks, first + jnp.arange(num, dtype=jnp.int32)))[0]


def make(sizes, num_adds, first=0):
    """A buffer after `num_adds` adds, numbered from `first`, and the times that each environment has stored, in order."""
    num_envs, num_steps, num_blocks, _ = sizes
    blocks = [block(num_envs, num_steps, i) for i in range(num_adds)]
    buffer = filled(
        num_envs, num_steps, num_envs * num_steps * num_blocks, jax.tree.map(lambda *x: np.stack(x), *blocks), jnp.int32(first)
    )
    times = np.arange(1, num_adds * num_steps + 1)[-num_blocks * num_steps :]
    return buffer, times


def arguments(sizes):
    num_envs, num_steps, _, length = sizes
    return {"length": length, "num_envs": num_envs, "rows_per_add": num_envs * num_steps}


@cache
def sample_sequences(sizes):
    return jax.jit(partial(replay.sample_sequences, **arguments(sizes)))


@cache
def sequences_at(sizes):
    return jax.jit(partial(replay.sequences_at, **arguments(sizes)))


take = jax.jit(replay.take)


def rows_read(items):
    """(environment, time of the first step, …) for each sequence, after checking that all leaves belong together."""
    time, env = np.asarray(items["obs"]["time"]), np.asarray(items["env"])
    np.testing.assert_array_equal(items["obs"]["image"], (time[..., None, None] // np.array([[1, 2], [4, 8]])) % 2 == 1)
    assert np.all(env == env[..., :1])
    return [(e, *t) for e, t in zip(env[..., 0].tolist(), time.tolist(), strict=True)]


# Partly filled, just full, with the write position in the middle and at the end, and after many rounds.
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("extra", [0, 1, 2, 7])
def test_every_stored_sequence_is_drawn_once_by_consecutive_bits(sizes, extra):
    num_envs, num_steps, _, length = sizes
    num_adds = -(-length // num_steps) + extra
    buffer, times = make(sizes, num_adds)
    expected = [(env, *times[t : t + length]) for t in range(len(times) - length + 1) for env in range(num_envs)]
    draw = sample_sequences(sizes)
    bits = np.arange(2 * len(expected), dtype=np.uint32)
    assert rows_read(draw(buffer, bits, jnp.int32(num_adds))) == 2 * expected


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("num_adds", [1, 3, 8])
def test_sequences_at_given_rows_end_with_the_newest_step(sizes, num_adds):
    num_envs, _, _, length = sizes
    buffer, times = make(sizes, num_adds)
    rows = np.arange(len(times) * num_envs)
    items, valid = sequences_at(sizes)(buffer, rows, jnp.int32(num_adds))
    starts = jax.tree.map(np.asarray, take(buffer, rows))
    read = rows_read(items)
    for i in rows:
        time = starts["obs"]["time"][i]
        steps = [t for t in range(time, time + length) if t <= times[-1]]
        assert read[i] == (starts["env"][i], *steps, *[times[-1]] * (length - len(steps)))
        assert np.asarray(valid)[i].tolist() == [k < len(steps) for k in range(length)]


def test_the_last_numbers_of_adds_do_not_overflow():
    sizes, num_adds = (2, 3, 4, 5), 7
    first = 2**31 - 1 - num_adds - (2**31 - 1 - num_adds) % 4  # so that rows are filled from the first
    (early, times), (late, _) = make(sizes, num_adds), make(sizes, num_adds, first)
    np.testing.assert_array_equal(early.rows, late.rows)
    bits = np.arange(50, dtype=np.uint32)
    draw = sample_sequences(sizes)
    assert rows_read(draw(late, bits, jnp.int32(first + num_adds))) == rows_read(draw(early, bits, jnp.int32(num_adds)))
    at = sequences_at(sizes)
    rows = np.arange(2 * len(times))
    np.testing.assert_array_equal(at(late, rows, jnp.int32(first + num_adds))[1], at(early, rows, jnp.int32(num_adds))[1])


@pytest.mark.parametrize("shape", [(), (7,), (2, 5)])
def test_sequences_have_the_shape_of_the_noise(shape):
    buffer, _ = make((2, 3, 4, 5), 4)
    items = sample_sequences((2, 3, 4, 5))(buffer, replay.noise(jax.random.key(0), shape), jnp.int32(4))
    assert items["obs"]["image"].shape == (*shape, 5, 2, 2)
    assert items["env"].shape == (*shape, 5)


def test_under_vmap_nothing_but_the_gather_is_batched():
    sizes = (2, 3, 4, 5)
    buffers = [make(sizes, num)[0] for num in (6, 6)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *buffers)
    noise = replay.noise(jax.random.key(0), (2, 9))
    draw = sample_sequences(sizes)
    batched = jax.vmap(draw, (0, 0, None))(stacked, noise, jnp.int32(6))
    for i in range(2):
        alone = draw(buffers[i], noise[i], jnp.int32(6))
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=i: x[i], batched), alone)
    jaxpr = str(jax.make_jaxpr(jax.vmap(draw, (0, 0, None)))(stacked, noise, jnp.int32(6)))
    assert jaxpr.count(" gather[") == 1
    assert "cond" not in jaxpr
    assert "while" not in jaxpr


def test_sequences_by_priority():
    sizes, num_adds = (2, 3, 4, 3), 5
    buffer = prioritized.init(EXAMPLE, 24)
    for i in range(num_adds):
        buffer = jax.jit(prioritized.add)(buffer, block(2, 3, i), jnp.int32(i))
    td_error = np.zeros(24, np.float32)
    td_error[[7, 4]] = 1.0  # row 7: of block 1, which is stored in full; row 4: the newest step but none of environment 0
    buffer = jax.jit(prioritized.update)(buffer, np.arange(24), td_error, alpha=1.0, eps=0.0)
    batch = jax.jit(prioritized.sample)(buffer, np.float32([0.5, 0.5]), jnp.int32(24), beta=1.0)
    assert batch.indices.tolist() == [4, 7]
    items, valid = sequences_at(sizes)(buffer.rows, batch.indices, jnp.int32(num_adds))
    assert rows_read(items) == [(0, 15, 15, 15), (1, 4, 5, 6)]
    assert valid.tolist() == [[True, False, False], [True, True, True]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows_per_add": 5}, "capacity 24 must be a multiple of the 5 rows"),
        ({"num_envs": 4}, "rows_per_add 6 must be a multiple of num_envs 4"),
        ({"length": 13}, "13 steps of 2 environments do not fit into the replay's capacity 24"),
        ({"length": 0}, "length must be at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    buffer, _ = make((2, 3, 4, 5), 4)
    sizes = arguments((2, 3, 4, 5)) | change
    with pytest.raises(ValueError, match=message):
        replay.sample_sequences(buffer, jnp.uint32(0), jnp.int32(4), **sizes)
    with pytest.raises(ValueError, match=message):
        replay.sequences_at(buffer, jnp.int32(0), jnp.int32(4), **sizes)


# --- n-step returns


def n_step_loop(reward, terminated, truncated, discount, valid):
    total, factor = 0.0, 1.0
    for k in range(len(reward)):
        total += factor * reward[k]
        factor *= discount
        if terminated[k]:
            return total, 0.0, k
        if truncated[k] or k + 1 == len(reward) or not valid[k + 1]:
            return total, factor, k
    raise AssertionError


@settings(deadline=None, max_examples=12)
@given(st.sampled_from([1, 2, 5]), st.sampled_from([0.0, 0.5, 0.99, 1.0]), st.integers(0, 2**32 - 1))
def test_n_step_returns_are_a_loop(n, discount, seed):
    rng = np.random.default_rng(seed)
    reward = rng.normal(size=(4, 8, n)).astype(np.float32)
    terminated, truncated = rng.random((2, 4, 8, n)) < 0.2  # also both at once: then the task has ended
    valid = np.arange(n) < rng.integers(1, n + 1, (4, 8, 1))
    reward[~valid] = np.nan
    out = jax.jit(replay.n_step)(reward, terminated, truncated, discount, valid)
    for i in np.ndindex(4, 8):
        returns, factor, last = n_step_loop(reward[i], terminated[i], truncated[i], discount, valid[i])
        np.testing.assert_allclose(out.returns[i], returns, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(out.discount[i], factor, rtol=1e-5)
        assert out.last[i] == last
    assert [x.dtype for x in out] == [jnp.float32, jnp.float32, jnp.int32]
    whole = replay.n_step(np.nan_to_num(reward), terminated, truncated, discount)
    all_valid = replay.n_step(np.nan_to_num(reward), terminated, truncated, discount, np.ones_like(valid))
    jax.tree.map(np.testing.assert_array_equal, whole, all_valid)


def test_an_n_step_target_bootstraps_from_the_true_successor_of_a_truncated_step():
    """A chain that pays 1 a step; the value of an observation is ten times its number, and of the next episode's, 1000."""
    obs = np.float32([[0, 1, 2, 3], [0, 1, 1000, 1001]])
    next_obs = np.float32([[1, 2, 3, 4], [1, 2, 1001, 1002]])  # the second is truncated after two steps, with the successor 2
    truncated = np.array([[False] * 4, [False, True, False, False]])
    out = replay.n_step(np.ones_like(obs), np.zeros_like(truncated), truncated, 0.5)
    bootstrap = replay.step_at({"next": next_obs}, out.last)["next"]
    target = out.returns + out.discount * 10 * bootstrap
    np.testing.assert_allclose(target, [1.875 + 0.0625 * 40, 1.5 + 0.25 * 20])


FLAGS = np.zeros((2, 3), bool)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"terminated": FLAGS.astype(np.float32)}, TypeError, "n_step: terminated must hold bools, got float32"),
        ({"truncated": FLAGS.astype(np.uint8)}, TypeError, r"n_step: truncated must hold bools, got uint8.*astype\(bool\)"),
        ({"valid": FLAGS.astype(int)}, TypeError, "n_step: valid must hold bools, got int"),
        ({"terminated": FLAGS[:, :2]}, ValueError, r"n_step: .* reward \(2, 3\), terminated \(2, 2\), truncated \(2, 3\)"),
        ({"truncated": FLAGS[:, :1]}, ValueError, r"truncated \(2, 1\)"),
        ({"terminated": FLAGS[0], "truncated": FLAGS[0]}, ValueError, r"terminated \(3,\), truncated \(3,\)"),
        ({"valid": FLAGS[:1]}, ValueError, r"valid \(1, 3\)"),
    ],
)
def test_flags_that_do_not_fit_the_rewards_are_refused(change, error, message):
    arguments = {"reward": np.ones((2, 3), np.float32), "terminated": FLAGS, "truncated": FLAGS, "discount": 0.5} | change
    with pytest.raises(error, match=message):
        jax.eval_shape(replay.n_step, **arguments)


def test_the_discount_may_be_batched():
    flags = np.zeros((3, 4), bool)
    out = jax.vmap(partial(replay.n_step, np.ones((3, 4), np.float32), flags, flags))(jnp.float32([0.0, 0.5]))
    np.testing.assert_allclose(out.returns, [[1.0] * 3, [1.875] * 3])
    np.testing.assert_allclose(out.discount, [[0.0] * 3, [0.0625] * 3])


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_a_step_is_taken_out_of_every_leaf(shape):
    rng = np.random.default_rng(0)
    tree = {"a": rng.normal(size=(*shape, 4)).astype(np.float32), "b": {"c": rng.random((*shape, 4, 2, 2)) < 0.5}}
    index = rng.integers(0, 4, shape).astype(np.int32)
    got = replay.step_at(tree, index if shape else int(index))
    for i in np.ndindex(shape):
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y[i][index[i]]), got, tree)
    assert got["b"]["c"].dtype == bool
