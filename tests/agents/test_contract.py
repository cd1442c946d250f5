"""One suite for every agent."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from tests.problems import LEARNERS, plain


@pytest.fixture(params=LEARNERS, scope="module")
def learner(request):
    return LEARNERS[request.param]()


NUM_ITERATIONS = 2


@pytest.fixture(scope="module")
def train(learner):
    return jax.jit(lambda key, hparams: jaxrl.train(key, learner, NUM_ITERATIONS, hparams))


@pytest.fixture(scope="module")
def hparams(learner):
    return jax.tree.map(jnp.float32, learner.agent.hparams)


def varied(hparams):
    """Three settings that differ in every field, leaves `[3]`."""
    return jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 100.0) * jnp.array([1.0, 0.5, 0.9]), hparams)


def test_a_run_is_finite_learns_and_reports_flat_metrics(learner, train, hparams):
    state, metrics = train(jax.random.key(0), hparams)
    assert {"episode_return", "episode_length", "episodes", "loss"} <= set(metrics)
    for name, values in metrics.items():
        assert values.shape == (NUM_ITERATIONS,), name
        if not name.startswith("episode_"):
            assert np.isfinite(values).all(), name
    start = learner.init(jax.random.key(0), hparams)
    changes = jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), state.agent.params, start.agent.params)
    assert all(np.isfinite(change) for change in jax.tree.leaves(changes))
    assert max(jax.tree.leaves(changes)) > 0


def test_a_step_keeps_shapes_dtypes_and_strong_types(learner, hparams):
    state = jax.eval_shape(learner.init, jax.random.key(0), hparams)
    noise = jax.eval_shape(learner.noise, jax.random.key(1))
    after, _ = jax.eval_shape(learner.step, state, noise, hparams, jnp.int32(learner.agent.warmup))
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        assert not new.weak_type


def test_the_second_call_does_not_compile(train, hparams):
    train(jax.random.key(0), hparams)
    train(jax.random.key(1), jax.tree.map(lambda x: x * 0.5, hparams))
    assert train._cache_size() == 1


def test_runs_in_a_batch_differ_and_each_equals_itself_alone(learner, train, hparams):
    """Over seeds and over every hyperparameter at once."""
    keys, settings = jax.random.split(jax.random.key(3), 3), varied(hparams)
    batch = jax.jit(jax.vmap(lambda key, h: jaxrl.train(key, learner, NUM_ITERATIONS, h)[0]))(keys, settings)
    leaves = jax.tree.leaves(batch.agent.params)
    assert all(not np.allclose(x[0], x[1]) for x in leaves if x.ndim > 2), "the seeds are copies of each other"
    alone = train(keys[1], jax.tree.map(lambda x: x[1], settings))[0]
    one = jax.tree.map(lambda x: x[1], batch)
    chex.assert_trees_all_close(plain(one.agent.params), plain(alone.agent.params), rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(plain(one.env), plain(alone.env), rtol=1e-4, atol=1e-5)


def test_a_map_over_seeds_equals_each_alone_to_the_bit(learner, train, hparams):
    keys = jax.random.split(jax.random.key(3), 2)
    mapped = jax.jit(lambda keys: jax.lax.map(lambda key: jaxrl.train(key, learner, NUM_ITERATIONS, hparams)[0], keys))(keys)
    alone = train(keys[1], hparams)[0]
    chex.assert_trees_all_equal(plain(jax.tree.map(lambda x: x[1], mapped)), plain(alone))


def test_every_hyperparameter_can_be_batched_alone(learner, hparams):
    state = jax.eval_shape(learner.init, jax.random.key(0), hparams)
    noise = jax.eval_shape(learner.noise, jax.random.key(1))
    for name in hparams._fields:
        batched = hparams._replace(**{name: getattr(varied(hparams), name)})
        axes = type(hparams)(*(0 if field == name else None for field in hparams._fields))
        step = jax.vmap(learner.step, in_axes=(None, None, axes, None))
        jax.eval_shape(step, state, noise, batched, jnp.int32(learner.agent.warmup))


def test_a_nested_vmap_over_seeds_and_hyperparameters(learner, hparams):
    keys = jax.random.split(jax.random.key(0), 2)
    train = jax.vmap(lambda h: jax.vmap(lambda k: jaxrl.train(k, learner, 1, h)[1]["loss"])(keys))
    assert jax.eval_shape(train, varied(hparams)).shape == (3, 2, 1)


def test_no_key_is_used_twice(learner, hparams):
    state = learner.init(jax.random.key(1), hparams)
    with jax.debug_key_reuse(True):
        jax.jit(lambda key, hparams: jaxrl.train(key, learner, NUM_ITERATIONS, hparams))(jax.random.key(0), hparams)
        jax.jit(lambda key: jaxrl.evaluate(key, learner, state, num_episodes=3))(jax.random.key(2))


def test_evaluation_is_reproducible(learner, hparams):
    state = learner.init(jax.random.key(0), hparams)
    play = jax.jit(lambda key: jaxrl.evaluate(key, learner, state, num_episodes=3))
    first, again, other = play(jax.random.key(5)), play(jax.random.key(5)), play(jax.random.key(6))
    assert first.shape == (3,)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_agent_refuses_the_hyperparameters_of_another(learner):
    class Others(tuple):
        pass

    with pytest.raises(TypeError, match="hparams must be a jaxrl"):
        jaxrl.train(jax.random.key(0), learner, 1, Others())


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_hyperparameters_out_of_range_are_refused(learner, value):
    for name in learner.agent.hparams._fields:
        with pytest.raises(ValueError, match=rf"hparams\.{name} must lie in"):
            jaxrl.train(jax.random.key(0), learner, 1, learner.agent.hparams._replace(**{name: value}))


def test_the_program_has_no_branch_and_no_callback(train, hparams):
    text = train.lower(jax.random.key(0), hparams).compile().as_text()
    assert "while(" in text
    assert " conditional(" not in text
    # Not anywhere in the text: the name of this test is in it, where it was the first to trace something.
    assert not [target for target in re.findall(r'custom_call_target="([^"]+)"', text) if "callback" in target]


@pytest.mark.parametrize(
    ("name", "batched"),
    [("dqn", False), ("dqn", True), ("reinforce, continuing", True), ("reinforce, episodic", False)],
)
def test_a_run_has_the_same_bits_however_it_is_cut(name, batched):
    learner = LEARNERS[name]()
    transform = jax.vmap if batched else (lambda f: f)
    key = jax.random.split(jax.random.key(0), 2) if batched else jax.random.key(0)
    whole = jax.jit(transform(lambda key: jaxrl.train(key, learner, 8)[0]))(key)
    state = jax.jit(transform(lambda key: learner.init(key, jax.tree.map(jnp.float32, learner.agent.hparams))))(key)
    iteration = learner.agent.warmup
    for num in (1, 7):
        advance = lambda state, iteration, num=num: transform(lambda s: jaxrl.advance(s, iteration, learner, num)[0])(state)
        state = jax.jit(advance)(state, iteration)
        iteration += num
    chex.assert_trees_all_equal(plain(whole), plain(state))
