"""REINFORCE against exact gradients and hand-made rollouts."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl
from jaxrl.agents._reinforce import _first_finished_episodes, _mean_of_others
from jaxrl.resets import reset_scheme
from jaxrl.rollout import RolloutCarry, unroll
from jaxrl.types import Box, Discrete, Transition
from tests.compiling import OPTIMIZED
from tests.problems import countdown, endless, reinforce_learner, short_point_mass, tabular

HORIZON, NUM_STATES, NUM_ACTIONS = 4, 3, 2
_rng = np.random.default_rng(1)
TRANSITION = _rng.dirichlet(np.ones(NUM_STATES), size=(NUM_STATES, NUM_ACTIONS))
REWARD = _rng.normal(size=(NUM_STATES, NUM_ACTIONS))


def sgd_learner(baseline, num_envs):
    env = tabular(TRANSITION, REWARD, HORIZON)
    network = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=(), value=baseline == "value")
    agent = jaxrl.agents.reinforce(network, env.action_space, baseline=baseline, optimizer=optax.sgd)
    return network, jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=HORIZON)


def exact_return(network, params, value):
    """The expected return from state 0, by dynamic programming: differentiable in the parameters."""
    out = network.apply(params, jnp.eye(NUM_STATES, dtype=jnp.float32))
    policy = jax.nn.softmax(out[0] if value else out)
    values = jnp.zeros(NUM_STATES, jnp.float32)
    for _ in range(HORIZON):
        values = jnp.sum(policy * (jnp.float32(REWARD) + jnp.float32(TRANSITION) @ values), axis=1)
    return values[0]


@pytest.mark.parametrize("baseline", ["none", "mean", "value"])
def test_the_gradient_is_the_exact_policy_gradient(baseline):
    """Over 10^6 episodes, within 4.5 standard errors in each of the 8 components (p < 6e-5 together)."""
    num_envs, repeats = 5_000, 200
    network, learner = sgd_learner(baseline, num_envs)
    hparams = learner.agent.hparams._replace(learning_rate=1.0, discount=1.0, value_coef=0.0)
    state = jax.jit(learner.init)(jax.random.key(0), hparams)
    leaves, treedef = jax.tree.flatten(state.agent.params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    params = treedef.unflatten([jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)])
    state = state._replace(agent=state.agent._replace(params=params))

    def estimate(key):
        after, _ = learner.step(state, learner.noise(key), hparams, jnp.int32(0))
        # SGD with rate 1 moves by the gradient of the loss, a mean over the T * B steps of the rollout.
        return jax.tree.map(lambda new, old: (new - old) * HORIZON, after.agent.params, params)

    estimate_all = jax.jit(lambda keys: jax.lax.map(estimate, keys), compiler_options=OPTIMIZED)
    estimates = estimate_all(jax.random.split(jax.random.key(2), repeats))
    exact = jax.jit(jax.grad(lambda p: exact_return(network, p, baseline == "value")))(params)
    estimates, exact = jax.tree.map(np.asarray, (estimates, exact))
    checked = 0
    for samples, truth in zip(jax.tree.leaves(estimates), jax.tree.leaves(exact), strict=True):
        error = np.std(samples, axis=0, ddof=1) / np.sqrt(repeats)
        assert np.all(np.abs(np.mean(samples, axis=0) - truth) <= 4.5 * error + 1e-7)
        checked += np.count_nonzero(error)
    assert checked == NUM_STATES * NUM_ACTIONS + NUM_ACTIONS  # weights and biases of the policy


def written_out(params, rollout, network, hparams, mode, baseline, normalize):
    """The loss as a function of parameters, from its definitions: targets and advantages by loops, all rows at once."""
    reward, terminated, truncated = (np.asarray(x, np.float64) for x in (rollout.reward, rollout.terminated, rollout.truncated))
    num_steps, num_envs = reward.shape
    outputs = lambda params, obs: network.apply(params, obs) if baseline == "value" else (network.apply(params, obs), 0.0)
    next_value = np.zeros_like(reward) if mode == "episodic" else np.asarray(outputs(params, rollout.next_obs)[1])
    target, weight = np.zeros_like(reward), np.zeros_like(reward)
    for i in range(num_envs):
        end = np.flatnonzero(terminated[:, i] + truncated[:, i])[0] + 1 if mode == "episodic" else num_steps
        weight[:end, i] = 1
        for t in reversed(range(num_steps)):
            later = next_value[t, i] if truncated[t, i] or t == num_steps - 1 else target[t + 1, i]
            target[t, i] = reward[t, i] + hparams.discount * (1 - terminated[t, i]) * later
    advantage = target.copy()
    if baseline == "mean":
        for t in range(num_steps):
            for i in np.flatnonzero(weight[t]):
                others = [target[t, j] for j in np.flatnonzero(weight[t]) if j != i]
                advantage[t, i] -= np.mean(others) if others else 0.0
    if baseline == "value":
        advantage -= np.asarray(outputs(params, rollout.obs)[1])
    if normalize:
        advantage = (advantage - advantage[weight > 0].mean()) / advantage[weight > 0].std()
    weight, target, advantage = (jnp.asarray(x, jnp.float32) for x in (weight, target, advantage))

    def loss(params):
        (mean, log_std), value = outputs(params, rollout.obs)
        squares = jnp.square((rollout.extras - mean) / jnp.exp(log_std))
        log_prob = jnp.sum(-0.5 * (squares + math.log(2 * math.pi)) - log_std, axis=-1)
        entropy = jnp.mean(weight * jnp.sum(log_std + 0.5 * math.log(2 * math.pi * math.e), axis=-1))
        value_loss = jnp.mean(weight * jnp.square(value - target)) if baseline == "value" else 0.0
        loss = -jnp.mean(weight * log_prob * advantage) - hparams.entropy_coef * entropy + hparams.value_coef * value_loss
        return loss, {"entropy": entropy / jnp.mean(weight), "value_loss": value_loss / jnp.mean(weight)}

    return loss


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize(
    ("mode", "baseline"), [("episodic", "none"), ("episodic", "mean"), ("episodic", "value"), ("continuing", "value")]
)
def test_an_update_follows_the_loss_as_written_out(mode, baseline, normalize):
    """Of 2,048 rows, which a CPU takes in four microbatches."""
    num_envs, rollout_length = 256, 8
    env = short_point_mass()
    network = jaxrl.networks.policy(
        env.observation_space, env.action_space, hidden=(16,), value=baseline == "value", state_dependent_std=True
    )
    static = {"mode": mode, "baseline": baseline, "normalize_advantage": normalize, "optimizer": optax.sgd}
    agent = jaxrl.agents.reinforce(network, env.action_space, **static)
    learner = jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)
    hparams = agent.hparams._replace(learning_rate=1.0, discount=0.9, entropy_coef=0.1, value_coef=0.7)
    state = jax.jit(learner.init)(jax.random.key(0), hparams)
    state = state._replace(agent=state.agent._replace(params=jax.tree.map(lambda x: x + 0.1, state.agent.params)))
    noise, iteration = learner.noise(jax.random.key(1)), jnp.int32(0)
    carry = RolloutCarry(state.env, state.obs, state.carry, state.stats)
    shape = noise.rollout.env.shape[1:] if agent.fresh_episodes else noise.rollout.env.shape
    fresh_episode = reset_scheme(env, shape, None).episode
    play = lambda noise: unroll(env, agent, agent.policy(state.agent), carry, noise, fresh_episode, hparams, iteration)
    _, rollout = jax.jit(play)(noise.rollout)
    assert np.any(rollout.truncated)
    assert not np.all(rollout.truncated[-1])

    after, metrics = jax.jit(learner.step)(state, noise, hparams, iteration)
    moved = jax.tree.map(lambda old, new: old - new, state.agent.params, after.agent.params)
    loss = written_out(state.agent.params, rollout, network, hparams, mode, baseline, normalize)
    (value, others), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.agent.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6), moved, gradient)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-4, atol=1e-6)
    for name in others.keys() & metrics.keys():
        np.testing.assert_allclose(metrics[name], others[name], rtol=1e-4)


def test_the_mean_baseline_lowers_the_variance():
    def variance(baseline):
        _, learner = sgd_learner(baseline, 100)
        hparams = learner.agent.hparams._replace(learning_rate=1.0, discount=1.0)
        state = jax.jit(learner.init)(jax.random.key(0), hparams)
        step = lambda key: learner.step(state, learner.noise(key), hparams, jnp.int32(0))[0].agent.params
        params = jax.jit(jax.vmap(step))(jax.random.split(jax.random.key(1), 200))
        return sum(float(jnp.sum(jnp.var(x, axis=0))) for x in jax.tree.leaves(params))

    assert variance("mean") < variance("none")


def rollout_ending(terminated):
    """A rollout of which only the ends of episodes matter."""
    zeros = jnp.zeros(terminated.shape)
    return Transition(zeros, zeros, zeros, terminated, jnp.zeros_like(terminated), zeros, (), ())


def test_only_the_first_whole_episode_counts():
    rollout = rollout_ending(jnp.array([[0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1]], bool))
    np.testing.assert_array_equal(_first_finished_episodes(rollout), [[1, 0, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1]])


def test_an_unfinished_episode_has_no_weight_and_is_reported():
    env = endless(limit=10)
    env = env._replace(
        step=lambda *args: (lambda s, out: (s, out._replace(truncated=jnp.bool_(False))))(*endless(limit=10).step(*args))
    )
    learner = reinforce_learner(env, rollout_length=4, optimizer=optax.sgd)
    state = learner.init(jax.random.key(0), learner.agent.hparams)
    after, metrics = learner.step(state, learner.noise(jax.random.key(1)), learner.agent.hparams, jnp.int32(0))
    assert metrics["unfinished"] == 1.0
    for old, new in zip(jax.tree.leaves(state.agent.params), jax.tree.leaves(after.agent.params), strict=True):
        np.testing.assert_array_equal(old, new)


def test_the_share_of_unfinished_episodes_is_reported():
    """Episodes last 2 or 9 steps, and a rollout 4."""
    env = endless(limit=9)

    def reset(key, params):
        state, obs = env.reset(key, params)
        return state._replace(time=7 * jax.random.bernoulli(key).astype(jnp.int32)), obs

    learner = reinforce_learner(env._replace(reset=reset), rollout_length=4, num_envs=16)
    state = learner.init(jax.random.key(0), learner.agent.hparams)
    after, metrics = learner.step(state, learner.noise(jax.random.key(1)), learner.agent.hparams, jnp.int32(0))
    unfinished = np.mean(np.asarray(after.stats.finished) == 0)
    assert 0 < unfinished < 1
    assert metrics["unfinished"] == pytest.approx(unfinished)


def test_metrics_of_steps_do_not_depend_on_how_long_the_rollout_is_beyond_the_episodes():
    found = []
    for rollout_length in (3, 12):
        learner = reinforce_learner(countdown(limit=3), rollout_length=rollout_length, baseline="value")
        state = learner.init(jax.random.key(0), learner.agent.hparams)
        found.append(learner.step(state, learner.noise(jax.random.key(1)), learner.agent.hparams, jnp.int32(0))[1])
    for name in ("entropy", "value_loss"):
        np.testing.assert_allclose(*(metrics[name] for metrics in found), rtol=1e-5)
    assert found[0]["loss"] != pytest.approx(float(found[1]["loss"]), rel=0.1)


def test_the_mean_leaves_the_own_return_out():
    target = jnp.array([[1.0, 2.0, 6.0]])
    np.testing.assert_allclose(_mean_of_others(target, jnp.ones((1, 3))), [[4.0, 3.5, 1.5]])
    np.testing.assert_allclose(_mean_of_others(target, jnp.array([[1.0, 0.0, 0.0]])), [[0.0, 1.0, 1.0]])


def test_a_learned_value_reaches_the_value_of_an_endless_task():
    """Continuing mode bootstraps where the time limit cut: V = r / (1 − γ), not the sum of ten rewards."""
    learner = reinforce_learner(endless(limit=10), mode="continuing", baseline="value", rollout_length=16, hidden=())
    hparams = learner.agent.hparams._replace(learning_rate=0.1, discount=0.9, learning_rate_iterations=1500.0)
    state, _ = jax.jit(lambda key: jaxrl.train(key, learner, 1500, hparams))(jax.random.key(0))
    network = jaxrl.networks.policy(learner.env.observation_space, learner.env.action_space, hidden=(), value=True)
    value = network.apply(state.agent.params, jnp.ones((1, 1)))[1]
    np.testing.assert_allclose(value, 10.0, atol=0.1)


def test_clipping_is_by_the_global_norm():
    """Scaled as a whole: the direction stays. Element-wise clipping would bend it."""
    learner = reinforce_learner(short_point_mass(), rollout_length=5, optimizer=optax.sgd)
    free = learner.agent.hparams._replace(learning_rate=1.0)
    state, noise = learner.init(jax.random.key(0), free), learner.noise(jax.random.key(1))

    def change(hparams):
        after, metrics = learner.step(state, noise, hparams, jnp.int32(0))
        moved = jax.tree.map(lambda new, old: new - old, after.agent.params, state.agent.params)
        return jnp.concatenate([x.ravel() for x in jax.tree.leaves(moved)]), metrics["gradient_norm"]

    whole, norm = change(free)
    clipped, _ = change(free._replace(max_grad_norm=float(norm) / 3))
    np.testing.assert_allclose(jnp.linalg.norm(whole), norm, rtol=1e-4)
    np.testing.assert_allclose(clipped, whole / 3, rtol=1e-3, atol=1e-6)


def test_actions_stay_in_the_box_and_squashed_ones_inside():
    env = jaxrl.make("PointMass", max_steps_in_episode=5, max_action=0.1)
    for squash in (False, True):
        learner = reinforce_learner(env, rollout_length=5, squash=squash)
        state = learner.init(jax.random.key(0), learner.agent.hparams)
        noise = jax.random.normal(jax.random.key(1), (4, 2), jnp.float32) * 3
        action, _, raw = learner.agent.explore(state.agent.params, state.obs, (), noise, learner.agent.hparams, jnp.int32(0))
        assert float(jnp.max(jnp.abs(action))) <= 0.1 + 1e-7
        assert float(jnp.max(jnp.abs(raw))) > 0.1


def test_state_dependent_and_independent_standard_deviations():
    env = short_point_mass()
    for state_dependent in (False, True):
        network = jaxrl.networks.policy(env.observation_space, env.action_space, state_dependent_std=state_dependent)
        params = network.init(jax.random.key(0), jnp.zeros((2, 2)))
        _, log_std = network.apply(params, jnp.array([[0.0, 0.0], [1.0, 5.0]]))
        assert bool(jnp.all(log_std[0] == log_std[1])) is not state_dependent


@pytest.mark.parametrize(
    ("static", "space", "message"),
    [
        ({"mode": "continuing"}, Discrete(2), "needs baseline='value'"),
        ({"mode": "sometimes"}, Discrete(2), "mode must be one of"),
        ({"squash": True}, Discrete(2), "squash=True is for a Box"),
        ({"squash": True}, Box(-np.inf, 1, (2,)), "finite bounds"),
        ({}, Box(0, 5, (2,), np.int32), "Box of floats"),
    ],
)
def test_what_does_not_fit_is_refused(static, space, message):
    network = jaxrl.networks.policy(Box(0, 1, (2,)), Discrete(2))
    with pytest.raises(ValueError, match=message):
        jaxrl.agents.reinforce(network, space, **static)


def test_a_network_of_another_form_is_refused():
    env = short_point_mass()
    network = jaxrl.networks.policy(env.observation_space, env.action_space)
    agent = jaxrl.agents.reinforce(network, env.action_space, baseline="value")
    with pytest.raises(ValueError, match=r"reinforce: .*jaxrl.networks.policy\(..., value=True\)"):
        jaxrl.make_learner(env, agent, num_envs=2, rollout_length=5)


def test_whole_episodes_need_a_rollout_as_long_as_the_time_limit():
    with pytest.raises(ValueError, match="rollout_length 4 is shorter than an episode of PointMass may be"):
        reinforce_learner(short_point_mass(), rollout_length=4)
