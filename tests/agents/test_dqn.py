"""DQN against known action values, and its iterationwork against hand-made schedules."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.types import Box, Discrete
from tests.problems import countdown, dqn_learner, endless


def q_values(learner, hparams, obs, num_iterations=1500):
    state, _ = jax.jit(lambda key: jaxrl.train(key, learner, num_iterations, hparams))(jax.random.key(0))
    network = jaxrl.networks.q_network(learner.env.observation_space, learner.env.action_space, hidden=())
    return np.asarray(network.apply(state.agent.params, obs))


@pytest.mark.parametrize("static", [{}, {"double": True}, {"n_step": 3, "prioritized": True}])
def test_q_bootstraps_through_a_time_limit(static):
    """Never terminates, reward 2, limit 10, γ = 0.9: Q = 2 / (1 − 0.9) = 20; as if terminated it would be 13 at most."""
    learner = dqn_learner(endless(reward=2.0, limit=10), hidden=(), **static)
    hparams = learner.agent.hparams._replace(learning_rate=0.1, learning_rate_iterations=1500.0, discount=0.9, tau=0.1)
    np.testing.assert_allclose(q_values(learner, hparams, jnp.ones((1, 1))), 20.0, atol=0.2)


def test_munchausen_adds_the_log_policy_and_the_entropy():
    """Two equal actions: Q = 2 + α τ ln ½ + γ (Q + τ ln 2), so with α = 0.5, τ = 1 and γ = 0.9, Q = 20 + 4 ln 2 = 22.8."""
    learner = dqn_learner(endless(reward=2.0, limit=10), hidden=(), munchausen=True)
    hparams = learner.agent.hparams._replace(
        learning_rate=0.1,
        learning_rate_iterations=1500.0,
        discount=0.9,
        tau=0.1,
        munchausen_scale=0.5,
        munchausen_temperature=1.0,
    )
    np.testing.assert_allclose(q_values(learner, hparams, jnp.ones((1, 1))), 20.0 + 4.0 * np.log(2.0), atol=0.2)


@pytest.mark.parametrize("static", [{}, {"n_step": 3, "prioritized": True}])
def test_q_stops_at_a_termination(static):
    """Terminates after 3 steps, reward 1, γ = 1: Q = 3, 2, 1, whatever the next episode starts with."""
    env = countdown(3, reset_value=1.0)
    learner = dqn_learner(env, hidden=(), **static)
    hparams = learner.agent.hparams._replace(
        learning_rate=0.05, learning_rate_iterations=1500.0, discount=1.0, tau=0.1, epsilon_end=1.0
    )
    obs = jnp.stack([env.reset(jax.random.key(0), ())[1], *(jnp.append(jax.nn.one_hot(t, 4), 0.0) for t in (1, 2))])
    np.testing.assert_allclose(q_values(learner, hparams, obs), [[3, 3], [2, 2], [1, 1]], atol=0.05)


def steps(learner, hparams, num):
    """The agent states after each of the first `num` iterations."""
    state = learner.init(jax.random.key(0), hparams)
    step = jax.jit(learner.step)
    states = [state.agent]
    for iteration in range(learner.agent.warmup, learner.agent.warmup + num):
        noise = learner.noise(jax.random.fold_in(state.key, iteration))
        state, _ = step(state, noise, hparams, jnp.int32(iteration))
        states.append(state.agent)
    return states


def equal(a, b):
    return all(bool(jnp.all(x == y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_target_is_copied_every_period_of_gradient_steps():
    """Two updates an iteration, period 4: the copies fall on the end of every second iteration."""
    learner = dqn_learner(countdown(), updates_per_iteration=2, target_update_period=4)
    states = steps(learner, jax.tree.map(jnp.float32, learner.agent.hparams._replace(tau=1.0)), 6)
    copied = [equal(after.params, after.target_params) for after in states[1:]]
    assert copied == [False, True, False, True, False, True]
    kept = [equal(after.target_params, before.target_params) for before, after in itertools.pairwise(states)]
    assert kept == [True, False, True, False, True, False]


@pytest.mark.parametrize(("tau", "which"), [(0.0, "never"), (1.0, "always"), (0.5, "half")])
def test_polyak_moves_the_target_towards_the_online_network(tau, which):
    learner = dqn_learner(countdown())
    before, after = steps(learner, jax.tree.map(jnp.float32, learner.agent.hparams._replace(tau=tau)), 1)
    if which == "never":
        assert equal(after.target_params, before.target_params)
    elif which == "always":
        assert equal(after.target_params, after.params)
    else:
        middle = jax.tree.map(lambda new, old: 0.5 * new + 0.5 * old, after.params, before.target_params)
        for x, y in zip(jax.tree.leaves(middle), jax.tree.leaves(after.target_params), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6)


def test_the_iteration_may_be_far_beyond_10_billion_environment_steps():
    learner = dqn_learner(countdown(), updates_per_iteration=4, target_update_period=3)
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams)
    state = learner.init(jax.random.key(0), hparams)
    iteration = jnp.int32(2**31 - 3)
    after, metrics = jax.jit(learner.step)(state, learner.noise(jax.random.key(1)), hparams, iteration)
    assert np.isfinite(metrics["loss"]).all()
    assert not equal(after.agent.params, state.agent.params)


def test_warm_up_fills_the_replay_and_does_not_learn():
    learner = dqn_learner(countdown(), warmup=5, num_envs=4)
    hparams = jax.tree.map(jnp.float32, learner.agent.hparams)
    state = learner.init(jax.random.key(0), hparams)
    rows = np.asarray(state.agent.replay.rows)
    assert np.count_nonzero(rows.any(axis=1)) == 20
    assert int(jax.tree.leaves(state.agent.opt_state)[0]) == 0


def test_epsilon_one_acts_at_random_and_zero_greedily():
    learner = dqn_learner(countdown(), num_envs=512, capacity=512)
    state = learner.init(jax.random.key(0), learner.agent.hparams)
    noise = jax.tree.map(lambda x: x[0], learner.noise(jax.random.key(1)).rollout.act)

    def act(epsilon):
        hparams = jax.tree.map(jnp.float32, learner.agent.hparams._replace(epsilon_start=epsilon, epsilon_end=epsilon))
        return learner.agent.explore(state.agent.params, state.obs, (), noise, hparams, jnp.int32(0))[0]

    greedy = learner.agent.exploit(state.agent.params, state.obs, (), jax.random.key(2))[0]
    np.testing.assert_array_equal(act(0.0), greedy)
    assert 180 < int(jnp.sum(act(1.0))) < 332  # 256 ± 6.7 standard deviations of a fair coin


@pytest.mark.parametrize(
    ("static", "error", "message"),
    [
        ({"batch_size": 64, "capacity": 32}, ValueError, "batch_size 64 is larger than the replay's capacity 32"),
        ({"capacity": 98}, ValueError, r"capacity 98 must be a multiple of the 4 rows .* the nearest is 96"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be an int"),
        ({"warmup": 0}, ValueError, "warmup must be at least 1"),
        ({"loss": "absolute"}, ValueError, "loss must be one of"),
        ({"capacity": 98, "prioritized": True}, ValueError, r"capacity 98 must be a multiple of the 4 rows .* the nearest is 96"),
        ({"n_step": 0}, ValueError, "n_step must be at least 1, got 0"),
        ({"n_step": 25}, ValueError, "25 steps of 4 environments do not fit into the replay's capacity 96"),
        ({"noisy": True}, TypeError, r"noisy=True needs a network with noise\(key, shape\)"),
        ({"double": True, "munchausen": True}, ValueError, "double and munchausen exclude each other.*set double=False"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(static, error, message):
    with pytest.raises(error, match=message):
        dqn_learner(countdown(), **static)


def test_a_traced_size_is_refused_with_the_reason():
    def build(size):
        return dqn_learner(countdown(), batch_size=size)

    with pytest.raises(TypeError, match="batch_size is a size and shapes the compiled program"):
        jax.jit(lambda size: build(size) and size)(jnp.int32(16))


def test_a_box_of_actions_is_refused():
    network = jaxrl.networks.q_network(Box(0, 1, (2,)), Discrete(2))
    with pytest.raises(ValueError, match=r"dqn needs a Discrete action space, got Box.*reinforce"):
        jaxrl.agents.dqn(network, Box(-1, 1, (2,)))


def test_a_network_with_the_wrong_number_of_actions_is_refused():
    env = countdown()
    network = jaxrl.networks.q_network(env.observation_space, Discrete(3))
    with pytest.raises(ValueError, match=r"dqn: .*\[4, 2\].*\[4, 3\].*jaxrl.networks.q_network"):
        jaxrl.make_learner(
            env, jaxrl.agents.dqn(network, env.action_space, capacity=100, batch_size=8), num_envs=4, rollout_length=1
        )
