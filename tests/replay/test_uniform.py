"""The replay and its packing against a ring buffer and byte strings in NumPy."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl import replay
from jaxrl._src.packing import PackedRows, layout_of, pack, unpack

LAST = 2**31 - 1
EXAMPLE = {"obs": np.zeros(3, np.float32), "action": np.int32(0), "done": np.bool_(False)}
few_examples = settings(deadline=None, max_examples=25)

add = jax.jit(replay.add)
sample = jax.jit(replay.sample)
take = jax.jit(replay.take)


class Ring:
    """A list of rows, in which each block overwrites the oldest."""

    def __init__(self, capacity):
        self.rows = [None] * capacity

    def add(self, items, num_adds):
        n = len(items["action"])
        first = (num_adds * n) % len(self.rows)  # Python's integers do not overflow
        for i in range(n):
            self.rows[first + i] = {name: leaf[i] for name, leaf in items.items()}


def make_items(shape, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "obs": rng.normal(size=(*shape, 3)).astype(np.float32),
        "action": rng.integers(1, 2**31 - 1, shape, np.int32),  # never 0, as unwritten rows are
        "done": rng.random(shape) < 0.5,
    }


def assert_same_trees(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def rows_of(buffer):
    return jax.tree.map(np.asarray, take(buffer, np.arange(buffer.capacity)))


def assert_holds(buffer, ring):
    rows = rows_of(buffer)
    for i, row in enumerate(ring.rows):
        read = jax.tree.map(lambda leaf, i=i: leaf[i], rows)
        assert_same_trees(read, jax.tree.map(np.zeros_like, EXAMPLE) if row is None else row)


# --- add and sample


@few_examples
@given(
    sizes=st.sampled_from([(1, 1), (8, 4), (6, 2), (5, 5)]),
    num_adds=st.integers(0, 9),
    start=st.one_of(st.just(0), st.integers(0, LAST - 9)),
    seed=st.integers(0, 2**32 - 1),
)
def test_add_is_a_ring_buffer(sizes, num_adds, start, seed):
    capacity, n = sizes
    buffer, ring = replay.init(EXAMPLE, capacity), Ring(capacity)
    for i in range(num_adds):
        items = make_items((n,), seed + i)
        buffer = add(buffer, items, jnp.int32(start + i))
        ring.add(items, start + i)
    assert buffer.capacity == capacity
    assert_holds(buffer, ring)


def test_the_last_numbers_of_adds_do_not_overflow():
    """With 3 blocks, 2**31 − 1 is the second: a number that wrapped around would be elsewhere."""
    assert LAST % 3 == 1
    buffer, ring = replay.init(EXAMPLE, 12), Ring(12)
    for num_adds in (LAST - 1, LAST):
        items = make_items((4,), num_adds)
        buffer = add(buffer, items, jnp.int32(num_adds))
        ring.add(items, num_adds)
    assert_holds(buffer, ring)
    assert ring.rows[0] is not None
    assert ring.rows[4] is not None
    assert ring.rows[8] is None


@few_examples
@given(st.integers(0, LAST), st.sampled_from([(8, 4), (2**20, 2**10), (2**31 - 2**20, 2**20)]))
def test_num_stored_counts_the_written_rows(num_adds, sizes):
    capacity, n = sizes
    stored = replay.num_stored(jnp.int32(num_adds), n, capacity)
    assert int(stored) == min(num_adds * n, capacity)
    assert stored.dtype == jnp.int32


@few_examples
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_samples_are_written_rows(num_adds, seed):
    capacity, n = 12, 3
    buffer, ring = replay.init(EXAMPLE, capacity), Ring(capacity)
    for i in range(num_adds):
        items = make_items((n,), seed + i)
        buffer = add(buffer, items, jnp.int32(i))
        ring.add(items, i)
    bits = np.random.default_rng(seed).integers(0, 2**32, (50,), np.uint32)
    bits[:3] = [0, 2**32 - 1, 2**31]
    batch = sample(buffer, bits, replay.num_stored(num_adds, n, capacity))
    written = [row for row in ring.rows if row is not None]
    for i in range(50):
        item = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), batch)
        assert_same_trees(item, written[int(bits[i]) % len(written)])


@pytest.mark.parametrize("shape", [(), (7,), (2, 5)])
def test_samples_have_the_shape_of_the_noise(shape):
    buffer = add(replay.init(EXAMPLE, 4), make_items((4,)), jnp.int32(0))
    noise = replay.noise(jax.random.key(0), shape)
    assert noise.dtype == jnp.uint32
    batch = sample(buffer, noise, jnp.int32(4))
    assert {name: leaf.shape for name, leaf in batch.items()} == {"obs": (*shape, 3), "action": shape, "done": shape}


@pytest.mark.parametrize("num_stored", [5, 24])
def test_samples_are_uniform(num_stored):
    """Pearson's chi-square test, at a level that a uniform sampler fails for one key in a million."""
    buffer = add(replay.init(np.int32(0), 24), np.arange(24, dtype=np.int32), jnp.int32(0))
    index = sample(buffer, replay.noise(jax.random.key(0), (100_000,)), jnp.int32(num_stored))
    counts = np.bincount(index, minlength=num_stored)
    expected = 100_000 / num_stored
    assert len(counts) == num_stored
    assert np.sum((counts - expected) ** 2) / expected < scipy.stats.chi2.isf(1e-6, num_stored - 1)


