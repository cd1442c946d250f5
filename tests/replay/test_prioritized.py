"""Prioritized replay against the definitions of the paper in NumPy, without a tree."""

import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl import replay
from jaxrl.replay import prioritized

EXAMPLE = {"obs": np.zeros(2, np.float32), "serial": np.int32(0)}
LAST_BELOW_ONE = np.float32(1 - 2**-24)
SIZES = [(1, 1), (5, 5), (16, 4), (17, 1), (300, 20), (4200, 600)]  # capacity and items in an add; 1 to 4 levels
few_examples = settings(deadline=None, max_examples=25)

add = jax.jit(prioritized.add)
sample = jax.jit(prioritized.sample)
update = jax.jit(prioritized.update)


class Reference:
    """Algorithm 1 of the paper in float64, without a tree."""

    def __init__(self, capacity):
        self.serial = np.zeros(capacity, np.int32)
        self.priority = np.zeros(capacity)  # p^α
        self.largest = 1.0

    def add(self, items, num_adds):
        n = len(items["serial"])
        rows = (num_adds * n + np.arange(n)) % len(self.serial)
        self.serial[rows] = items["serial"]
        self.priority[rows] = self.largest

    def update(self, index, td_error, alpha, eps):
        new = (np.abs(np.float64(td_error)) + eps) ** alpha
        for i in set(index.tolist()):
            self.priority[i] = new[index == i].max()
        self.largest = max(self.largest, new.max())

    def sample(self, noise):
        points = (np.arange(len(noise)) + np.float64(noise)) / len(noise) * self.priority.sum()
        return np.searchsorted(np.cumsum(self.priority), points, side="right")

    def weights(self, index, beta):
        filled = np.count_nonzero(self.priority)
        probability = self.priority / self.priority.sum()
        weights = (filled * probability[index]) ** -beta
        return weights / weights.max()


def make_items(serials):
    """Items that are known by their serial number."""
    serials = np.asarray(serials, np.int32)
    return {"obs": np.stack([serials, -serials], -1).astype(np.float32), "serial": serials}


def blocks(n, num_adds):
    return make_items(1 + num_adds * n + np.arange(n))


def filled_with(priorities, capacity=None):
    """A full buffer with these priorities, and serial numbers 0, 1, …"""
    priorities = np.asarray(priorities, np.float32)
    n = len(priorities)
    buffer = add(prioritized.init(EXAMPLE, capacity or n), make_items(np.arange(n)), jnp.int32(0))
    return update(buffer, np.arange(n), priorities, alpha=1.0, eps=0.0)


def assert_sums(buffer, rtol=0.0):
    """Each level is what the one below adds up to, and zeros fill it up."""
    for lower, upper in zip(buffer.sums, buffer.sums[1:], strict=False):
        sums = np.asarray(lower, np.float64).reshape(-1, 16).sum(-1)
        np.testing.assert_allclose(upper[: len(sums)], sums, rtol=rtol)
        assert not np.any(upper[len(sums) :])
    leaves = np.asarray(buffer.sums[0], np.float64)
    assert not np.any(leaves[buffer.rows.capacity :])
    np.testing.assert_allclose(np.asarray(buffer.sums[-1], np.float64).sum(), leaves.sum(), rtol=rtol)
    assert all(level.dtype == jnp.float32 for level in buffer.sums)
    assert len(buffer.sums[-1]) <= 16


def leaves_of(buffer):
    return np.asarray(buffer.sums[0])[: buffer.rows.capacity]


