"""Discrete SAC against known answers: the Boltzmann policy, gradients, probes, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs.problems.probes import PROBES, SPACE_PROBES
from jaxrl.types import Box, Discrete, Environment, MultiDiscrete, Step
from tests.problems import sac_learner

REWARDS = np.float32([0.0, 1.0, 0.5, -1.0])


def bandit() -> Environment:
    """One step; the reward of each action is that of `REWARDS`."""

    def reset(key, params):
        return jnp.int32(0), jnp.ones(1)

    def step(key, state, action, params):
        return state, Step(jnp.ones(1), params[action], jnp.bool_(True), jnp.bool_(False))

    return Environment(reset, step, jnp.asarray(REWARDS), Box(0, 2, (1,)), Discrete(4), "bandit")


def trained(learner, num_iterations, hparams, seeds=4):
    train = lambda key: jaxrl.train(key, learner, num_iterations, hparams)
    return jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), seeds))


def test_the_policy_is_the_boltzmann_policy_with_the_target_entropy():
    """π(a) ∝ exp(r(a) / α), with the α at which its entropy is the target: exact in every seed."""
    learner = sac_learner(bandit(), num_envs=16, capacity=1600, batch_size=64, hidden=())
    hparams = learner.agent.hparams._replace(
        learning_rate=0.03, learning_rate_iterations=1500.0, tau=0.1, relative_target_entropy=0.7, initial_temperature=0.3
    )
    state, metrics = trained(learner, 1500, hparams)
    params = state.agent.params
    logits = np.asarray(
        jax.vmap(lambda p: jaxrl.networks.policy(*spaces(learner), hidden=()).apply(p, jnp.ones(1)))(params.actor)
    )
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wanted = np.exp(REWARDS / np.exp(np.asarray(params.log_temperature))[:, None])
    np.testing.assert_allclose(probs, wanted / wanted.sum(-1, keepdims=True), atol=0.01)
    np.testing.assert_allclose(-(probs * np.log(probs)).sum(-1), 0.7 * np.log(4), atol=0.01)
    np.testing.assert_allclose(metrics["entropy"][:, -1], 0.7 * np.log(4), atol=0.01)


def spaces(learner):
    return learner.env.observation_space, learner.env.action_space


@pytest.mark.parametrize("name", ["discounting", "action and observation", "reset leakage", "truncation"])
def test_probes(name):
    """With a target for the entropy of 0, the temperature falls to 0, and the values become those of the optimal policy."""
    probe = PROBES[name]()
    learner = sac_learner(probe.env, num_envs=8, warmup=8, capacity=512, batch_size=32, hidden=())
    hparams = learner.agent.hparams._replace(
        learning_rate=0.02, discount=probe.discount, tau=0.1, initial_temperature=0.3, relative_target_entropy=0.0
    )
    state, _ = trained(learner, 600, hparams)
    network = jaxrl.networks.actor_critic(*spaces(learner), hidden=())
    q = np.asarray(jax.vmap(lambda p: network.critic.apply(p, probe.obs))(state.agent.params.critic))  # [seed, K, N, A]
    logits = np.asarray(jax.vmap(lambda p: network.actor.apply(p, probe.obs))(state.agent.params.actor))
    best = probe.q.argmax(-1)
    np.testing.assert_array_equal(logits.argmax(-1), np.broadcast_to(best, logits.shape[:-1]))
    found = np.take_along_axis(q, np.broadcast_to(best[:, None], (*q.shape[:-1], 1)), -1)[..., 0]
    np.testing.assert_allclose(found, np.broadcast_to(probe.q.max(-1), found.shape), atol=0.05)


def test_illegal_actions_are_never_taken_and_nothing_becomes_nan():
    probe = SPACE_PROBES["action mask"]()
    learner = sac_learner(probe.env, num_envs=8, warmup=8, capacity=512, batch_size=32, hidden=())
    hparams = learner.agent.hparams._replace(
        learning_rate=0.02, discount=probe.discount, tau=0.1, initial_temperature=0.1, relative_target_entropy=0.1
    )

    def run(key):
        state, metrics = jaxrl.train(key, learner, 400, hparams, log_every=1)
        return state, metrics, jaxrl.evaluate(jax.random.fold_in(key, 1), learner, state, num_episodes=50)

    state, metrics, returns = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.agent.params))
    assert np.nanmin(metrics["episode_return"]) > -5  # an illegal action pays −10
    np.testing.assert_allclose(returns.mean(), 1.5, atol=0.05)


def test_what_does_not_fit_is_refused():
    env = jaxrl.make("CartPole-v1")
    network = jaxrl.networks.actor_critic(env.observation_space, env.action_space, hidden=(4,))
    with pytest.raises(ValueError, match="sac needs a Discrete action space or a Box with finite bounds, got MultiDiscrete"):
        jaxrl.agents.sac(network, MultiDiscrete((2, 3)))
    with pytest.raises(ValueError, match="actor_critic needs a Box or Discrete as its action space, got MultiDiscrete"):
        jaxrl.networks.actor_critic(env.observation_space, MultiDiscrete((2, 3)))
    agent = jaxrl.agents.sac(network, env.action_space, capacity=64, batch_size=8, noise_period=3)
    with pytest.raises(ValueError, match="noise_period=3 must divide rollout_length=4"):
        jaxrl.make_learner(env, agent, num_envs=4, rollout_length=4)
    of_actions = jaxrl.networks.critic(env.observation_space, env.action_space, hidden=(4,))
    agent = jaxrl.agents.sac(network._replace(critic=of_actions), env.action_space, capacity=64, batch_size=8)
    with pytest.raises(TypeError):  # it takes an action
        jaxrl.make_learner(env, agent, num_envs=4, rollout_length=1)
    agent = jaxrl.agents.sac(network._replace(critic=network.actor), env.action_space, capacity=64, batch_size=8)
    make = functools.partial(jaxrl.make_learner, env, agent, num_envs=4, rollout_length=1)
    with pytest.raises(ValueError, match=r"sac \(critic\).*jaxrl.networks.actor_critic"):
        make()