# --- wrong arguments


@pytest.mark.parametrize(("capacity", "n", "nearest"), [(10, 4, 8), (11, 4, 12), (3, 4, 4), (8, 5, 10)])
def test_a_capacity_that_does_not_fit_is_refused_with_one_that_does(capacity, n, nearest):
    with pytest.raises(ValueError, match=rf"{capacity}.* {n} .*nearest is {nearest}\b"):
        replay.add(replay.init(EXAMPLE, capacity), make_items((n,)), jnp.int32(0))
    add(replay.init(EXAMPLE, nearest), make_items((n,)), jnp.int32(0))


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"obs": np.zeros((4, 2), np.float32)}, r"float32\[2\]"),
        ({"action": np.zeros(4, np.float32)}, r"'action': 'float32\[\]'"),
        ({"done": np.zeros((4, 1), bool)}, r"bool\[1\]"),
        ({"reward": np.zeros(4, np.float32)}, "'reward'"),
    ],
)
def test_items_unlike_the_example_are_refused_with_both_named(change, got):
    with pytest.raises(ValueError, match=rf"'action': 'int32\[\]', 'done': 'bool\[\]', 'obs': 'float32\[3\]'.*; got .*{got}"):
        replay.add(replay.init(EXAMPLE, 8), make_items((4,)) | change, jnp.int32(0))


def test_leaves_of_different_numbers_of_items_are_refused():
    items = make_items((4,)) | {"done": np.zeros(3, bool)}
    with pytest.raises(ValueError, match=r"one number of items.*\[\(4,\), \(3,\), \(4, 3\)\]"):
        replay.add(replay.init(EXAMPLE, 8), items, jnp.int32(0))


@pytest.mark.parametrize("module", [replay, replay.prioritized])
def test_an_item_without_a_batch_and_a_batch_without_items_are_refused(module):
    buffer = module.init({"r": np.float32(0), "done": np.bool_(False)}, 8)
    with pytest.raises(ValueError, match=r"replay.add: .* one number of items in front, got the shapes \[\(\), \(\)\]"):
        module.add(buffer, {"r": jnp.float32(1), "done": jnp.bool_(True)}, 0)
    with pytest.raises(ValueError, match="rows_per_add, the number of items in each add, must be at least 1, got 0"):
        module.add(buffer, {"r": np.zeros(0, np.float32), "done": np.zeros(0, bool)}, 0)


@pytest.mark.parametrize(("rows", "error"), [(0, ValueError), (-4, ValueError), (4.0, TypeError)])
def test_the_number_of_items_in_each_add_is_a_positive_int(rows, error):
    with pytest.raises(error, match="rows_per_add, the number of items in each add, must be"):
        replay.check_capacity(8, rows)


@pytest.mark.parametrize("wrong", [jax.random.key(0), jnp.complex64(0)])
def test_an_example_that_rows_cannot_hold_is_refused(wrong):
    with pytest.raises(TypeError, match=rf"replay.init: example\['x'\]\[0\] must hold .* got {re.escape(str(wrong.dtype))}"):
        replay.init({"x": [wrong], "y": np.float32(0)}, 8)


