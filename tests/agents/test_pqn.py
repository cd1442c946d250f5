"""PQN against NumPy loops, known action values, and the probes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl
from jaxrl.envs.problems.probes import PROBES, SPACE_PROBES
from jaxrl.types import Box, Discrete, MultiDiscrete, Transition
from tests.precision import tolerance
from tests.problems import countdown, endless, pqn_learner

NUM_STEPS, NUM_ENVS, OBS_SIZE, NUM_ACTIONS = 9, 4, 5, 3
DISCOUNT = 0.9


def random_rollout():
    """Random numbers, in which the successor is the next observation, except where an episode ends and at the last step."""
    rng = np.random.default_rng(0)
    shape = NUM_STEPS, NUM_ENVS
    obs, next_obs = rng.normal(size=(2, *shape, OBS_SIZE)).astype(np.float32)
    terminated, truncated = rng.random((2, *shape)) < 0.2
    terminated[3], truncated[3] = [True, False, True, False], [False, True, True, False]  # every combination
    terminated[-1], truncated[-1] = [True, False, True, False], [False, True, True, False]
    done = (terminated | truncated)[:-1, :, None]
    next_obs[:-1] = np.where(done, next_obs[:-1], obs[1:])
    action = rng.integers(NUM_ACTIONS, size=shape).astype(np.int32)
    return Transition(obs, action, rng.normal(size=shape).astype(np.float32), terminated, truncated, next_obs, (), ())


def target_loop(q, rollout, lambda_):
    """G_t = r_t + γ [(1 − λ) max_a Q(s_t+1, a) + λ G_t+1], by hand; `q` maps observations to action values."""
    target = np.zeros((NUM_STEPS, NUM_ENVS))
    for env in range(NUM_ENVS):
        for t in reversed(range(NUM_STEPS)):
            if rollout.terminated[t, env]:
                target[t, env] = rollout.reward[t, env]
                continue
            value = q(rollout.next_obs[t, env]).max()
            last = rollout.truncated[t, env] or t == NUM_STEPS - 1
            after = value if last else (1 - lambda_) * value + lambda_ * target[t + 1, env]
            target[t, env] = rollout.reward[t, env] + DISCOUNT * after
    return target


def linear(params):
    kernel, bias = (np.asarray(params["params"]["Dense_0"][name], np.float64) for name in ("kernel", "bias"))
    return lambda obs: obs @ kernel + bias


@functools.cache
def linear_agent(**static):
    network = jaxrl.networks.q_network(Box(-9, 9, (OBS_SIZE,)), Discrete(NUM_ACTIONS), hidden=())
    agent = jaxrl.agents.pqn(network, Discrete(NUM_ACTIONS), optimizer=optax.sgd, **static)
    state = agent.init(jax.random.key(0), jnp.zeros((NUM_ENVS, OBS_SIZE)), agent.hparams)
    return agent, state, jax.jit(agent.update)


def gradient(q, obs, action, target):
    """Of the mean squared error, by hand, for `q(obs) = obs @ kernel + bias`."""
    bias = np.zeros((len(action), NUM_ACTIONS))
    bias[np.arange(len(action)), action] = 2 * (q(obs)[np.arange(len(action)), action] - target) / len(action)
    return {"kernel": obs.T @ bias, "bias": bias.sum(axis=0)}


@pytest.mark.parametrize("lambda_", [0.0, 0.65, 1.0])
def test_a_gradient_step_is_the_one_towards_the_targets_of_a_loop(lambda_):
    """The gradient, which a step of SGD shows, is that of the squared distance from the targets, by hand for a linear network."""
    agent, state, update = linear_agent(num_epochs=1, num_minibatches=1)
    hparams = agent.hparams._replace(learning_rate=1.0, discount=DISCOUNT, q_lambda=lambda_, max_grad_norm=np.inf)
    rollout, q = random_rollout(), linear(state.params)
    noise = agent.noise(jax.random.key(1), NUM_STEPS, NUM_ENVS).update
    after, metrics = update(state, jax.tree.map(jnp.asarray, rollout), noise, jax.tree.map(jnp.float32, hparams), jnp.int32(0))

    target, flat = target_loop(q, rollout, lambda_).ravel(), lambda x: x.reshape(-1, *x.shape[2:])
    wanted = gradient(q, flat(rollout.obs), flat(rollout.action), target)
    found = jax.tree.map(
        lambda old, new: np.asarray(old - new), state.params["params"]["Dense_0"], after.params["params"]["Dense_0"]
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance(1e-4, 1e-5)), found, wanted)
    chosen = np.take_along_axis(q(flat(rollout.obs)), flat(rollout.action)[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(metrics["loss"], np.mean(np.square(chosen - target)), **tolerance(1e-4))
    np.testing.assert_allclose(metrics["q"], np.mean(chosen), **tolerance(1e-3))
    np.testing.assert_allclose(metrics["gradient_norm"], np.sqrt(sum(np.sum(g**2) for g in wanted.values())), **tolerance(1e-4))


@pytest.mark.usefixtures("full_precision")
def test_targets_stay_as_they_were_at_the_start_of_the_iteration():
    """Six epochs on the whole rollout, clipped by the norm of all gradients, are six steps towards the same targets."""
    agent, state, update = linear_agent(num_epochs=6, num_minibatches=1)
    hparams = agent.hparams._replace(learning_rate=0.3, discount=DISCOUNT, max_grad_norm=2.0)
    rollout, params = random_rollout(), state.params["params"]["Dense_0"]
    noise = agent.noise(jax.random.key(1), NUM_STEPS, NUM_ENVS).update
    after, metrics = update(state, jax.tree.map(jnp.asarray, rollout), noise, jax.tree.map(jnp.float32, hparams), jnp.int32(0))

    flat = lambda x: x.reshape(-1, *x.shape[2:])
    target = target_loop(linear(state.params), rollout, hparams.q_lambda).ravel()
    params, norms = jax.tree.map(np.float64, params), []
    for _ in range(6):
        grads = gradient(linear({"params": {"Dense_0": params}}), flat(rollout.obs), flat(rollout.action), target)
        norms.append(np.sqrt(sum(np.sum(g**2) for g in grads.values())))
        params = jax.tree.map(lambda x, g: x - 0.3 * min(1.0, 2.0 / norms[-1]) * g, params, grads)
    assert norms[0] > 2.0 > norms[-1]  # with and without clipping
    np.testing.assert_allclose(metrics["gradient_norm"][:, 0], norms, rtol=1e-3)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5), after.params["params"]["Dense_0"], params)


# --- known answers

small_learner = functools.partial(pqn_learner, hidden=(), num_envs=8, num_minibatches=1)


def q_values(learner, obs, num_iterations=400, **hparams):
    """Action values at `obs` after training a linear network."""
    schedule = {"learning_rate": 0.1, "learning_rate_iterations": num_iterations}
    hparams = learner.agent.hparams._replace(**schedule | hparams)
    state, _ = jax.jit(lambda key: jaxrl.train(key, learner, num_iterations, hparams))(jax.random.key(0))
    network = jaxrl.networks.q_network(learner.env.observation_space, learner.env.action_space, hidden=())
    return np.asarray(network.apply(state.agent.params, obs))


@pytest.mark.parametrize("lambda_", [0.0, 1.0])
def test_q_bootstraps_through_a_time_limit(lambda_):
    """Never terminates, reward 2, limit 10, γ = 0.9: Q = 2 / (1 − 0.9) = 20; as if terminated it would be 13 at most."""
    learner = small_learner(endless(reward=2.0, limit=10))
    found = q_values(learner, jnp.ones((1, 1)), learning_rate=0.3, discount=0.9, q_lambda=lambda_, epsilon_end=1.0)
    np.testing.assert_allclose(found, 20.0, atol=0.2)


def test_q_stops_at_a_termination():
    """Terminates after 3 steps, reward 1, γ = 1: Q = 3, 2, 1, whatever the next episode starts with."""
    env = countdown(3, reset_value=1.0)
    obs = jnp.stack([env.reset(jax.random.key(0), ())[1], *(jnp.append(jax.nn.one_hot(t, 4), 0.0) for t in (1, 2))])
    found = q_values(small_learner(env), obs, discount=1.0, epsilon_end=1.0)
    np.testing.assert_allclose(found, [[3, 3], [2, 2], [1, 1]], atol=0.05)


@pytest.mark.parametrize(
    "name", ["constant value", "discounting", "action and observation", "reset leakage", "truncation", "action mask"]
)
def test_it_passes_the_probe(name):
    """λ is 0 where a random action would lower the return of the action before it."""
    probe = (PROBES | SPACE_PROBES)[name]()
    lambda_ = 0.0 if name == "action mask" else 0.65
    obs = jax.tree.map(jnp.asarray, probe.obs)
    found = q_values(small_learner(probe.env), obs, discount=probe.discount, q_lambda=lambda_, epsilon_end=0.5)
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(probe.q))
    np.testing.assert_allclose(found, probe.q, atol=0.05)


def test_no_illegal_action_is_ever_taken():
    """Neither at random nor greedily: each would cost 10, and all other rewards are positive."""
    learner = small_learner(SPACE_PROBES["action mask"]().env)
    _, metrics = jax.jit(lambda key: jaxrl.train(key, learner, 100, log_every=1))(jax.random.key(0))
    assert np.min(metrics["episode_return"]) >= 0
    assert len(np.unique(metrics["episode_return"])) > 3  # it explored


# --- errors


def test_other_action_spaces_are_refused():
    network = jaxrl.networks.q_network(Box(0, 1, (2,)), Discrete(2))
    for space in (Box(-1, 1, (2,)), MultiDiscrete((2, 3))):
        with pytest.raises(ValueError, match=rf"pqn needs a Discrete action space, got {type(space).__name__}.*ppo"):
            jaxrl.agents.pqn(network, space)


def test_minibatches_that_do_not_divide_the_rollout_are_refused():
    with pytest.raises(ValueError, match="num_minibatches 5 must divide the 32 rows of a rollout"):
        pqn_learner(countdown(), num_minibatches=5)


def test_a_network_with_the_wrong_number_of_actions_is_refused():
    env = countdown()
    agent = jaxrl.agents.pqn(jaxrl.networks.q_network(env.observation_space, Discrete(3)), env.action_space)
    with pytest.raises(ValueError, match=r"pqn: .*\[4, 2\].*\[4, 3\].*jaxrl.networks.q_network"):
        jaxrl.make_learner(env, agent, num_envs=4, rollout_length=4)
