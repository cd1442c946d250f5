"""Adam against optax and the algorithm in NumPy; optax's optimizers with counters from outside; target networks."""

import re
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.optimizers import (
    AdamState,
    adam,
    apply_gradients,
    clip_by_global_norm,
    num_updates,
    optimizer_step,
    polyak_update,
    set_step,
    update_target,
)

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


def run(optimizer):
    """`NUM_STEPS` updates with the optimizer's own count."""
    params = make_params()
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, updates

    history = []
    for i in range(NUM_STEPS):
        params, state, updates = step(params, state, make_grads(i))
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


# --- counters that come from outside


def scheduled(learning_rate):
    decay = optax.linear_schedule(1.0, 0.0, 5)
    return optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(decay), optax.scale_by_learning_rate(learning_rate))


def injected_schedule(learning_rate):
    return optax.inject_hyperparams(optax.adam)(learning_rate=learning_rate, b1=optax.linear_schedule(0.9, 0.5, 5))


def by_parts(learning_rate):
    parts = {"w": optax.adam(learning_rate), "b": optax.sgd(learning_rate, momentum=0.9)}
    return optax.partition(parts, {"w": "w", "b": "b"})


DRIVEN = {
    "jaxrl's adam": adam,
    "adam": optax.adam,
    "adamw": optax.adamw,
    "adamw, scheduled decay": lambda rate: optax.adamw(rate, weight_decay=optax.linear_schedule(0.1, 0.0, 5)),
    "nadam": optax.nadam,
    "adamax": optax.adamax,
    "amsgrad": optax.amsgrad,
    "adabelief": optax.adabelief,
    "adan": optax.adan,
    "radam": optax.radam,
    "yogi": optax.yogi,
    "lamb": optax.lamb,
    "novograd": optax.novograd,
    "lion": optax.lion,
    "adafactor": optax.adafactor,
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
    "rmsprop, centred, momentum": lambda rate: optax.rmsprop(rate, centered=True, momentum=0.9),
    "rmsprop, bias correction": lambda rate: optax.rmsprop(rate, bias_correction=True),
    "rmsprop, centred, bias correction": lambda rate: optax.rmsprop(rate, centered=True, bias_correction=True),
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "moving average": lambda rate: optax.chain(optax.ema(0.9), optax.scale_by_learning_rate(rate)),
    "muon": optax.contrib.muon,
    "clipping": lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
    "schedule": scheduled,
    "named chain": lambda rate: optax.named_chain(("clip", optax.clip(1.0)), ("adam", optax.adam(rate))),
    "masked": lambda rate: optax.chain(optax.masked(optax.adam(rate), {"w": True, "b": False})),
    "partition": by_parts,
    "injected": optax.inject_hyperparams(optax.adam),
    "injected schedule": injected_schedule,
    "MultiSteps": lambda rate: optax.MultiSteps(optax.adam(rate), 3),
    "MultiSteps of a schedule": lambda rate: optax.MultiSteps(scheduled(rate), 2).gradient_transformation(),
    "MultiSteps, injected": lambda rate: optax.MultiSteps(optax.inject_hyperparams(optax.adam)(rate), 2),
}
RATES = jnp.float32([1e-2, 3e-2])


def separate(tree, index):
    return jax.tree.map(lambda x: x[index], tree)


def spoil(state):
    """Change all integers of a state: nothing may read them."""
    return jax.tree.map(lambda x: x + 1_000 if jnp.issubdtype(x.dtype, jnp.integer) else x, state)


@pytest.mark.parametrize("name", DRIVEN)
def test_driven_by_the_number_of_the_step_it_is_the_optimizer_itself(name):
    """Under `jit` and `vmap`, with every counter in the state wrong before each step, against the plain optimizer's own."""
    make = DRIVEN[name]

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None, 0, 0))
    def driven(learning_rate, step, grads, state, params):
        return apply_gradients(make(learning_rate), step, grads, spoil(state), params)

    @jax.jit
    def plain(learning_rate, grads, state, params):
        updates, state = make(learning_rate).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def init(learning_rate, params):
        return make(learning_rate).init(params), params

    state, params = jax.vmap(init)(RATES, jax.tree.map(lambda x: np.stack([x, 2 * x]), make_params()))
    own = [init(rate, separate(params, i)) for i, rate in enumerate(RATES)]
    for step in range(7):
        params, state = driven(RATES, jnp.int32(step), make_grads(step), state, params)
        for i, (own_state, own_params) in enumerate(own):
            with jax.numpy_dtype_promotion("standard"):
                own_params, own_state = plain(RATES[i], make_grads(step), own_state, own_params)
            own[i] = own_state, own_params
            assert_close(separate(params, i), own_params)
            assert jax.tree.structure(separate(state, i)) == jax.tree.structure(own_state)
            assert_close(jax.tree.leaves(separate(state, i)), jax.tree.leaves(own_state), atol=1e-5)
    assert not np.allclose(own_params["w"], 2 * make_params()["w"], atol=1e-4)


