"""SAC against known answers: its losses' gradients, the soft value of a bandit, and a task with a known best action."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate

import jaxrl
from jaxrl.types import Box, Discrete, Environment, Step
from tests.problems import LOPSIDED, best_lopsided_action, lopsided, sac_learner


def bandit() -> Environment:
    """One step, reward −(3 a)² / 2 for an action a in [-1, 1]."""

    def reset(key, params):
        return jnp.int32(0), jnp.ones(1)

    def step(key, state, action, params):
        reward = -0.5 * jnp.sum(jnp.square(3 * action))
        return state, Step(jnp.ones(1), reward, jnp.bool_(True), jnp.bool_(False))

    return Environment(reset, step, (), Box(0, 2, (1,)), Box(-1, 1, (1,)), "bandit")


def trained(learner, num_iterations, hparams, seeds=4):
    train = lambda key: jaxrl.train(key, learner, num_iterations, hparams)
    return jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), seeds))


def test_the_temperature_brings_the_entropy_to_its_target():
    """With a temperature that is learned, the policy's entropy ends at the target, whatever the rewards' scale."""
    learner = sac_learner(bandit(), num_envs=16, capacity=1600, batch_size=64)
    hparams = learner.agent.hparams._replace(learning_rate=1e-2, tau=0.1, target_entropy=-0.5)
    _, metrics = trained(learner, 800, hparams)
    np.testing.assert_allclose(metrics["entropy"][:, -10:].mean(axis=1), -0.5, atol=0.1)
    assert (metrics["temperature"] > 0).all()


def test_the_policy_is_the_boltzmann_distribution_of_the_reward():
    """At a fixed temperature α, π(a) ∝ exp(r(a) / α): its second moment, by quadrature, is that of the sampled actions."""
    alpha = 0.5
    density = lambda a: np.exp(-0.5 * (3 * a) ** 2 / alpha)
    wanted = integrate.quad(lambda a: a**2 * density(a), -1, 1)[0] / integrate.quad(density, -1, 1)[0]
    learner = sac_learner(bandit(), num_envs=16, capacity=1600, batch_size=128, hidden=(32,))

    def frozen_temperature(state):
        params = state.agent.params._replace(log_temperature=jnp.log(jnp.float32(alpha)))
        return state._replace(agent=state.agent._replace(params=params))

    hparams = jax.tree.map(jnp.float32, learner.agent.hparams._replace(learning_rate=3e-3, tau=0.1))

    def run(key):
        def iterate(state, iteration):
            state, _ = learner.step(state, learner.noise(jax.random.fold_in(state.key, iteration)), hparams, iteration)
            return frozen_temperature(state), None

        state = frozen_temperature(learner.init(key, hparams))
        iterations = learner.agent.warmup + jnp.arange(1500, dtype=jnp.int32)
        return jax.lax.scan(iterate, state, iterations)[0].agent

    state = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 4))
    noise = jax.random.normal(jax.random.key(2), (4096, 1))
    explore = lambda params: learner.agent.explore(params, jnp.ones((4096, 1)), (), noise, hparams, jnp.int32(0))[0]
    found = np.square(jax.vmap(explore)(state.params.actor)).mean(axis=(1, 2))
    # A squashed Gaussian is not exactly the truncated one: the nearest in KL differs by 2 % here.
    np.testing.assert_allclose(found.mean(), wanted, rtol=0.1)


def test_it_finds_the_best_action_of_an_asymmetric_box():
    learner = sac_learner(lopsided(), num_envs=16, capacity=1600, batch_size=64, hidden=(32,))
    hparams = learner.agent.hparams._replace(learning_rate=1e-2, tau=0.1, target_entropy=-2.0)
    state, _ = trained(learner, 1000, hparams)
    contexts = jnp.array([[-0.8], [0.0], [0.8]])
    exploit = lambda params: learner.agent.exploit(params, contexts, (), jax.random.key(0))[0]
    actions = np.asarray(jax.jit(jax.vmap(exploit))(state.agent.params.actor))
    widths = (LOPSIDED.high - LOPSIDED.low).astype(np.float32)
    assert np.all(np.abs(actions - best_lopsided_action(np.asarray(contexts))) < 0.1 * widths)


def test_both_critics_begin_differently_and_the_target_is_their_copy():
    learner = sac_learner()
    state = jax.jit(learner.init)(jax.random.key(0), jax.tree.map(jnp.float32, learner.agent.hparams)).agent
    kernels = [np.asarray(x) for x in jax.tree.leaves(state.params.critic) if x.ndim == 3]
    assert kernels
    assert all(not np.allclose(x[0], x[1]) for x in kernels)
    jax.tree.map(np.testing.assert_array_equal, state.params.critic, state.target_critic)


def linear(env, num_critics=3):
    return jaxrl.networks.actor_critic(env.observation_space, env.action_space, hidden=(), num_critics=num_critics)


def test_a_gradient_step_is_that_of_the_papers_losses():
    """Plain SGD on one batch, with the equations written out for Gaussian policies, against finite differences in float64:
    of three critics the least counts, the actor's gradient leaves the critics alone, and it is log α that moves."""
    env = lopsided()
    agent = jaxrl.agents.sac(linear(env), env.action_space, capacity=4, batch_size=4, warmup=1, optimizer=optax.sgd)
    learner = jaxrl.make_learner(env, agent, num_envs=4, rollout_length=1)
    hparams = jax.tree.map(jnp.float32, agent.hparams._replace(learning_rate=1.0, initial_temperature=0.3, discount=0.9))
    state = jax.jit(learner.init)(jax.random.key(0), hparams)
    noise, rollout = agent.noise(jax.random.key(1), 1, 4).update, jax.jit(jaxrl.replay.take)(state.agent.replay, np.arange(4))
    rollout = jax.tree.map(lambda x: x[None], rollout)
    after, _ = jax.jit(agent.update)(state.agent, rollout, noise, hparams, jnp.int32(1))
    batch = jaxrl.off_policy.sample(state.agent.replay, noise.sample, rollout, jnp.int32(1))
    batch, noises = jax.tree.map(lambda x: np.asarray(x[0]), (batch, (noise.action, noise.next_action)))
    old, new = (jax.tree.map(np.float64, x.params) for x in (state.agent, after))
    half, middle = (LOPSIDED.high - LOPSIDED.low) / 2, (LOPSIDED.high + LOPSIDED.low) / 2

    def dense(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    def act(actor, obs, eps):
        out = dense(actor["params"]["actor"]["Dense_0"], obs)
        mean, log_std = out[:, :2], out[:, 2:]
        squashed = np.tanh(mean + np.exp(log_std) * eps)
        log_density = -0.5 * eps**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - squashed**2)
        return squashed, log_density.sum(-1)

    def least(critic, obs, squashed):
        layer = critic["params"]["mlp"]["Dense_0"]
        return [dense(jax.tree.map(lambda x, k=k: x[k], layer), np.concatenate([squashed, obs], -1))[:, 0] for k in range(3)]

    alpha, discount = np.exp(old.log_temperature), 0.9 * ~batch.terminated
    squashed, next_log_prob = act(old.actor, batch.next_obs, noises[1])
    y = batch.reward + discount * (np.min(least(old.critic, batch.next_obs, squashed), 0) - alpha * next_log_prob)

    def critic_loss(critic):
        q = least(critic, batch.obs, (batch.action - middle) / half)
        return sum(0.5 * np.mean((y - q_k) ** 2) for q_k in q)

    def actor_loss(actor):
        squashed, log_prob = act(actor, batch.obs, noises[0])
        return np.mean(alpha * log_prob - np.min(least(old.critic, batch.obs, squashed), 0))

    for name, loss in (("critic", critic_loss), ("actor", actor_loss)):
        params, treedef = jax.tree.flatten(getattr(old, name))
        moved = [x - y for x, y in zip(params, jax.tree.leaves(getattr(new, name)), strict=True)]
        for leaf, gradient in enumerate(moved):
            for i in np.ndindex(gradient.shape):
                ends = []
                for step in (1e-5, -1e-5):
                    changed = [x.copy() for x in params]
                    changed[leaf][i] += step
                    ends.append(loss(jax.tree.unflatten(treedef, changed)))
                np.testing.assert_allclose(gradient[i], (ends[0] - ends[1]) / 2e-5, rtol=2e-3, atol=1e-4)
    _, log_prob = act(old.actor, batch.obs, noises[0])
    surplus = np.mean(-log_prob - 2 * float(hparams.target_entropy))  # of entropy
    np.testing.assert_allclose(new.log_temperature - old.log_temperature, -alpha * surplus, rtol=1e-3)