def test_python_numbers_are_examples_and_numbers_of_items():
    ones = lambda num: {"r": jnp.ones(num), "n": jnp.ones(num, int)}  # in the default dtypes
    buffer = add(replay.init({"r": 0.0, "n": 0}, 4), ones(2), 0)
    assert_same_trees(replay.sample(buffer, jnp.arange(3, dtype=jnp.uint32), 2), ones(3))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_noise_that_holds_no_bits_is_refused(dtype):
    """Floats in [0, 1), those of `prioritized.noise`, would all be index 0."""
    buffer, noise = replay.init(EXAMPLE, 8), jax.ShapeDtypeStruct((5,), dtype)
    message = rf"noise must be uint32, got {np.dtype(dtype)}; draw it with replay\.noise"
    with pytest.raises(TypeError, match=f"replay.sample: {message}"):
        jax.eval_shape(replay.sample, buffer, noise, jnp.int32(8))
    sizes = {"length": 2, "num_envs": 2, "rows_per_add": 4}
    with pytest.raises(TypeError, match=f"replay.sample_sequences: {message}"):
        jax.eval_shape(partial(replay.sample_sequences, **sizes), buffer, noise, jnp.int32(2))


@pytest.mark.parametrize(("capacity", "error"), [(0, ValueError), (-4, ValueError), (8.0, TypeError), (True, TypeError)])
def test_capacities_are_positive_ints(capacity, error):
    with pytest.raises(error, match="capacity"):
        replay.init(EXAMPLE, capacity)


# --- under vmap


def stacked(buffers):
    return jax.tree.map(lambda *rows: jnp.stack(rows), *buffers)


def separate(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def operations(function, *args):
    """The names of all primitives in the jaxpr, and of all instructions in the compiled program."""
    traced = jax.jit(function).trace(*args)
    compiled = traced.lower().compile().as_text()
    primitives = re.findall(r" = ([a-z_]+)", str(traced.jaxpr))
    return {name.replace("_", "-") for name in primitives} | set(re.findall(r" ([a-z-]+)\(", compiled))


SEEDS = 3
over_seeds = jax.vmap(replay.add, (0, 0, None))


def test_vmap_over_seeds_is_a_loop_over_them_without_a_scatter():
    buffers = [replay.init(EXAMPLE, 8)] * SEEDS
    batched = stacked(buffers)
    for num_adds in range(3):
        items = make_items((SEEDS, 4), num_adds)
        buffers = [add(buffer, separate(items, s), jnp.int32(num_adds)) for s, buffer in enumerate(buffers)]
        batched = jax.jit(over_seeds)(batched, items, jnp.int32(num_adds))
    assert_same_trees(batched, stacked(buffers))
    names = operations(over_seeds, batched, items, jnp.int32(0))
    assert "dynamic-update-slice" in names
    assert "scatter" not in names
    batched_num_adds = jnp.zeros(SEEDS, jnp.int32)
    assert "scatter" in operations(jax.vmap(replay.add), batched, items, batched_num_adds)  # it would be seen


def test_vmap_over_two_axes_is_two_loops_without_a_scatter():
    both = jax.vmap(over_seeds, (0, 0, None))
    buffers = stacked([stacked([replay.init(EXAMPLE, 8)] * SEEDS)] * 2)
    items = make_items((2, SEEDS, 4))
    batched = jax.jit(both)(buffers, items, jnp.int32(1))
    for i in np.ndindex(2, SEEDS):
        assert_same_trees(separate(batched, i), add(separate(buffers, i), separate(items, i), jnp.int32(1)))
    assert "scatter" not in operations(both, buffers, items, jnp.int32(1))


def test_a_scan_under_vmap_has_no_scatter_either():
    def fill(buffer, items):
        step = lambda buffer, x: (replay.add(buffer, *x), None)
        return jax.lax.scan(step, buffer, (items, jnp.arange(3, dtype=jnp.int32)))[0]

    buffers, items = stacked([replay.init(EXAMPLE, 8)] * SEEDS), make_items((SEEDS, 3, 4))
    batched = jax.jit(jax.vmap(fill))(buffers, items)
    for s in range(SEEDS):
        assert_same_trees(separate(batched, s), jax.jit(fill)(separate(buffers, s), separate(items, s)))
    assert "scatter" not in operations(jax.vmap(fill), buffers, items)


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, None), (0, 0, 0), (0, None, 0), (None, None, 0), (None, 0, 0)])
def test_any_argument_may_be_batched(axes):
    """With a number of adds for each seed the write may be a scatter, and is still right."""
    filled = add(replay.init(EXAMPLE, 12), make_items((4,), 100), jnp.int32(2))
    args = (filled, make_items((4,)), jnp.int32(1))
    in_batch = (stacked([filled] * SEEDS), make_items((SEEDS, 4), 1), jnp.array([2, 0, 4], jnp.int32))
    args = tuple(many if axis == 0 else one for one, many, axis in zip(args, in_batch, axes, strict=True))
    batched = jax.jit(jax.vmap(replay.add, axes))(*args)
    for s in range(SEEDS):
        one = [separate(x, s) if axis == 0 else x for x, axis in zip(args, axes, strict=True)]
        assert_same_trees(separate(batched, s), add(*one))