def test_the_step_may_be_a_python_int():
    params, grads = make_params(), make_grads(0)
    for optimizer in (adam(0.1), optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()):
        state = optimizer.init(params)
        plain, array = (apply_gradients(optimizer, step, grads, state, params) for step in (3, jnp.int32(3)))
        jax.tree.map(np.testing.assert_array_equal, plain, array)
        assert jax.tree.map(jnp.result_type, plain) == jax.tree.map(jnp.result_type, array)


def test_a_step_leaves_dtypes_as_they_were():
    """As the carry of a scan must be, for all that run in one."""
    params, grads = make_params(), make_grads(0)
    for name, make in DRIVEN.items():
        optimizer = make(jnp.float32(1e-2))
        state = jax.eval_shape(optimizer.init, params)
        _, after = jax.eval_shape(lambda s, o=optimizer: apply_gradients(o, jnp.int32(3), grads, s, params), state)
        before, after = ([(x.shape, x.dtype) for x in jax.tree.leaves(tree)] for tree in (state, after))
        assert before == after, name


def test_the_count_stays_unbatched_where_the_learning_rate_is_batched():
    params, grads = make_params(), make_grads(0)

    def update(learning_rate, moments, step):
        return apply_gradients(adam(learning_rate), step, grads, AdamState(jnp.int32(0), *moments), params)

    moments = jax.tree.map(lambda x: jnp.stack([x, x]), adam(0.0).init(params)[1:])
    # `None` among the output axes is refused for whatever is batched.
    axes = (0, AdamState(None, 0, 0))
    updated, state = jax.vmap(update, (0, 0, None), axes)(jnp.float32([1e-2, 3e-2]), moments, jnp.int32(4))
    assert state.count == 5
    for i, learning_rate in enumerate((1e-2, 3e-2)):
        expected, _ = update(jnp.float32(learning_rate), jax.tree.map(lambda x, i=i: x[i], moments), jnp.int32(4))
        assert_close(jax.tree.map(lambda x, i=i: x[i], updated), expected)


def test_an_injected_learning_rate_is_that_of_the_step():
    """optax keeps the first one in the state."""
    params, make = make_params(), optax.inject_hyperparams(optax.sgd)
    state = make(1.0).init(params)
    updated, state = apply_gradients(make(0.25), jnp.int32(1), make_grads(0), state, params)
    assert_close(updated, jax.tree.map(lambda p, g: p - 0.25 * g, params, make_grads(0)))
    assert float(state.hyperparams["learning_rate"]) == 0.25


class Unknown(NamedTuple):
    value: jax.Array


def unknown(dtype):
    return optax.GradientTransformation(lambda params: Unknown(jnp.zeros(2, dtype)), lambda g, s, params=None: (g, s))


def some_steps(gradient_step):
    return jnp.where(gradient_step < 2, 1, 4)


REFUSED = {
    "ApplyEvery": lambda: optax.apply_every(3),
    "AddNoiseState": lambda: optax.add_noise(0.1, 0.5, 0),
    "ApplyIfFiniteState": lambda: optax.apply_if_finite(optax.adam(1e-2), 3),
    "ConditionallyTransformState": lambda: optax.conditionally_transform(optax.adam(1e-2), lambda step: step > 2),
    "ReduceLROnPlateauState": lambda: optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau()),
    "MultiStepsState": lambda: optax.chain(optax.MultiSteps(optax.adam(1e-2), 3).gradient_transformation()),
    "Unknown": lambda: unknown(jnp.int32),
    "int as every_k_schedule": lambda: optax.MultiSteps(optax.adam(1e-2), some_steps),
    "no should_skip_update_fn": lambda: optax.MultiSteps(optax.adam(1e-2), 3, should_skip_update_fn=optax.skip_not_finite),
}


@pytest.mark.parametrize("named", REFUSED)
def test_a_counter_that_nobody_knows_is_refused_by_the_name_of_its_type(named):
    optimizer, params = REFUSED[named](), make_params()
    with pytest.raises(ValueError, match=rf"\b{re.escape(named)}\b"):
        apply_gradients(optimizer, jnp.int32(0), make_grads(0), optimizer.init(params), params)


def test_an_unknown_state_without_integers_is_taken_as_it_is():
    params = make_params()
    for dtype in (jnp.float32, jnp.bool_):
        optimizer = optax.chain(unknown(dtype), optax.sgd(0.5))
        updated, _ = apply_gradients(optimizer, jnp.int32(3), make_grads(0), optimizer.init(params), params)
        assert_close(updated, jax.tree.map(lambda p, g: p - 0.5 * g, params, make_grads(0)))


