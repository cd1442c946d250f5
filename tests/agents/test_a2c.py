"""A2C's gradient, against finite differences of a plain NumPy loop and against PPO's first."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxrl
from jaxrl.types import Box, Discrete, MultiDiscrete, Transition
from tests.precision import tolerance

NUM_STEPS, NUM_ENVS, SIZE = 6, 3, 4
ACTIONS = 3


def rollout_of(raw_action):
    """A rollout of random numbers in which episodes terminate and are truncated, each somewhere."""
    rng = np.random.default_rng(0)
    end = rng.choice(3, (NUM_STEPS, NUM_ENVS), p=[0.6, 0.2, 0.2])
    assert {(end[:-1] == kind).any() for kind in (1, 2)} == {True}
    obs, next_obs = rng.normal(size=(2, NUM_STEPS, NUM_ENVS, SIZE)).astype(np.float32)
    reward = rng.normal(size=end.shape).astype(np.float32)
    return Transition(obs, raw_action, reward, end == 1, end == 2, next_obs, (), raw_action)


class Linear(NamedTuple):
    """A network without hidden layers: logits and a value, each linear in the observation."""

    def init(self, key, obs):
        return {"policy": jax.random.normal(key, (SIZE, ACTIONS)), "value": jax.random.normal(key, (SIZE,))}

    def apply(self, params, obs):
        return obs @ params["policy"], obs @ params["value"]


def loss_by_a_loop(params, rollout, hparams, normalize_advantage):
    """Its loss as a function of (params for the outputs, params for the targets), in float64."""
    obs, next_obs = rollout.obs.astype(np.float64), rollout.next_obs.astype(np.float64)
    advantage, target = np.zeros(rollout.reward.shape), np.zeros(rollout.reward.shape)
    for b in range(NUM_ENVS):
        later = 0.0
        for t in reversed(range(NUM_STEPS)):
            if rollout.terminated[t, b] or rollout.truncated[t, b]:
                later = 0.0
            bootstrap = 0.0 if rollout.terminated[t, b] else next_obs[t, b] @ params["value"]
            value = obs[t, b] @ params["value"]
            error = rollout.reward[t, b] + hparams.discount * bootstrap - value
            later = error + hparams.discount * hparams.gae_lambda * later
            advantage[t, b], target[t, b] = later, later + value
    if normalize_advantage:
        advantage = (advantage - advantage.mean()) / advantage.std()

    def loss(params):
        total = 0.0
        for t in range(NUM_STEPS):
            for b in range(NUM_ENVS):
                logits = obs[t, b] @ params["policy"]
                log_prob = logits - np.log(np.exp(logits).sum())
                total -= log_prob[rollout.extras[t, b]] * advantage[t, b]
                total += hparams.value_coef * 0.5 * (obs[t, b] @ params["value"] - target[t, b]) ** 2
                total += hparams.entropy_coef * (np.exp(log_prob) @ log_prob)
        return total / (NUM_STEPS * NUM_ENVS)

    return loss


def step_of(agent, rollout, hparams):
    """What one step of gradient descent with learning rate 1 subtracts from the parameters: the gradient."""
    state = jax.jit(agent.init)(jax.random.key(1), jnp.zeros((NUM_ENVS, SIZE)), hparams)
    noise = agent.noise(jax.random.key(2), NUM_STEPS, NUM_ENVS).update
    after, metrics = jax.jit(agent.update)(state, rollout, noise, hparams, jnp.int32(0))
    return state.params, jax.tree.map(lambda x, y: np.asarray(x) - np.asarray(y), state.params, after.params), metrics


SETTING = {"learning_rate": 1.0, "max_grad_norm": np.inf, "gae_lambda": 0.8, "discount": 0.9, "entropy_coef": 0.3}


@pytest.mark.parametrize("normalize_advantage", [False, True])
def test_the_gradient_is_that_of_a_plain_loop(normalize_advantage):
    rollout = rollout_of(np.random.default_rng(1).integers(ACTIONS, size=(NUM_STEPS, NUM_ENVS)).astype(np.int32))
    agent = jaxrl.agents.a2c(Linear(), Discrete(ACTIONS), normalize_advantage=normalize_advantage, optimizer=optax.sgd)
    hparams = agent.hparams._replace(**SETTING)
    params, found, metrics = step_of(agent, rollout, jax.tree.map(jnp.float32, hparams))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    loss = loss_by_a_loop(params, rollout, hparams, normalize_advantage)
    np.testing.assert_allclose(metrics["loss"], loss(params), **tolerance(1e-5, 1e-6))
    for name, array in params.items():
        for index in np.ndindex(array.shape):
            ends = []
            for change in (1e-5, -1e-5):
                moved = {**params, name: array.copy()}
                moved[name][index] += change
                ends.append(loss(moved))
            np.testing.assert_allclose(found[name][index], (ends[0] - ends[1]) / 2e-5, **tolerance(1e-4, 1e-5))


SPACES = {"discrete": Discrete(ACTIONS), "multi-discrete": MultiDiscrete((3, 2)), "continuous": Box(-1, 2, (2,))}


@pytest.mark.parametrize("normalize_advantage", [False, True])
@pytest.mark.parametrize("name", SPACES)
def test_the_gradient_is_ppos_first(name, normalize_advantage):
    """With one epoch of one minibatch PPO takes one step, at which the ratio of probabilities is 1."""
    space = SPACES[name]
    network = jaxrl.networks.policy(Box(-9, 9, (SIZE,)), space, hidden=(8,), value=True)
    static = {"normalize_advantage": normalize_advantage, "optimizer": optax.sgd}
    a2c = jaxrl.agents.a2c(network, space, **static)
    ppo = jaxrl.agents.ppo(network, space, num_epochs=1, num_minibatches=1, **static)
    rng = np.random.default_rng(1)
    size = (NUM_STEPS, NUM_ENVS, *space.shape)
    raw_action = rng.normal(size=size).astype(np.float32) if name == "continuous" else rng.integers(2, size=size, dtype=np.int32)
    results = [
        step_of(agent, rollout_of(raw_action), jax.tree.map(jnp.float32, agent.hparams._replace(**SETTING)))
        for agent in (a2c, ppo)
    ]
    (params, found, metrics), (others, expected, other_metrics) = results
    jax.tree.map(np.testing.assert_array_equal, params, others)
    assert all(np.abs(x).max() > 1e-5 for x in jax.tree.leaves(expected))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-7), found, expected)
    for metric in ("value_loss", "entropy", "gradient_norm"):
        np.testing.assert_allclose(metrics[metric], other_metrics[metric], rtol=1e-5)
    assert other_metrics["approx_kl"] < 1e-12


def test_the_hyperparameters_of_ppo_are_refused():
    with pytest.raises(TypeError, match="A2CHParams"):
        jaxrl.agents.a2c(Linear(), Discrete(ACTIONS), hparams=jaxrl.agents.PPOHParams())