def test_a_batched_number_of_adds_may_be_nested():
    add_twice = jax.jit(jax.vmap(jax.vmap(replay.add, (0, 0, 0)), (0, 0, None)))
    buffers = stacked([stacked([replay.init(EXAMPLE, 12)] * SEEDS)] * 2)
    items, num_adds = make_items((2, SEEDS, 4)), jnp.array([2, 0, 4], jnp.int32)
    batched = add_twice(buffers, items, num_adds)
    for i in np.ndindex(2, SEEDS):
        assert_same_trees(separate(batched, i), add(separate(buffers, i), separate(items, i), num_adds[i[1]]))


def test_sampling_under_vmap_is_a_loop_over_seeds():
    buffers = over_seeds(stacked([replay.init(EXAMPLE, 4)] * SEEDS), make_items((SEEDS, 4)), jnp.int32(0))
    noise = replay.noise(jax.random.key(0), (SEEDS, 7))
    batched = jax.jit(jax.vmap(replay.sample, (0, 0, None)))(buffers, noise, jnp.int32(4))
    for s in range(SEEDS):
        assert_same_trees(separate(batched, s), sample(separate(buffers, s), noise[s], jnp.int32(4)))


# --- in place


def fill(buffer, items, num_adds):
    def step(carry, items):
        buffer, num_adds = carry
        return (replay.add(buffer, items, num_adds), num_adds + 1), None

    return jax.lax.scan(step, (buffer, num_adds), items)[0][0]


def test_a_donated_buffer_is_filled_correctly_and_given_up():
    donating = jax.jit(fill, donate_argnums=0)
    ring, num_adds, first = Ring(8), 0, replay.init(EXAMPLE, 8)
    buffer = first
    for call in range(2):
        items = make_items((3, 2), call)
        buffer = donating(buffer, items, jnp.int32(num_adds))
        for t in range(3):
            ring.add(separate(items, t), num_adds + t)
        num_adds += 3
    assert_holds(buffer, ring)
    assert first.rows.is_deleted()


@pytest.mark.parametrize("seeds", [(), (SEEDS,)])
def test_adding_needs_no_memory_for_another_buffer(seeds):
    function, buffer = fill, replay.init(EXAMPLE, 2**14)
    for size in seeds:
        function, buffer = jax.vmap(function, (0, 0, None)), stacked([buffer] * size)
    compiled = jax.jit(function, donate_argnums=0).lower(buffer, make_items((*seeds, 3, 2)), jnp.int32(0)).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= buffer.rows.nbytes
    assert memory.temp_size_in_bytes < buffer.rows.nbytes / 10


def test_a_buffer_passes_through_jit_without_recompiling():
    traces = []

    @jax.jit
    def step(buffer, items, num_adds):
        traces.append(num_adds)
        return replay.add(buffer, items, num_adds)

    buffer = replay.init(EXAMPLE, 8)
    for num_adds in range(3):
        buffer = step(buffer, make_items((4,)), jnp.int32(num_adds))
    assert len(traces) == 1


# --- packing


DTYPES = [jnp.bool_, jnp.uint8, jnp.int8, jnp.int16, jnp.int32, jnp.uint32, jnp.float32, jnp.bfloat16, jnp.float16]
SPECS = st.lists(st.tuples(st.sampled_from(DTYPES), st.sampled_from([(), (1,), (3,), (2, 3), (0,)])), min_size=1, max_size=5)


def random_leaf(rng, shape, dtype):
    """Random bits, so that NaNs with payloads, infinities and negative zeros occur."""
    if dtype == jnp.bool_:
        return rng.random(shape) < 0.5
    size = np.prod(shape, dtype=int) * np.dtype(dtype).itemsize
    return np.frombuffer(rng.bytes(size), np.uint8).view(np.dtype(dtype)).reshape(shape)