def test_a_parameter_that_is_called_count_is_left_alone():
    params = {"count": jnp.ones(3), "w": jnp.ones(2)}
    for optimizer in (adam(1e-2), optax.adam(1e-2)):
        state = set_step(optimizer, optimizer.init(params), jnp.int32(7), params)
        moments = state if isinstance(state, AdamState) else state[0]
        assert moments.count == 7
        assert moments.mu["count"].shape == (3,)
        assert moments.mu["count"].dtype == jnp.float32


# --- a step with clipping


def norm_of(grads):
    return np.sqrt(sum(np.sum(np.square(x.astype(np.float64))) for x in grads.values()))


@pytest.mark.parametrize("share", [0.1, 0.999, 1.001, np.inf])
def test_gradients_are_clipped_by_the_norm_of_all(share):
    grads, params = make_grads(0), make_params()
    norm = norm_of(grads)
    step = jax.jit(
        lambda limit: optimizer_step(
            optax.sgd, 0.5, jnp.int32(0), grads, optax.sgd(0.5).init(params), params, max_grad_norm=limit
        )
    )
    updated, _, reported = step(jnp.float32(share * norm))
    np.testing.assert_allclose(reported, norm, rtol=1e-5)
    assert reported.dtype == jnp.float32
    assert_close(updated, jax.tree.map(lambda p, g: p - 0.5 * min(1.0, share) * g, params, grads), rtol=1e-4, atol=1e-4)


def test_without_clipping_no_norm_is_computed():
    params, optimizer = make_params(), lambda rate: optax.sgd(rate)

    def step(limit):
        return optimizer_step(
            optimizer, 0.5, jnp.int32(0), make_grads(0), optimizer(0.5).init(params), params, max_grad_norm=limit
        )

    assert step(None)[2] is None
    assert "sqrt" not in str(jax.make_jaxpr(lambda: step(None))())
    assert "sqrt" in str(jax.make_jaxpr(lambda: step(np.inf))())  # it would be seen
    assert_close(step(None)[0], step(np.inf)[0], rtol=0, atol=0)


def test_zero_gradients_stay_zero_at_any_limit():
    zeros = jax.tree.map(np.zeros_like, make_params())
    for limit in (0.0, 1.0, np.inf):
        clipped, norm = clip_by_global_norm(zeros, limit)
        assert norm == 0
        assert_close(clipped, zeros, atol=0)


@pytest.mark.parametrize(("size", "limit"), [(1.0, 2.3), (1e18, 3e38), (1e-13, 3e-13), (1e18, np.inf), (1e20, np.inf)])
def test_gradients_below_the_limit_are_left_as_they_are(size, limit):
    grads = {"w": jnp.float32([1.0, -2.0, 0.3]) * size}  # of 1e20, the square overflows
    np.testing.assert_array_equal(clip_by_global_norm(grads, limit)[0]["w"], grads["w"])


def test_the_norm_of_bfloat16_gradients_is_summed_in_float32():
    grads = {"w": jnp.full(10_000, 0.01, jnp.bfloat16)}
    clipped, norm = clip_by_global_norm(grads, jnp.float32(0.5))
    np.testing.assert_allclose(norm, float(grads["w"][0]) * 100, rtol=1e-4)
    assert clipped["w"].dtype == jnp.bfloat16


# --- num_updates


@settings(deadline=None, max_examples=100)
@given(
    st.integers(0, MAX),
    st.integers(0, 10**6),
    st.one_of(st.integers(1, 1000), st.sampled_from([2**15, 2**30, MAX])),
    st.sampled_from([1, 2, 7, 1000]),
)
def test_num_updates_counts_and_then_stays_with_its_remainder(iterations, warmup, updates, period):
    iteration = min(warmup + iterations, MAX)
    exact = (iteration - warmup) * updates
    if period * updates > MAX:
        with pytest.raises(ValueError, match=f"period of {period} updates with {updates} in an iteration is too long"):
            num_updates(jnp.int32(iteration), warmup, updates, period)
        return
    count = num_updates(jnp.int32(iteration), warmup, updates, period)
    assert count.dtype == jnp.int32
    if exact + updates <= MAX - period * updates:
        assert int(count) == exact
    assert int(count) % updates == 0
    assert (int(count) - exact) % period == 0
    # The updates of one more iteration still fit: that is what the limit is for.
    assert 0 <= int(count) <= exact
    assert int(count) + updates <= MAX
    assert int(count) + (period + 1) * updates > min(MAX, exact)


