"""Adam against optax and against the algorithm in NumPy; counts that follow a clock."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.optimizers import AdamState, adam, num_updates, set_count

MAX = 2**31 - 1
NUM_STEPS = 50
SETTINGS = [{}, {"b1": 0.5, "b2": 0.9, "eps": 1e-2}]

each_setting = pytest.mark.parametrize("constants", SETTINGS, ids=["default", "other"])


@pytest.fixture
def lenient():
    """optax mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def make_params():
    rng = np.random.default_rng(0)
    return {"w": rng.normal(size=(3, 4)).astype(np.float32), "b": np.zeros(4, np.float32)}


def make_grads(step):
    """Gradients of very different sizes, with zeros among them."""
    rng = np.random.default_rng(100 + step)
    w = rng.normal(size=(3, 4)) * np.array([[1e-4], [1.0], [1e3]])
    return {"w": w.astype(np.float32), "b": (rng.normal(size=4) * [0, 1, 1, step % 2]).astype(np.float32)}


def run(optimizer, counts=None):
    """`NUM_STEPS` updates; with `counts`, the state's count is set before each."""
    params = make_params()
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, grads, count):
        if counts is not None:
            state = set_count(state, count)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, updates

    history = []
    for i in range(NUM_STEPS):
        params, state, updates = step(params, state, make_grads(i), jnp.int32(i if counts is None else counts[i]))
        history.append(updates)
    return params, state, history


def adam_loop(learning_rate, b1=0.9, b2=0.999, eps=1e-8):
    """Kingma & Ba (2015), algorithm 1, in float64."""
    params = {name: x.astype(np.float64) for name, x in make_params().items()}
    first, second = ({name: np.zeros_like(x) for name, x in params.items()} for _ in range(2))
    for t in range(1, NUM_STEPS + 1):
        grads = make_grads(t - 1)
        for name, g in grads.items():
            g = g.astype(np.float64)
            first[name] = b1 * first[name] + (1 - b1) * g
            second[name] = b2 * second[name] + (1 - b2) * g**2
            unbiased_first, unbiased_second = first[name] / (1 - b1**t), second[name] / (1 - b2**t)
            params[name] = params[name] - learning_rate * unbiased_first / (np.sqrt(unbiased_second) + eps)
    return params


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=rtol, atol=atol), actual, expected)


@each_setting
@pytest.mark.usefixtures("lenient")
def test_adam_is_that_of_optax(constants):
    params, state, history = run(adam(1e-2, **constants))
    optax_params, optax_state, optax_history = run(optax.adam(1e-2, **constants))
    assert_close(history, optax_history, atol=1e-8)
    assert_close(params, optax_params)
    assert_close((state.mu, state.nu), (optax_state[0].mu, optax_state[0].nu))
    assert state.count == NUM_STEPS


@each_setting
def test_adam_is_the_algorithm_of_the_paper(constants):
    assert_close(run(adam(1e-2, **constants))[0], adam_loop(1e-2, **constants), rtol=2e-5, atol=2e-6)


def test_adam_keeps_float32():
    params, optimizer = make_params(), adam(jnp.float32(1e-2))
    updates, state = jax.jit(optimizer.update)(make_grads(0), optimizer.init(params))
    for x, y in zip(jax.tree.leaves((updates, state)), jax.tree.leaves((params, optimizer.init(params))), strict=True):
        assert x.dtype == y.dtype


def test_adam_moves_nothing_without_gradients():
    params, optimizer = make_params(), adam(1e-2)
    updates, _ = optimizer.update(jax.tree.map(np.zeros_like, params), optimizer.init(params))
    assert_close(updates, jax.tree.map(np.zeros_like, params), atol=0)


def test_the_learning_rate_may_be_batched_and_the_count_stays_unbatched():
    params, grads = make_params(), make_grads(0)

    def update(learning_rate, moments, clock):
        optimizer = adam(learning_rate)
        state = set_count(AdamState(jnp.int32(0), *moments), clock)
        return optimizer.update(grads, state)

    moments = jax.tree.map(lambda x: jnp.stack([x, x]), adam(0.0).init(params)[1:])
    # `None` among the output axes is refused for whatever is batched.
    axes = (0, AdamState(None, 0, 0))
    updates, state = jax.vmap(update, (0, 0, None), axes)(jnp.float32([1e-2, 3e-2]), moments, jnp.int32(4))
    assert state.count == 5
    for i, learning_rate in enumerate((1e-2, 3e-2)):
        expected, _ = update(jnp.float32(learning_rate), jax.tree.map(lambda x, i=i: x[i], moments), jnp.int32(4))
        assert_close(jax.tree.map(lambda x, i=i: x[i], updates), expected)


