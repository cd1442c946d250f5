"""SAC against exact optima: eight seeds each, and none that failed left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs.problems.lqr import policy_value, riccati, start_value
from jaxrl.types import ActorCritic, Box
from tests.envs.problems.test_exact_learning import DISCOUNTS, SEEDS, regrets

pytestmark = pytest.mark.slow


class Quadratic:
    """Two critics that are quadratic in observation and action, as the value of the LQR is.

    Features are scaled up, so that with one learning rate the critics move faster than the actor.
    """

    @staticmethod
    def features(obs, action):
        x = jnp.concatenate([obs, action / 4, jnp.ones_like(obs[..., :1])], axis=-1)
        return 3 * jnp.stack([x[..., i] * x[..., j] for i in range(4) for j in range(i + 1)], axis=-1)

    @staticmethod
    def init(key, obs, action):
        return 0.001 * jax.random.normal(key, (2, 10))

    @staticmethod
    def apply(params, obs, action):
        return jnp.moveaxis(Quadratic.features(obs, action) @ params.T, -1, 0)


def test_sac_finds_the_best_gain():
    """Bounds of ±20 leave the squashed policy nearly linear where it acts. Entropy and noise of a fixed size add a constant to
    the value, so the best gain is Riccati's. The noise is large, since a critic cannot tell the value of an action from that of
    the state it follows from; and the policy starts with it, lest the temperature overshoot."""
    env, discount, num_iterations = jaxrl.make("LQR"), 0.8, 16_000
    env = env._replace(action_space=Box(-20.0, 20.0, (1,)))
    actor = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=(), state_dependent_std=True, log_std=-2.2)
    agent = jaxrl.agents.sac(ActorCritic(actor, Quadratic), env.action_space, capacity=32_000, warmup=50)
    learner = jaxrl.make_learner(env, agent, num_envs=16, rollout_length=1)
    hparams = agent.hparams._replace(
        learning_rate=0.03,
        learning_rate_iterations=float(num_iterations),
        discount=discount,
        tau=0.1,
        initial_temperature=0.3,
        target_entropy=-1.0,
    )

    def one(key):
        state, metrics = jaxrl.train(key, learner, num_iterations, hparams)
        points = jnp.float32([[0, 0], [0.1, 0], [0, 0.1]])
        action, _ = learner.agent.exploit(state.agent.params.actor, points, (), key)
        return (action[:1].T - action[1:].T) / 0.1, action[0], metrics["temperature"][-1]

    gains, offsets, temperature = jaxrl.vectorize(one)(jax.random.split(jax.random.key(1), SEEDS))
    best = float(start_value(env.params, riccati(env.params, discount).value))
    cost = jax.jit(lambda gain, offset: start_value(env.params, policy_value(env.params, gain, discount, offset=offset)))
    excess = np.array([float(cost(*x)) / best - 1 for x in zip(gains, offsets, strict=True)])
    print(f"excess cost {excess.round(5)}, temperature {np.asarray(temperature).round(4)}")
    assert excess.min() > -1e-4
    assert excess.max() < 0.01


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
