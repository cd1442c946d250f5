"""Shuffles: that each is a permutation, that all are equally likely, and that an epoch takes each row exactly once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxrl.minibatches import _MAX_PACKED, check_minibatches, permutation, scan_minibatches

ABOVE = _MAX_PACKED + 1  # these are sorted by the random bits alone, with the index beside them


def shuffles(num_rows, num, seed=0):
    keys = jax.random.split(jax.random.key(seed), num)
    return np.asarray(jax.jit(jax.vmap(lambda key: permutation(key, num_rows)))(keys))


@pytest.mark.parametrize("num_rows", [1, 2, 3, 7, 64, 1000, _MAX_PACKED, ABOVE, 5000])
def test_a_shuffle_has_each_row_once(num_rows):
    orders = shuffles(num_rows, 8)
    assert orders.dtype == np.int32
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.broadcast_to(np.arange(num_rows), orders.shape))
    if num_rows > 3:
        assert len(np.unique(orders, axis=0)) == len(orders)


@pytest.mark.parametrize("num_rows", [2, 3, 4])
def test_all_orders_are_equally_likely(num_rows):
    """χ² over all num_rows! orders, at p = 1e-4."""
    num = 24_000
    orders = shuffles(num_rows, num)
    counts = [np.sum((orders == order).all(axis=1)) for order in itertools.permutations(range(num_rows))]
    assert sum(counts) == num
    assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("num_rows", [5, 64])
def test_each_row_is_equally_likely_at_each_position(num_rows):
    """χ² of every row over positions; the smallest p-value against that of num_rows tests, at 1e-3 in all."""
    orders = shuffles(num_rows, 20_000)
    position = np.argsort(orders, axis=1)  # of each row
    pvalues = [stats.chisquare(np.bincount(position[:, row], minlength=num_rows)).pvalue for row in range(num_rows)]
    assert min(pvalues) > 1e-3 / num_rows


@pytest.mark.parametrize("num_rows", [1000, _MAX_PACKED, ABOVE])
def test_positions_are_uniform_for_many_rows(num_rows):
    """χ² of eight rows, near the ends and the middle, over 16 equal parts of the positions; and no order among neighbours."""
    orders = shuffles(num_rows, 4000)
    position = np.argsort(orders, axis=1)
    rows = np.r_[0, 1, num_rows // 2 + np.arange(-1, 3), num_rows - 2, num_rows - 1]
    for row in rows:
        part = position[:, row] * 16 // num_rows
        expected = np.bincount(np.arange(num_rows) * 16 // num_rows) * len(orders) / num_rows
        assert stats.chisquare(np.bincount(part, minlength=16), expected).pvalue > 1e-3 / 24
    # Ties in the random bits would keep neighbours in order. A random order of n has (n - 1) / 2 ascents, variance (n + 1) / 12.
    ascents = np.sum(position[:, :-1] < position[:, 1:])
    expected, variance = len(orders) * (num_rows - 1) / 2, len(orders) * (num_rows + 1) / 12
    assert abs(ascents - expected) < 4.5 * np.sqrt(variance)


# --- minibatches


def mixed(num_rows):
    """Leaves of several dtypes and shapes; each tells its row."""
    row = np.arange(num_rows)
    return {
        "row": jnp.asarray(row, jnp.int32),
        "image": jnp.asarray(row[:, None, None] % 251 + np.zeros((1, 2, 3)), jnp.uint8),
        "flag": jnp.asarray(row % 3 == 0),
        "half": (jnp.asarray(row % 128, jnp.bfloat16)[:, None],),
        "value": jnp.asarray(row / 7, jnp.float32),
    }


@pytest.mark.parametrize(("num_rows", "num_minibatches"), [(12, 4), (12, 1), (12, 12), (ABOVE - 1, 8), (2 * ABOVE, 2)])
def test_an_epoch_takes_each_row_exactly_once_and_whole(num_rows, num_minibatches):
    batch, keys = mixed(num_rows), jax.random.split(jax.random.key(0), 3)
    step = lambda count, minibatch: (count + 1, (count, minibatch))
    count, (index, seen) = jax.jit(lambda: scan_minibatches(step, jnp.int32(0), batch, keys, num_minibatches))()
    assert count == 3 * num_minibatches
    np.testing.assert_array_equal(index, np.arange(count).reshape(3, num_minibatches))  # in order, the carry handed on
    assert seen["row"].shape == (3, num_minibatches, num_rows // num_minibatches)
    rows = np.asarray(seen["row"]).reshape(3, num_rows)
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.broadcast_to(np.arange(num_rows), (3, num_rows)))
    assert not np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], np.arange(num_rows))
    for x, whole in zip(jax.tree.leaves(seen), jax.tree.leaves(batch), strict=True):
        assert x.dtype == whole.dtype
        np.testing.assert_array_equal(np.asarray(x).reshape(3, *whole.shape), np.asarray(whole)[rows])


def test_whole_sequences_stay_whole():
    batch = {"x": jnp.arange(8 * 5.0).reshape(8, 5)}  # [B, T]
    _, seen = scan_minibatches(lambda carry, x: (carry, x["x"]), (), batch, jax.random.split(jax.random.key(0), 2), 4)
    assert seen.shape == (2, 4, 2, 5)
    sequences = np.asarray(seen).reshape(2, 8, 5)
    np.testing.assert_array_equal(sequences - sequences[..., :1], np.broadcast_to(np.arange(5.0), (2, 8, 5)))


def test_each_epoch_is_shuffled_by_its_own_key():
    keys, batch = jax.random.split(jax.random.key(0), 3), jnp.arange(24)
    run = lambda keys: scan_minibatches(lambda carry, x: (carry, x), (), batch, keys, 2)[1]
    together = run(keys)
    for i in range(3):
        np.testing.assert_array_equal(run(keys[i : i + 1])[0], together[i])
        np.testing.assert_array_equal(np.ravel(together[i]), permutation(keys[i], 24))


def test_batched_seeds_are_shuffled_each_in_its_own_way():
    keys, batch = jax.random.split(jax.random.key(0), (3, 2)), jnp.arange(3 * 12).reshape(3, 12)
    run = lambda keys, batch: scan_minibatches(lambda carry, x: (carry, x), (), batch, keys, 3)[1]
    together = jax.vmap(run)(keys, batch)
    for i in range(3):
        np.testing.assert_array_equal(together[i], run(keys[i], batch[i]))
    assert len({tuple(np.ravel(x) - 12 * i) for i, x in enumerate(together)}) == 3


@pytest.mark.parametrize(("num", "nearest"), [(5, 4), (7, 6), (24, 12), (9, 8)])
def test_a_number_that_does_not_divide_the_rows_is_refused(num, nearest):
    rows = 24 if num == 9 else 12
    with pytest.raises(
        ValueError, match=rf"num_minibatches {num} must divide the {rows} rows .* nearest that does is {nearest}$"
    ):
        scan_minibatches(lambda carry, x: (carry, x), (), jnp.arange(rows), jax.random.split(jax.random.key(0), 1), num)
    check_minibatches(rows, nearest)


@pytest.mark.parametrize(("num", "error"), [(0, ValueError), (-2, ValueError), (2.0, TypeError)])
def test_a_number_of_minibatches_is_a_positive_int(num, error):
    with pytest.raises(error, match="num_minibatches must be"):
        check_minibatches(8, num)