@pytest.mark.parametrize(
    ("space", "static", "message"),
    [
        (Box(-np.inf, 1, (2,)), {}, "sac needs a Discrete action space or a Box with finite bounds"),
        (Box(-1, 1, (2,)), {"batch_size": 100, "capacity": 50}, "batch_size 100 is larger than the replay's capacity 50"),
    ],
)
def test_what_does_not_fit_is_refused(space, static, message):
    network = jaxrl.networks.actor_critic(Box(-1, 1, (3,)), Box(-1, 1, (2,)))
    with pytest.raises(ValueError, match=message):
        jaxrl.agents.sac(network, space, **static)


def test_networks_of_another_form_are_refused_by_name():
    env = lopsided()
    right = jaxrl.networks.actor_critic(env.observation_space, env.action_space, hidden=(4,))
    one_critic = jaxrl.networks.critic(env.observation_space, env.action_space, hidden=(4,))
    for network, message in (
        (right._replace(critic=one_critic), r"sac \(critic\)"),
        (right._replace(actor=jaxrl.networks.q_network(env.observation_space, Discrete(3), hidden=(4,))), r"sac \(actor\)"),
    ):
        agent = jaxrl.agents.sac(network, env.action_space, capacity=64, batch_size=8)
        make = functools.partial(jaxrl.make_learner, env, agent, num_envs=4, rollout_length=1)
        with pytest.raises(ValueError, match=f"{message}.*jaxrl.networks.actor_critic"):
            make()