def test_adam_goes_on_at_the_last_count():
    params, optimizer = make_params(), adam(1e-2)
    last = num_updates(jnp.int32(MAX), 1, 4) + 3
    state = set_step(optimizer, optimizer.init(params), last, params)
    updates, state = optimizer.update(make_grads(0), state)
    assert 0 < int(state.count) <= MAX
    # By then no bias is left to correct.
    expected = jax.tree.map(lambda m, v: -1e-2 * m / (np.sqrt(v) + 1e-8), state.mu, state.nu)
    assert_close(updates, expected)


def test_adam_does_not_count_beyond_int32():
    """A count that the optimizer keeps itself, as that of PPO, stays where no bias is left to correct."""
    params, optimizer = make_params(), adam(1e-2)
    state = optimizer.init(params)._replace(count=jnp.int32(MAX))
    params, state = apply_gradients(optimizer, None, make_grads(0), state, params)
    assert int(state.count) == MAX
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(params))


def test_adam_keeps_bfloat16():
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    optimizer = adam(jnp.float32(1e-2))
    updates, state = optimizer.update({"w": jnp.ones(3, jnp.bfloat16)}, optimizer.init(params), params)
    assert updates["w"].dtype == state.mu["w"].dtype == state.nu["w"].dtype == jnp.bfloat16
    np.testing.assert_allclose(updates["w"].astype(jnp.float32), -1e-2, rtol=1e-2)


# --- target networks


def two_networks(dtype=np.float32):
    rng = np.random.default_rng(0)
    return ({"w": jnp.asarray(rng.normal(size=(3, 4)), dtype), "b": [jnp.asarray(rng.normal(size=2), dtype)]} for _ in range(2))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_polyak_averaging_is_exact_at_both_ends(dtype):
    params, target = two_networks(dtype)
    mix = jax.jit(polyak_update)
    for x, y, z in zip(
        *map(jax.tree.leaves, (mix(params, target, 0.0), mix(params, target, jnp.float32(1.0)), target)), strict=True
    ):
        np.testing.assert_array_equal(x, z)
        assert x.dtype == y.dtype == dtype
    jax.tree.map(np.testing.assert_array_equal, mix(params, target, 1.0), params)
    between = jax.tree.map(lambda x, y: 0.25 * x.astype(jnp.float32) + 0.75 * y.astype(jnp.float32), params, target)
    actual = jax.tree.map(lambda x: x.astype(jnp.float32), mix(params, target, np.float32(0.25)))
    assert_close(actual, between, rtol=1e-2 if dtype == jnp.bfloat16 else 1e-6)


def test_tau_may_be_batched():
    params, target = two_networks()
    batched = jax.vmap(polyak_update, (None, None, 0))(params, target, jnp.float32([0.0, 0.1, 1.0]))
    for i, tau in enumerate((0.0, 0.1, 1.0)):
        assert_close(jax.tree.map(lambda x, i=i: x[i], batched), polyak_update(params, target, tau))


@pytest.mark.parametrize(("updates", "period"), [(1, 1), (1, 4), (3, 1), (3, 2), (4, 6), (2, 7), (6, 3)])
def test_the_target_is_updated_after_every_period_th_step(updates, period):
    """Over iterations whose updates the period need not divide, also where their number no longer fits into int32."""
    warmup = 3

    @jax.jit
    def iterate(iteration):
        def step(target, u):
            number = num_updates(iteration, warmup, updates, period) + u
            target = update_target(1.0 + u.astype(jnp.float32), target, 1.0, number, period)
            return target, target

        return jax.lax.scan(step, jnp.float32(0.0), jnp.arange(updates, dtype=jnp.int32))[1]

    for first in (0, 5, 2**29, MAX - 20):
        done = 0
        for iteration in range(warmup + first, warmup + first + 14):
            target = 0.0
            for u, got in enumerate(iterate(jnp.int32(iteration))):
                number = (iteration - warmup) * updates + u + 1  # of this step, counted from 1; Python does not overflow
                target = u + 1.0 if number % period == 0 else target
                assert float(got) == target, (iteration, u)
                done += number % period == 0
        assert done == pytest.approx(14 * updates / period, abs=1)


def test_a_periodic_update_is_a_select_and_leaves_the_step_unbatched():
    params, target = two_networks()
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), (params, target))
    update = jax.vmap(partial(update_target, period=3), (0, 0, 0, None))
    jaxpr = str(jax.make_jaxpr(update)(*stacked, jnp.float32([0.1, 1.0]), jnp.int32(5)))
    assert "cond" not in jaxpr
    assert "select_n" in jaxpr
    assert "i32[2" not in jaxpr
    unmoved = update(*stacked, jnp.float32([0.1, 1.0]), jnp.int32(4))
    jax.tree.map(np.testing.assert_array_equal, unmoved, stacked[1])
    moved = update(*stacked, jnp.float32([0.1, 1.0]), jnp.int32(5))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1], y), moved, params)