# --- set_count


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("optimizer", [adam(1e-2), optax.adam(1e-2)], ids=["jaxrl", "optax"])
def test_a_count_set_from_the_clock_changes_nothing(optimizer):
    assert_close(run(optimizer, counts=range(NUM_STEPS)), run(optimizer), rtol=0, atol=0)


def test_set_count_sets_adam():
    state = adam(1e-2).init(make_params())
    changed = set_count(state, jnp.int32(7))
    assert changed.count == 7
    assert_close(changed[1:], state[1:], atol=0)


@pytest.mark.usefixtures("lenient")
def test_set_count_leaves_a_state_without_a_count_alone():
    optimizer = optax.rmsprop(1e-2)
    state = optimizer.init(make_params())
    assert jax.tree.all(jax.tree.map(lambda x, y: x is y, set_count(state, jnp.int32(7)), state))
    assert_close(run(optimizer, counts=[3] * NUM_STEPS), run(optimizer), rtol=0, atol=0)


@pytest.mark.usefixtures("lenient")
def test_set_count_sets_every_count_in_a_chain():
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.scale_by_adam(), optax.scale_by_schedule(lambda count: -0.1 * count)
    )
    params = make_params()
    state = set_count(optimizer.init(params), jnp.int32(7))
    clip, moments, schedule = state
    assert clip == optax.EmptyState()
    assert moments.count == 7
    assert schedule.count == 7
    updates, state = optimizer.update(make_grads(0), state)
    assert (state[1].count, state[2].count) == (8, 8)
    doubled, _ = optimizer.update(make_grads(0), (clip, moments, schedule._replace(count=jnp.int32(14))))
    assert_close(doubled, jax.tree.map(lambda x: 2 * x, updates))


# --- num_updates


@settings(deadline=None, max_examples=100)
@given(st.integers(0, MAX), st.integers(0, 10**6), st.one_of(st.integers(1, 1000), st.sampled_from([2**15, 2**30, MAX])))
def test_num_updates_counts_and_then_saturates(iterations, warmup, updates):
    clock = min(warmup + iterations, MAX)
    exact = (clock - warmup) * updates
    count = num_updates(jnp.int32(clock), warmup, updates)
    assert count.dtype == jnp.int32
    if exact + updates <= MAX - updates:
        assert int(count) == exact
    # It is a whole number of iterations, and the updates of one more still fit: that is what saturating is for.
    assert 0 <= int(count) <= exact
    assert int(count) % updates == 0
    assert int(count) + updates <= MAX
    assert int(count) + 2 * updates > min(MAX, exact)


def test_adam_goes_on_at_the_last_count():
    params, optimizer = make_params(), adam(1e-2)
    last = num_updates(jnp.int32(MAX), 1, 4) + 3
    state = set_count(optimizer.init(params), last)
    updates, state = optimizer.update(make_grads(0), state)
    assert 0 < int(state.count) <= MAX
    # By then no bias is left to correct.
    expected = jax.tree.map(lambda m, v: -1e-2 * m / (np.sqrt(v) + 1e-8), state.mu, state.nu)
    assert_close(updates, expected)


def test_set_count_leaves_a_parameter_of_that_name_alone():
    params = {"count": jnp.ones(3), "w": jnp.ones(2)}
    for optimizer in (adam(1e-2), optax.adam(1e-2)):
        state = set_count(optimizer.init(params), jnp.int32(7))
        moments = state if isinstance(state, AdamState) else state[0]
        assert moments.count == 7
        assert moments.mu["count"].shape == (3,)
        assert moments.mu["count"].dtype == jnp.float32


def test_adam_keeps_bfloat16():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    optimizer = adam(jnp.float32(1e-2))
    updates, state = optimizer.update({"w": jnp.ones(3, jnp.bfloat16)}, optimizer.init(params), params)
    assert updates["w"].dtype == state.mu["w"].dtype == state.nu["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(updates["w"].astype(jnp.float32), -1e-2, rtol=1e-2)
