"""The driver: rows of metrics, schedules, memory, and what it refuses."""

import copy
import pickle
import re
import sys

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.learner import default_log_every
from tests.problems import LEARNERS, countdown, dqn_learner, plain


@pytest.fixture(scope="module")
def learner():
    return dqn_learner(countdown(6), warmup=2)


def test_a_row_without_a_finished_episode_is_nan_and_never_zero(learner):
    _, metrics = jax.jit(lambda key: jaxrl.train(key, learner, 8, log_every=2))(jax.random.key(0))
    # Warm-up is 2 steps of 6: episodes end in the iterations 6 and 12, that is in rows 2 and (beyond the end) 5.
    np.testing.assert_array_equal(metrics["episodes"], [0, 4, 0, 0])
    np.testing.assert_array_equal(metrics["episode_return"], [np.nan, 6, np.nan, np.nan])
    np.testing.assert_array_equal(metrics["episode_length"], [np.nan, 6, np.nan, np.nan])


def test_losses_are_means_over_the_row(learner):
    run = lambda every: jax.jit(lambda key: jaxrl.train(key, learner, 8, log_every=every)[1]["loss"])(jax.random.key(0))
    np.testing.assert_allclose(run(4), np.asarray(run(1)).reshape(2, 4).mean(axis=1), rtol=1e-5)


def test_metrics_do_not_grow_with_environment_steps():
    """The same rows over ten times the iterations take the same memory, the program's own temporaries included."""
    learner = dqn_learner(countdown(), warmup=1)

    def compiled(num):
        return jax.jit(lambda key: jaxrl.train(key, learner, num, log_every=num // 4)).lower(jax.random.key(0)).compile()

    short, long = (compiled(num).memory_analysis() for num in (256, 2560))
    assert long.output_size_in_bytes == short.output_size_in_bytes
    # One more loop costs some hundred bytes, or 4 KiB on a GPU; one float32 an iteration would be 9 KiB.
    assert long.temp_size_in_bytes <= short.temp_size_in_bytes + 8 * 1024


def test_a_batched_state_leaves_the_iteration_unbatched(learner):
    """Continued from a saved, batched state, the replay is still written in place: no scatter, no branch."""
    states = jax.vmap(lambda key: learner.init(key, learner.agent.hparams))(jax.random.split(jax.random.key(0), 2))
    go_on = jax.jit(jax.vmap(lambda s: jaxrl.advance(s, 2, learner, 4)[0]))
    lowered = go_on.lower(states)
    assert "scatter" not in lowered.as_text()
    assert " conditional(" not in lowered.compile().as_text()


def replay_copies(text, capacity, width):
    """The instructions that copy a replay, of one seed or several."""
    return [line for line in text.splitlines() if re.search(rf" = u32\[(\d+,)*{capacity},{width}\]\S* copy\(", line)]


def test_the_replay_is_not_copied_inside_the_loop():
    learner = dqn_learner(countdown(), capacity=4096)
    states = jax.vmap(lambda key: learner.init(key, learner.agent.hparams))(jax.random.split(jax.random.key(0), 2))
    go_on = jax.jit(jax.vmap(lambda s: jaxrl.advance(s, 5, learner, 64)[0]), donate_argnums=0)
    text = go_on.lower(states).compile().as_text()
    entry, width = text[text.index("ENTRY") :], states.agent.replay.rows.shape[-1]
    assert re.search(rf" = u32\[(\d+,)*4096,{width}\]\S* dynamic-update-slice\(", text)  # a copy would be seen
    assert [line for line in replay_copies(text, 4096, width) if line not in entry] == []


@pytest.mark.parametrize("layout", ["one", "vmap", "vectorize"])
def test_a_whole_run_never_copies_its_replay_and_does_not_branch(layout):
    """Also where the seeds of a device go one after the other, and the state is returned."""
    learner = dqn_learner(countdown(), capacity=4096)
    keys = jax.random.split(jax.random.key(0), 2 * jax.device_count())
    train = lambda key: jaxrl.train(key, learner, 64)
    runs = {"one": (train, keys[0]), "vmap": (jax.vmap(train), keys), "vectorize": (jaxrl.vectorize(train), keys)}
    run, key = runs[layout]
    lowered = jax.jit(run).lower(key)
    text = lowered.compile().as_text()
    width = jax.eval_shape(train, keys[0])[0].agent.replay.rows.shape[-1]
    assert re.search(rf" = u32\[(\d+,)*4096,{width}\]\S* dynamic-update-slice\(", text)  # it would be seen
    assert replay_copies(text, 4096, width) == []
    assert " conditional(" not in text
    assert "callback" not in lowered.as_text()


def test_a_transition_of_breakout_is_two_observations_in_bits_and_two_words():
    """By the program's own memory: action, reward, and 2 × 10 × 10 × 4 planes with both flags as 802 bits in 26 words."""
    env = jaxrl.make("Breakout-MinAtar")
    network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=(4,), channels=(2,))

    def memory(capacity):
        agent = jaxrl.agents.dqn(network, env.action_space, capacity=capacity, batch_size=4, warmup=4)
        learner = jaxrl.make_learner(env, agent, num_envs=1, rollout_length=1)
        run = jax.jit(lambda key: jaxrl.train(key, learner, 4)[0].agent.params)
        found = run.lower(jax.random.key(0)).compile().memory_analysis()
        return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes

    assert (memory(30_000) - memory(10_000)) / 20_000 == pytest.approx(4 * (26 + 2), abs=0.1)


def test_random_numbers_of_an_iteration_come_from_its_number_alone(learner):
    """A step fed with the noise of iteration i is the step that `advance` takes at iteration i."""
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams)
    state = learner.init(jax.random.key(0), hparams)
    iteration = jnp.int32(learner.agent.warmup)
    by_hand, _ = jax.jit(learner.step)(state, learner.noise(jax.random.fold_in(state.key, iteration)), hparams, iteration)
    driven, _ = jaxrl.advance(state, iteration, learner, 1)
    close = lambda one, other: jax.tree.map(lambda x, y: np.allclose(x, y, rtol=1e-6, atol=1e-7), plain(one), plain(other))
    assert all(jax.tree.leaves(close(by_hand, driven)))  # environments, observations, replay and parameters
    of_another, _ = jax.jit(learner.step)(state, learner.noise(jax.random.fold_in(state.key, iteration + 1)), hparams, iteration)
    assert not all(jax.tree.leaves(close(of_another.agent.params, driven.agent.params)))  # Adam's first step is a sign