def assert_same_trees(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


# --- against the paper


@few_examples
@given(
    sizes=st.sampled_from(SIZES),
    rounds=st.integers(1, 12),
    start=st.sampled_from([0, 7, 2**31 - 20]),
    seed=st.integers(0, 2**32 - 1),
)
def test_exact_where_nothing_is_rounded(sizes, rounds, start, seed):
    """With small integers as priorities and noise in 256ths all sums are exact, and every draw must be the reference's."""
    capacity, n = sizes
    rng = np.random.default_rng(seed)
    buffer, reference = prioritized.init(EXAMPLE, capacity), Reference(capacity)
    start -= start % (capacity // n)  # so that rows are filled from the first
    for num_adds in range(rounds):
        buffer = add(buffer, blocks(n, num_adds), jnp.int32(start + num_adds))
        reference.add(blocks(n, num_adds), start + num_adds)
        np.testing.assert_array_equal(leaves_of(buffer), reference.priority)
        noise = (rng.integers(0, 256, 32) / 256).astype(np.float32)
        batch = sample(buffer, noise, replay.num_stored(num_adds + 1, n, capacity), beta=0.5)
        np.testing.assert_array_equal(batch.indices, reference.sample(noise))
        np.testing.assert_array_equal(batch.items["serial"], reference.serial[batch.indices])
        np.testing.assert_array_equal(batch.items["obs"][:, 1], -reference.serial[batch.indices])
        np.testing.assert_allclose(batch.weights, reference.weights(batch.indices, 0.5), rtol=1e-6)
        td_error = rng.integers(-9, 10, 32).astype(np.float32)
        td_error[td_error == 0] = 4  # no priority of 0 here: the reference counts by them
        buffer = update(buffer, batch.indices, td_error, alpha=1.0, eps=0.0)
        reference.update(np.asarray(batch.indices), td_error, 1.0, 0.0)
        np.testing.assert_array_equal(leaves_of(buffer), reference.priority)
        assert float(buffer.largest) == reference.largest
        assert_sums(buffer)


def test_the_last_numbers_of_adds_do_not_overflow():
    """With 15 blocks of 20, 2**31 − 1 is the eighth."""
    assert (2**31 - 1) % 15 == 7
    buffer = add(prioritized.init(EXAMPLE, 300), blocks(20, 0), jnp.int32(2**31 - 1))
    np.testing.assert_array_equal(np.flatnonzero(leaves_of(buffer)), np.arange(140, 160))
    np.testing.assert_array_equal(np.flatnonzero(buffer.rows.rows[:, 2]), np.arange(140, 160))


@few_examples
@given(
    sizes=st.sampled_from(SIZES),
    alpha=st.floats(0.0, 1.5),
    beta=st.floats(0.0, 1.0),
    eps=st.floats(1e-6, 0.1),
    seed=st.integers(0, 2**32 - 1),
)
def test_draws_and_weights_are_those_of_the_paper(sizes, alpha, beta, eps, seed):
    capacity, n = sizes
    rng = np.random.default_rng(seed)
    buffer, reference = prioritized.init(EXAMPLE, capacity), Reference(capacity)
    adds = int(rng.integers(1, 2 * capacity // n + 1))
    for num_adds in range(max(0, adds - 3 * 16), adds) if n > 1 else range(adds):
        buffer = add(buffer, blocks(n, num_adds), jnp.int32(num_adds))
        reference.add(blocks(n, num_adds), num_adds)
    filled = np.flatnonzero(reference.priority)
    for _ in range(3):
        index, td_error = rng.choice(filled, 32), rng.standard_cauchy(32).astype(np.float32)
        buffer = update(buffer, index, td_error, alpha=alpha, eps=eps)
        reference.update(index, td_error, alpha, eps)
    np.testing.assert_allclose(leaves_of(buffer), reference.priority, rtol=2e-5)
    assert_sums(buffer, rtol=1e-6)
    noise = rng.random(32, np.float32)
    batch = sample(buffer, noise, jnp.int32(len(filled)), beta=beta)
    np.testing.assert_allclose(batch.weights, reference.weights(batch.indices, beta), rtol=1e-4)
    assert batch.weights.max() == 1
    reference.priority = leaves_of(buffer).astype(np.float64)  # the point lies in the item's interval, up to rounding
    ends = np.cumsum(reference.priority)
    points, slack = (np.arange(32) + np.float64(noise)) / 32 * ends[-1], 1e-5 * ends[-1]
    assert np.all(points < ends[batch.indices] + slack)
    assert np.all(points > ends[batch.indices] - reference.priority[batch.indices] - slack)


PRIORITIES = np.random.default_rng(0).gamma(0.5, size=300).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 100])
def test_frequencies_are_in_proportion_to_the_priorities(batch):
    """Pearson's chi-square test, at a level that a right sampler fails for one key in a million, or less where stratified."""
    buffer = filled_with(PRIORITIES)
    draw = jax.jit(jax.vmap(lambda noise: prioritized.sample(buffer, noise, jnp.int32(300), beta=1.0).indices))
    index = draw(prioritized.noise(jax.random.key(0), (300_000 // batch, batch)))
    expected = 300_000 * PRIORITIES.astype(np.float64) / PRIORITIES.sum(dtype=np.float64)
    enough = expected > 5
    counts = np.bincount(np.ravel(index), minlength=300)
    statistic = np.sum((counts - expected)[enough] ** 2 / expected[enough])
    assert enough.sum() > 250
    assert statistic < scipy.stats.chi2.isf(1e-6, enough.sum() - 1)


def test_weights_correct_the_bias_of_the_draw():
    """With β = 1 the weighted mean over draws is the plain mean over the buffer; with β = 0 it is that under the priorities."""
    buffer = filled_with(PRIORITIES)
    value = np.sqrt(PRIORITIES, dtype=np.float64)  # correlated with the priority, so that the bias is large
    noise = prioritized.noise(jax.random.key(1), (100_000,))
    estimates = []
    for beta in (1.0, 0.0):
        batch = sample(buffer, noise, jnp.int32(300), beta=beta)
        weights = np.asarray(batch.weights, np.float64)
        estimates.append(np.average(value[batch.indices], weights=weights))
        deviation = weights * (value[batch.indices] - estimates[-1])
        error = np.sqrt(np.sum(deviation**2)) / weights.sum()  # of independent draws, so an upper bound
        probability = PRIORITIES ** np.float64(1 - beta)
        assert abs(estimates[-1] - np.average(value, weights=probability)) < 5 * error
    assert estimates[1] > 1.5 * estimates[0]


def test_weights_known_by_hand():
    batch = sample(filled_with([1, 2, 4, 1]), np.full(8, 0.5, np.float32), jnp.int32(4), beta=0.5)
    assert batch.indices.tolist() == [0, 1, 1, 2, 2, 2, 2, 3]
    np.testing.assert_allclose(batch.weights, np.array([1, 2, 2, 4, 4, 4, 4, 1]) ** -0.5, rtol=1e-6)
    assert batch.weights.dtype == jnp.float32
    assert batch.indices.dtype == jnp.int32


def test_probabilities_are_exact_where_the_last_bit_of_the_total_is_an_eighth_of_an_item():
    """2^20 items, 8192 to a segment: float32 cannot tell these points from the ends of items if counted from 0."""
    buffer = filled_with(np.ones(2**20))
    k = np.arange(0, 8192, 61)
    for fraction in (0.0, 1 / 512, 511 / 512):
        noise = ((k + fraction) / 8192).astype(np.float32)
        drawn = jax.jit(jax.vmap(lambda u: prioritized.sample(buffer, jnp.full(128, u), jnp.int32(2**20), beta=0.0).indices))(
            noise
        )
        np.testing.assert_array_equal(drawn, k[:, None] + 8192 * np.arange(128))


@few_examples
@given(st.sampled_from(SIZES), st.sampled_from([0.25, 1.0, 3.0]), st.integers(0, 2**32 - 1))
def test_equal_priorities_are_uniform_replay(sizes, priority, seed):
    capacity, _ = sizes
    buffer = filled_with(np.full(capacity, priority))
    noise = (np.random.default_rng(seed).integers(0, 256, 32) / 256).astype(np.float32)
    batch = sample(buffer, noise, jnp.int32(capacity), beta=0.7)
    np.testing.assert_array_equal(batch.indices, (np.arange(32) * 256 + noise * 256).astype(int) * capacity // (32 * 256))
    np.testing.assert_array_equal(batch.weights, np.ones(32))


# --- priorities


def test_new_items_get_the_largest_priority_there_has_been():
    buffer = prioritized.init(EXAMPLE, 6)
    assert not np.any(leaves_of(buffer))
    buffer = add(buffer, blocks(2, 0), jnp.int32(0))
    assert leaves_of(buffer).tolist() == [1, 1, 0, 0, 0, 0]
    buffer = update(buffer, np.array([0, 1]), np.array([0.25, -9.0], np.float32), alpha=0.5, eps=0.0)
    buffer = add(buffer, blocks(2, 1), jnp.int32(1))
    assert leaves_of(buffer).tolist() == [0.5, 3, 3, 3, 0, 0]
    buffer = update(buffer, np.array([1, 2, 3]), np.float32([1, 1, 1]), alpha=0.5, eps=0.0)  # it has been 3, and stays
    buffer = add(buffer, blocks(2, 3), jnp.int32(3))
    assert leaves_of(buffer).tolist() == [3, 3, 1, 1, 0, 0]
    assert_sums(buffer)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_the_largest_of_duplicates_holds_in_any_order(order):
    index, td_error = np.array([4, 17, 4, 4])[order], np.float32([0.5, 3, 2, -0.25])[order]
    buffer = update(filled_with(np.full(20, 8)), index, td_error, alpha=1.0, eps=0.0)
    expected = np.full(20, 8.0)
    expected[[4, 17]] = 2, 3
    np.testing.assert_array_equal(leaves_of(buffer), expected)
    assert_sums(buffer)


def test_index_and_td_error_may_have_any_one_shape():
    buffer, index, td_error = filled_with(np.ones(20)), np.array([[1, 17], [3, 2]]), np.float32([[5, 6], [7, 8]])
    assert_same_trees(update(buffer, index, td_error), update(buffer, index.ravel(), td_error.ravel()))


def test_a_hundred_thousand_updates_do_not_drift():
    def step(buffer, x):
        index, td_error = x
        return prioritized.update(buffer, index, td_error, alpha=1.0, eps=0.0), None

    def run(buffer, key):
        places, sizes, signs = jax.random.split(key, 3)
        index = jax.random.randint(places, (100_000, 4), 0, 300)
        td_error = jnp.exp(6 * jax.random.normal(sizes, (100_000, 4))) * jax.random.rademacher(signs, (100_000, 4), jnp.float32)
        return jax.lax.scan(step, buffer, (index, td_error))[0]

    buffer = jax.jit(run)(filled_with(PRIORITIES), jax.random.key(0))
    assert buffer.largest > 1e9  # what has gone through the sums, against which these are small
    assert_sums(buffer, rtol=1e-6)
    calm = update(buffer, np.arange(300), np.full(300, 1e-3, np.float32), alpha=1.0, eps=0.0)
    assert_sums(calm, rtol=1e-6)


@pytest.mark.slow
def test_after_ten_million_updates_no_zero_is_drawn():
    """Half of the last errors are 0, after errors of 10⁻⁸ to 10⁸: a tree that adds differences holds a remainder of these."""

    def step(buffer, key):
        places, sizes, kinds = jax.random.split(key, 3)
        index = jax.random.randint(places, (100,), 0, 300)
        td_error = jnp.where(jax.random.bernoulli(kinds, shape=(100,)), jnp.exp(6 * jax.random.normal(sizes, (100,))), 0.0)
        return prioritized.update(buffer, index, td_error, alpha=1.0, eps=0.0), None

    run = jax.jit(lambda buffer, key: jax.lax.scan(step, buffer, jax.random.split(key, 100_000))[0])
    buffer = run(filled_with(PRIORITIES), jax.random.key(0))
    buffer = update(buffer, np.arange(300), np.float32(1e-3 * (np.arange(300) % 2)), alpha=1.0, eps=0.0)
    assert_sums(buffer, rtol=1e-6)
    batch = sample(buffer, jax.random.uniform(jax.random.key(1), (10_000,)), jnp.int32(300), beta=1.0)
    assert set(batch.indices.tolist()) == set(range(1, 300, 2))


def test_no_priority_is_negative():
    """Whatever ε and α are: an ε below 0, which is not allowed, gives 0 or the largest priority."""
    for eps in (0.0, -0.5, -10.0):
        for alpha in (1.0, 0.6, 2.0):
            td_error = np.float32([-3.0, -0.25, -0.0, 0.25])
            buffer = update(filled_with(PRIORITIES), np.arange(4), td_error, alpha=alpha, eps=eps)
            assert np.all(leaves_of(buffer) >= 0)
            assert_sums(buffer, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38, -2e36])
def test_td_errors_that_are_not_finite_count_as_new_items(bad):
    """The limit is 3.4e38 / (2 · 300): 600 of them would still have a sum."""
    buffer = update(filled_with(PRIORITIES), np.array([7, 290]), np.float32([bad, 5]), alpha=1.0, eps=0.0)
    assert leaves_of(buffer)[7] == PRIORITIES.max() > 1
    assert leaves_of(buffer)[290] == 5
    assert buffer.largest == PRIORITIES.max()
    assert_sums(buffer, rtol=1e-6)


def test_a_buffer_full_of_the_largest_priorities_has_a_finite_sum():
    limit = np.float32(3.4e38 / 600)
    buffer = filled_with(np.full(300, limit))
    assert np.all(leaves_of(buffer) == limit)
    batch = sample(buffer, np.full(300, 0.5, np.float32), jnp.int32(300), beta=1.0)
    assert batch.indices.tolist() == list(range(300))
    np.testing.assert_array_equal(batch.weights, np.ones(300))


def test_priorities_below_the_normal_floats_are_zero():
    assert leaves_of(filled_with([1e-39, 1.2e-38, 0, 1e-38])).tolist() == [0, np.float32(1.2e-38), 0, 0]


# --- nothing is drawn that must not be


@few_examples
@given(
    sizes=st.sampled_from(SIZES),
    spread=st.sampled_from([0.0, 1.0, 10.0, 30.0]),
    zeros=st.sampled_from([0.0, 0.5, 0.99]),
    seed=st.integers(0, 2**32 - 1),
)
def test_neither_empty_rows_nor_zero_priorities_are_drawn(sizes, spread, zeros, seed):
    """Also at the ends of segments, where points are rounded, and over sixty orders of magnitude."""
    capacity, n = sizes
    rng = np.random.default_rng(seed)
    buffer = add(prioritized.init(EXAMPLE, capacity), blocks(n, 0), jnp.int32(0))
    priority = 10 ** rng.uniform(-spread, spread, n) * (rng.random(n) >= zeros)
    buffer = update(buffer, np.arange(n), priority.astype(np.float32), alpha=1.0, eps=0.0)
    for noise in (np.zeros(32), np.full(32, LAST_BELOW_ONE), np.ones(32), rng.random(32)):
        batch = sample(buffer, noise.astype(np.float32), jnp.int32(n), beta=1.0)
        assert np.all((batch.indices >= 0) & (batch.indices < n))
        if np.any(priority):
            assert np.all(leaves_of(buffer)[batch.indices] > 0)
            assert np.all(np.isfinite(batch.weights))


def test_no_zero_priority_is_drawn_by_points_that_fall_on_the_beginnings_of_nodes():
    """Every node begins with a zero, and rounding puts a point before the node that it was found in."""
    priority = np.random.default_rng(0).integers(1, 1000, 4200).astype(np.float32)
    priority[::16] = 0
    buffer = filled_with(priority)
    beginnings = np.cumsum(np.append(0, priority[:-1]), dtype=np.float64)[::16] / priority.sum(dtype=np.float64)
    noise = (beginnings * 100 % 1)[:, None] + np.arange(-32, 33) * 2.0**-26
    noise = np.clip(noise, 0, LAST_BELOW_ONE).astype(np.float32).ravel()
    draw = jax.jit(jax.vmap(lambda u: prioritized.sample(buffer, jnp.full(100, u), jnp.int32(4200), beta=0.0).indices))
    assert np.all(priority[draw(noise)] > 0)


def test_one_priority_among_zeros_is_all_that_is_drawn():
    @jax.jit
    def draw(buffer, i, noise):
        buffer = prioritized.update(buffer, i[None], jnp.ones(1), alpha=1.0, eps=0.0)
        return prioritized.sample(buffer, noise, jnp.int32(300), beta=1.0)

    buffer = filled_with(np.zeros(300))
    for edge in (0.0, LAST_BELOW_ONE):
        batch = jax.vmap(draw, (None, 0, None))(buffer, np.arange(300, dtype=np.int32), np.full(7, edge, np.float32))
        np.testing.assert_array_equal(batch.indices, np.repeat(np.arange(300)[:, None], 7, 1))
        assert np.all(batch.weights == 1)


@pytest.mark.parametrize("num_stored", [1, 3, 300])
def test_where_all_priorities_are_zero_the_draw_is_uniform(num_stored):
    noise = prioritized.noise(jax.random.key(0), (30_000,))
    batch = sample(filled_with(np.zeros(300)), noise, jnp.int32(num_stored), beta=1.0)
    counts = np.bincount(batch.indices, minlength=num_stored)
    expected = 30_000 / num_stored
    assert len(counts) == num_stored
    assert np.sum((counts - expected) ** 2) / expected <= scipy.stats.chi2.isf(1e-6, max(1, num_stored - 1))
    assert np.all(batch.weights == 1)
    last = sample(filled_with(np.zeros(300)), np.ones(1, np.float32), jnp.int32(num_stored), beta=1.0)
    assert last.indices.tolist() == [num_stored - 1]


@pytest.mark.parametrize("capacity", [1, 16, 300])
def test_a_single_filled_row_is_all_that_is_drawn(capacity):
    buffer = add(prioritized.init(EXAMPLE, capacity), blocks(1, 0), jnp.int32(0))
    batch = sample(buffer, np.linspace(0, LAST_BELOW_ONE, 9, dtype=np.float32), jnp.int32(1), beta=1.0)
    assert batch.indices.tolist() == [0] * 9
    assert batch.items["serial"].tolist() == [1] * 9
    assert np.all(batch.weights == 1)


# --- wrong arguments


@pytest.mark.parametrize(("capacity", "error"), [(0, ValueError), (-4, ValueError), (8.0, TypeError), (True, TypeError)])
def test_capacities_are_positive_ints(capacity, error):
    with pytest.raises(error, match="capacity"):
        prioritized.init(EXAMPLE, capacity)


def test_a_capacity_that_does_not_fit_is_refused_with_one_that_does():
    with pytest.raises(ValueError, match=r"10.* 4 .*nearest is 8\b"):
        prioritized.add(prioritized.init(EXAMPLE, 10), blocks(4, 0), jnp.int32(0))


def test_items_unlike_the_example_are_refused():
    with pytest.raises(ValueError, match=r"items must be as in init.*float32\[2\].*; got .*'serial'"):
        prioritized.add(prioritized.init(EXAMPLE, 8), {"serial": np.zeros(4, np.int32)}, jnp.int32(0))


@pytest.mark.parametrize("shape", [(), (0,), (2, 5)])
def test_noise_is_one_batch(shape):
    with pytest.raises(ValueError, match=rf"noise must be float32\[batch\].*got shape {re.escape(str(shape))}"):
        prioritized.sample(filled_with(np.ones(4)), jnp.zeros(shape), jnp.int32(4), beta=1.0)


def test_the_noise_of_the_uniform_replay_is_refused():
    with pytest.raises(TypeError, match=r"noise must be float32, got uint32; draw it with prioritized\.noise"):
        prioritized.sample(filled_with(np.ones(4)), replay.noise(jax.random.key(0), (3,)), jnp.int32(4), beta=1.0)


@pytest.mark.parametrize(("index", "td_error"), [((3,), (4,)), ((3,), ()), ((3, 1), (3,)), ((0,), (0,))])
def test_index_and_td_error_of_different_shapes_are_refused(index, td_error):
    got = rf"got {re.escape(str(index))} and {re.escape(str(td_error))}"
    with pytest.raises(ValueError, match=rf"indices and td_error must have one shape.*{got}"):
        jax.eval_shape(prioritized.update, filled_with(np.ones(4)), jnp.zeros(index, jnp.int32), jnp.zeros(td_error))


def test_index_and_td_error_in_the_wrong_order_are_refused():
    with pytest.raises(TypeError, match=r"indices must be integers, got float32; pass batch\.indices, then td_error"):
        prioritized.update(filled_with(np.ones(4)), jnp.ones(2), jnp.zeros(2, jnp.int32))


# --- under jit, scan and vmap

SEEDS = 3


def learn(buffer, xs, alpha=0.6, beta=0.4, eps=1e-3):
    """Some iterations as an agent would do them; the TD error is some function of the item."""

    def step(buffer, x):
        num_adds, items, noise = x
        buffer = prioritized.add(buffer, items, num_adds)
        num_stored = replay.num_stored(num_adds + 1, items["serial"].shape[0], buffer.rows.capacity)
        batch = prioritized.sample(buffer, noise, num_stored, beta=beta)
        td_error = jnp.sin(batch.items["serial"].astype(jnp.float32))
        return prioritized.update(buffer, batch.indices, td_error, alpha=alpha, eps=eps), batch

    return jax.lax.scan(step, buffer, xs)


def iterations(length, n, batch, seed=0, seeds=()):
    rng = np.random.default_rng(seed)
    items = make_items(rng.integers(0, 2**20, (*seeds, length, n)))
    return np.arange(length, dtype=np.int32), items, rng.random((*seeds, length, batch), np.float32)


over_seeds = (None, 0, 0)


def test_vmap_over_seeds_is_a_loop_over_them():
    buffer, (num_adds, items, noise) = prioritized.init(EXAMPLE, 300), iterations(40, 10, 8, seeds=(SEEDS,))
    batched = jax.jit(jax.vmap(learn, (None, over_seeds)))(buffer, (num_adds, items, noise))
    for s in range(SEEDS):
        one = jax.jit(learn)(buffer, (num_adds, jax.tree.map(lambda x, s=s: x[s], items), noise[s]))
        assert_same_trees(jax.tree.map(lambda x, s=s: x[s], batched), one)
        assert_sums(one[0], rtol=1e-6)


def test_hyperparameters_may_be_traced_and_batched():
    buffer, xs = prioritized.init(EXAMPLE, 300), iterations(40, 10, 8)
    hparams = np.float32([[0.0, 0.6, 1.0], [1.0, 0.4, 0.0], [1e-3, 0.1, 1.0]])
    batched = jax.jit(jax.vmap(partial(learn, buffer, xs)))(*hparams)
    for s in range(3):
        one = jax.jit(partial(learn, buffer, xs))(*hparams[:, s])
        assert_same_trees(jax.tree.map(lambda x, s=s: x[s], batched), one)
    weights = batched[1].weights
    assert np.any(weights[1] < 1)
    np.testing.assert_array_equal(weights[2], np.ones_like(weights[2]))  # β = 0


def operations(function, *args):
    """The names of all primitives in the jaxpr, and of all instructions in the compiled program."""
    traced = jax.jit(function).trace(*args)
    primitives = re.findall(r" = ([a-z_]+)", str(traced.jaxpr))
    return {name.replace("_", "-") for name in primitives} | set(re.findall(r" ([a-z-]+)\(", traced.lower().compile().as_text()))


@pytest.mark.parametrize("n", [1, 10, 60])
def test_adding_under_vmap_is_no_scatter(n):
    buffers = jax.tree.map(lambda x: jnp.stack([x] * SEEDS), filled_with(PRIORITIES))
    items = make_items(np.arange(SEEDS * n).reshape(SEEDS, n))
    batched_add = jax.vmap(prioritized.add, (0, 0, None))
    names = operations(batched_add, buffers, items, jnp.int32(2))
    assert "dynamic-update-slice" in names
    assert "scatter" not in names
    each = jnp.array([2, 0, 4], jnp.int32)  # a number for each seed may be a scatter, and is still right
    assert "scatter" in operations(jax.vmap(prioritized.add), buffers, items, each)  # it would be seen
    for batched, num_adds in (
        (jax.jit(batched_add)(buffers, items, jnp.int32(2)), [2] * 3),
        (jax.jit(jax.vmap(prioritized.add))(buffers, items, each), each),
    ):
        for s in range(SEEDS):
            one = add(filled_with(PRIORITIES), jax.tree.map(lambda x, s=s: x[s], items), num_adds[s])
            assert_same_trees(jax.tree.map(lambda x, s=s: x[s], batched), one)


@pytest.mark.parametrize("seeds", [(), (SEEDS,)])
def test_a_donated_buffer_is_written_in_place(seeds):
    """One copy of the priorities of all rows, a third of what a row is here, would be seen."""
    function, buffer, xs = learn, prioritized.init(EXAMPLE, 2**16), iterations(3, 2, 4, seeds=seeds)
    for size in seeds:
        function = jax.vmap(function, (0, over_seeds))
        buffer = jax.tree.map(lambda x, size=size: jnp.stack([x] * size), buffer)
    donating = jax.jit(function, donate_argnums=0)
    memory = donating.lower(buffer, xs).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= buffer.rows.rows.nbytes + buffer.sums[0].nbytes
    assert memory.temp_size_in_bytes < buffer.sums[0].nbytes / 4
    expected, _ = jax.jit(function)(buffer, xs)
    filled, _ = donating(buffer, xs)
    assert buffer.rows.rows.is_deleted()
    assert buffer.sums[0].is_deleted()
    assert_same_trees(filled, expected)


def test_a_buffer_passes_through_jit_without_recompiling():
    traces = []

    @jax.jit
    def step(buffer, num_adds, items, noise, beta):
        traces.append(num_adds)
        buffer = prioritized.add(buffer, items, num_adds)
        batch = prioritized.sample(buffer, noise, replay.num_stored(num_adds + 1, 10, 300), beta=beta)
        return prioritized.update(buffer, batch.indices, batch.weights)

    buffer = prioritized.init(EXAMPLE, 300)
    for num_adds in range(3):
        noise = prioritized.noise(jax.random.key(num_adds), (8,))
        buffer = step(buffer, jnp.int32(num_adds), blocks(10, num_adds), noise, jnp.float32(0.1 * num_adds))
    assert len(traces) == 1


@pytest.mark.parametrize("td_dtype", [jnp.float32, jnp.bfloat16, jnp.float16, np.float64, jnp.int32])
@pytest.mark.parametrize("index_dtype", [jnp.int32, np.int64, jnp.uint8])
def test_dtypes_stay_whatever_comes_in(td_dtype, index_dtype):
    buffer = update(filled_with(np.ones(20)), np.array([3, 17], index_dtype), np.array([2, 4], td_dtype), alpha=1, eps=0)
    assert leaves_of(buffer)[[3, 17]].tolist() == [2, 4]
    assert jax.tree.map(lambda x: x.dtype, buffer) == jax.tree.map(lambda x: x.dtype, prioritized.init(EXAMPLE, 20))
    assert not any(x.weak_type for x in jax.tree.leaves(buffer))


@pytest.mark.parametrize("beta", [1, 0.5, np.float64(0.5), jnp.bfloat16(0.5), jnp.int32(1)])
def test_beta_may_be_any_number(beta):
    batch = sample(filled_with([1, 4]), np.float32([0.0, 0.5]), 2, beta=beta)
    np.testing.assert_allclose(batch.weights, [1, 4 ** -float(beta)])
    assert batch.weights.dtype == jnp.float32


def test_noise_is_drawn_ahead_in_any_shape():
    noise = prioritized.noise(jax.random.key(0), (4, 5))
    assert (noise.shape, noise.dtype) == ((4, 5), jnp.float32)
    assert np.all((noise >= 0) & (noise < 1))


def test_it_needs_nothing_but_the_replay():
    code = "import sys, jaxrl.replay.prioritized; print(*sorted(m for m in sys.modules if m.startswith('jaxrl.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == [
        "jaxrl._src",
        "jaxrl._src.checks",
        "jaxrl._src.dtypes",
        "jaxrl._src.in_place",
        "jaxrl._src.packing",
        "jaxrl._src.shapes",
        "jaxrl._src.shards",
        "jaxrl.replay",
        "jaxrl.replay.prioritized",
        "jaxrl.replay.sequences",
        "jaxrl.replay.uniform",
    ]