def bytes_of(leaf, batch_ndim):
    """`uint8[*batch, bytes]`"""
    leaf = np.asarray(leaf)
    batch = leaf.shape[:batch_ndim]
    rows = [np.frombuffer(leaf[i].tobytes(), np.uint8) for i in np.ndindex(batch)]
    return np.reshape(rows, (*batch, len(rows[0])))


def spread(units, width):
    """Unit i of W words is in word i % W: the first W units are the lowest `width` bits of each, and so on."""
    num_words = -(-units.shape[-1] * width // 32)
    words = np.zeros((*units.shape[:-1], num_words), np.uint32)
    for i in range(units.shape[-1]):
        words[..., i % num_words] |= units[..., i].astype(np.uint32) << np.uint32(width * (i // num_words))
    return words


def packed_by_numpy(tree, batch_ndim):
    """All leaves of four bytes and more first, then the bytes of narrower ones, then bools as bits."""
    leaves = jax.tree.leaves(tree)
    batch = leaves[0].shape[:batch_ndim]

    def joined(chosen):
        return np.concatenate([np.zeros((*batch, 0), np.uint8), *(bytes_of(x, batch_ndim) for x in chosen)], axis=-1)

    wide = joined(x for x in leaves if x.dtype.itemsize >= 4)
    narrow = joined(x for x in leaves if x.dtype.itemsize < 4 and x.dtype != bool)
    bits = joined(x for x in leaves if x.dtype == bool)
    return np.concatenate([np.ascontiguousarray(wide).view("<u4"), spread(narrow, 8), spread(bits, 1)], axis=-1)


@settings(deadline=None, max_examples=15)
@given(SPECS, st.sampled_from([(), (5,), (2, 3)]), st.integers(0, 2**32 - 1))
def test_packing_round_trips_bit_for_bit(specs, batch, seed):
    rng = np.random.default_rng(seed)
    tree = {"nested": [random_leaf(rng, (*batch, *shape), dtype) for dtype, shape in specs]}
    layout = layout_of(tree, len(batch))
    packed = jax.jit(partial(pack, batch_ndim=len(batch)))(tree)
    np.testing.assert_array_equal(packed.rows, packed_by_numpy(tree, len(batch)))
    assert packed.layout == layout
    assert packed.rows.shape == (*batch, layout.num_words)
    result = jax.jit(unpack)(packed)
    assert jax.tree.structure(result) == jax.tree.structure(tree)
    for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(tree), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        np.testing.assert_array_equal(bytes_of(x, len(batch)), bytes_of(y, len(batch)))


def test_the_row_of_two_observations_of_400_bools_has_112_bytes():
    """802 bits, which are 26 words, an action and a reward."""
    flag = np.bool_(False)
    image = np.zeros((10, 10, 4), bool)
    example = {"obs": image, "next_obs": image, "action": np.int32(0), "reward": np.float32(0), "done": (flag, flag)}
    assert layout_of(example).num_words * 4 == 112
    assert replay.init(example, 6).rows.nbytes == 6 * 112


def test_eight_byte_leaves_are_two_words():
    with jax.enable_x64(True):
        tree = {"a": np.array([1.5, -np.pi]), "b": np.array([2**40 + 3, -1]), "c": np.array([True, False])}
        packed = pack(tree, 1)
        assert packed.rows.shape == (2, 5)
        np.testing.assert_array_equal(packed.rows, packed_by_numpy(tree, 1))
        assert_same_trees(jax.jit(unpack)(packed), tree)


def test_layouts_of_equal_trees_are_equal_and_hashable():
    one, other = layout_of(EXAMPLE), layout_of(make_items((4,)), batch_ndim=1)
    assert one == other
    assert hash(one) == hash(other)
    assert one != layout_of(make_items((4,)))


def test_packed_rows_may_be_stacked_by_a_scan_and_batched_by_a_vmap():
    items = make_items((4, 5))
    scanned = jax.jit(lambda items: jax.lax.scan(lambda _, x: (None, pack(x, batch_ndim=1)), None, items)[1])(items)
    assert isinstance(scanned, PackedRows)
    assert_same_trees(jax.jit(unpack)(scanned), items)
    assert_same_trees(jax.jit(jax.vmap(lambda x: unpack(pack(x, batch_ndim=1))))(items), items)
    assert_same_trees(jax.jit(unpack)(jax.tree.map(lambda rows: rows[2, 1:], scanned)), jax.tree.map(lambda x: x[2, 1:], items))
    assert [x.shape for x in jax.tree.leaves(scanned)] == [(4, 5, scanned.layout.num_words)]