@pytest.mark.parametrize(("num", "rows"), [(100, 100), (12_300, 100), (7, 7), (101, 101), (96, 96), (1_000_000, 100)])
def test_the_default_number_of_rows_is_about_100(num, rows):
    assert num // default_log_every(num) == rows
    assert num % default_log_every(num) == 0


def test_rows_that_do_not_divide_are_refused_with_both_numbers(learner):
    with pytest.raises(ValueError, match=r"num_iterations 10 must be a multiple of log_every 4.*the nearest are 8 and 12"):
        jaxrl.train(jax.random.key(0), learner, 10, log_every=4)


def test_several_keys_are_refused(learner):
    with pytest.raises(ValueError, match=r"key must be a single PRNG key, got an array of keys \[2\]: use jax.vmap or"):
        jaxrl.train(jax.random.split(jax.random.key(0), 2), learner, 1)


@pytest.mark.parametrize("key", [0, np.zeros(2, np.uint32)])
def test_a_key_that_is_none_is_refused(learner, key):
    with pytest.raises(TypeError, match=r"typed PRNG key, such as jax.random.key\(0\)"):
        jaxrl.train(key, learner, 1)


@pytest.mark.parametrize(("num", "error"), [(0, ValueError), (2.0, TypeError), ("3", TypeError), (True, TypeError)])
def test_a_number_of_iterations_that_is_none_is_refused(learner, num, error):
    with pytest.raises(error, match="num_iterations must be"):
        jaxrl.train(jax.random.key(0), learner, num)


def test_what_is_no_environment_or_agent_is_refused(learner):
    with pytest.raises(TypeError, match=r"env must be an Environment, such as jaxrl.make\('CartPole-v1'\); got 'CartPole-v1'"):
        jaxrl.make_learner("CartPole-v1", learner.agent, num_envs=2, rollout_length=1)
    with pytest.raises(TypeError, match="agent must be an Agent"):
        jaxrl.make_learner(learner.env, jaxrl.agents.dqn, num_envs=2, rollout_length=1)


