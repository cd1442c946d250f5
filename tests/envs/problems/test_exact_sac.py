"""Discrete SAC against exact optima: eight seeds each, and none that failed left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from tests.envs.problems.test_exact_learning import DISCOUNTS, SEEDS, regrets

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [name for name in DISCOUNTS if name != "Chain"])
def test_discrete_sac_finds_the_optimal_policy(name):
    """The target for the entropy is low, and the temperature, which starts at the scale of the rewards, falls slowly."""
    env, discount, num_iterations = jaxrl.make(name), DISCOUNTS[name], 8_000
    network = jaxrl.networks.actor_critic(env.observation_space, env.action_space, hidden=())
    agent = jaxrl.agents.sac(network, env.action_space, capacity=256_000)
    learner = jaxrl.make_learner(env, agent, num_envs=32, rollout_length=1)
    hparams = agent.hparams._replace(
        learning_rate=0.01,
        learning_rate_iterations=float(num_iterations),
        discount=discount,
        tau=0.02,
        initial_temperature=0.1,
        relative_target_entropy=0.05,
    )
    states = jnp.eye(env.observation_space.shape[0])

    def one(key):
        state, metrics = jaxrl.train(key, learner, num_iterations, hparams)
        return network.actor.apply(state.agent.params.actor, states), metrics["temperature"][-1]

    logits, temperature = jaxrl.vectorize(one)(jax.random.split(jax.random.key(1), SEEDS))
    regret = regrets(env.params.mdp, np.asarray(logits), discount)
    print(f"{name}: regret {regret.round(5)}, temperature {np.asarray(temperature).round(5)}")
    assert regret.max() < 1e-3