def test_sizes_of_a_learner_are_checked(learner):
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        jaxrl.make_learner(learner.env, learner.agent, num_envs=0, rollout_length=1)


def test_hyperparameters_may_be_swept_together_with_seeds():
    learner = LEARNERS["dqn"]()
    rates = jnp.array([0.0, 1e-2])
    train = jax.vmap(lambda rate: jaxrl.train(jax.random.key(0), learner, 2, learner.agent.hparams._replace(learning_rate=rate)))
    params = jax.jit(train)(rates)[0].agent.params
    start = learner.init(jax.random.key(0), learner.agent.hparams).agent.params
    still = lambda i: jax.tree.leaves(jax.tree.map(lambda x, y: np.allclose(x[i], y, atol=1e-7), params, start))
    assert still(0) == [True] * 4  # weights and biases of two layers
    assert still(1) == [False] * 4


def test_more_iterations_than_the_iteration_numbers_are_refused():
    learner = dqn_learner(countdown())
    for call in (
        lambda: jaxrl.train(jax.random.key(0), learner, 2**31 - learner.agent.warmup),
        lambda: jaxrl.advance(learner.init(jax.random.key(0), learner.agent.hparams), 5, learner, 10**30),
    ):
        with pytest.raises(ValueError, match=r"num_iterations \d+ is too many: .* 2\^31 - 1"):
            call()
    with pytest.raises(ValueError, match="is too many"):
        jaxrl.preset("dqn", "CartPole-v1", env_steps=10**30)


def test_an_agent_of_another_action_space_is_refused():
    env = jaxrl.make("CartPole-v1")
    network = jaxrl.networks.q_network(env.observation_space, env.action_space)
    agent = jaxrl.agents.dqn(network, env.action_space)
    point_mass = jaxrl.make("PointMass")
    with pytest.raises(ValueError, match=r"agent.explore: the actions are int32\[\] .* PointMass takes Box.* env.action_space"):
        jaxrl.make_learner(point_mass, agent, num_envs=4, rollout_length=1)
    learner = dqn_learner(countdown())
    state = jax.eval_shape(learner.init, jax.random.key(0), learner.agent.hparams)
    with pytest.raises(TypeError, match="key must be a typed PRNG key"):
        jaxrl.evaluate(jnp.zeros(2, jnp.uint32), learner, state, num_episodes=1)


def test_an_iteration_within_the_warm_up_is_refused(learner):
    """`learner.init` has done the warm-up: to begin before it would sample a replay that is not filled as it seems."""
    state = learner.init(jax.random.key(0), learner.agent.hparams)
    warmup = learner.agent.warmup
    for iteration in (0, jnp.int32(warmup - 1)):
        with pytest.raises(ValueError, match=rf"is within the warm-up of {warmup} iterations.* agent\.warmup = {warmup}"):
            jaxrl.advance(state, iteration, learner, 1)
    jax.eval_shape(lambda state: jaxrl.advance(state, warmup, learner, 1), state)
    jax.eval_shape(lambda state, iteration: jaxrl.advance(state, iteration, learner, 1), state, jnp.int32(0))  # traced: unknown


def pickled(x):
    return pickle.loads(pickle.dumps(x))


def two_iterations(learner):
    return plain(jax.jit(lambda key: jaxrl.train(key, learner, 2)[0])(jax.random.key(0)))


@pytest.fixture(scope="module")
def trained(learner):
    return two_iterations(learner)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled, lambda learner: cloudpickle.loads(cloudpickle.dumps(learner))])
def test_a_copy_of_a_learner_trains_as_the_original(learner, trained, copied):
    """Processes exchange learners by pickle, those of a cluster by cloudpickle. `test_contract` pickles every agent."""
    jax.tree.map(np.testing.assert_array_equal, two_iterations(copied(learner)), trained)


def test_without_cloudpickle_an_error_says_what_to_install(learner, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    for record in (learner, learner.agent, learner.env):
        with pytest.raises(pickle.PicklingError, match=f"{type(record).__name__} has functions .* pip install cloudpickle"):
            pickle.dumps(record)
        assert copy.copy(record) is record
        assert type(copy.deepcopy(record)) is type(record)
    env = jaxrl.make("PointMass")  # its functions are those of a module
    assert pickled(env)._replace(params=()) == env._replace(params=())
