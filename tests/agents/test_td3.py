"""TD3 and DDPG against an update written out in NumPy, known noise, tasks with known answers, and each other."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxrl
from jaxrl import losses
from jaxrl.envs.problems.probes import PROBES
from jaxrl.types import ActorCritic, Box, Discrete, Transition
from tests.compiling import EMITTERS
from tests.problems import LOPSIDED, best_lopsided_action, lopsided, td3_learner

ONE_IN_A_MILLION = 1e-6


def trained(learner, num_iterations, hparams, seeds=4):
    train = lambda key: jaxrl.train(key, learner, num_iterations, hparams)
    return jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), seeds))


# --- networks whose gradients are written by hand: a linear actor, and critics linear in products of state and action


class Linear(NamedTuple):
    size: int  # of the output
    scale: float = 0.5  # of the initial weights

    def init(self, key, obs):
        return {"w": self.scale * jax.random.normal(key, (obs.shape[-1], self.size)), "b": jnp.zeros(self.size)}

    def apply(self, params, obs):
        return jnp.matmul(obs, params["w"]) + jnp.broadcast_to(params["b"], (*obs.shape[:-1], self.size))


def products(obs, action, xp=jnp):
    """All products of two of the numbers (observation, action, 1), `[..., n²]`."""
    z = xp.concatenate([obs, action, xp.ones_like(obs[..., :1])], axis=-1)
    return (z[..., :, None] * z[..., None, :]).reshape(*z.shape[:-1], -1)


class Quadratic(NamedTuple):
    num: int  # K
    scale: float = 1.0  # of the features: how fast a critic learns beside the actor, with one learning rate

    def init(self, key, obs, action):
        n = obs.shape[-1] + action.shape[-1] + 1
        noise = 0.1 * jax.random.normal(key, (self.num, n**2))
        return noise - jnp.broadcast_to(0.3 * jnp.eye(n).reshape(1, -1), noise.shape)  # concave in the action

    def apply(self, params, obs, action):
        return jnp.moveaxis(jnp.matmul(self.scale * products(obs, action), params.T), -1, 0)


def example(num_critics=2, **static):
    """An agent for LOPSIDED actions with a full replay of 24 rows, and these rows in NumPy."""
    make = jaxrl.agents.ddpg if static.pop("ddpg", False) else jaxrl.agents.td3
    network = ActorCritic(Linear(2), Quadratic(num_critics))
    agent = make(network, LOPSIDED, batch_size=16, capacity=24, warmup=3, **static)
    state, store = jax.jit(agent.init)(jax.random.key(0), jnp.zeros((4, 3)), agent.hparams), jax.jit(agent.store)
    state = state._replace(target_params=jax.tree.map(lambda x: 0.7 * x + 0.1, state.params))  # not the parameters themselves
    rng, rollouts = np.random.default_rng(0), []
    for iteration in range(3):
        obs, next_obs = rng.normal(size=(2, 2, 4, 3)).astype(np.float32)
        action = rng.uniform(LOPSIDED.low, LOPSIDED.high, (2, 4, 2)).astype(np.float32)
        kind = rng.integers(3, size=(2, 4))
        reward = rng.normal(size=(2, 4)).astype(np.float32)
        rollout = Transition(obs, action, reward, kind == 1, kind == 2, next_obs, np.zeros((2, 4, 2), np.float32), ())
        state = store(state, rollout, jnp.int32(iteration))
        rollouts.append(rollout)
    rows = jax.tree.map(lambda *x: np.concatenate([y.reshape(8, *y.shape[2:]) for y in x]), *rollouts)
    return agent, state, rollouts[-1], rows


def adam_by_hand(params, grad, moments, step, learning_rate):
    """The `step`-th step (from 1) of Adam; returns the parameters and moments."""
    mean, square = 0.9 * moments[0] + 0.1 * grad, 0.999 * moments[1] + 0.001 * grad**2
    change = learning_rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return params - change, (mean, square)


def updates_by_hand(state, rows, noise, hparams, delay, critic_steps, actor_steps):
    """Every update of one iteration, one after the other; returns parameters and targets of (w, b, critics)."""
    center, scale = (LOPSIDED.high + LOPSIDED.low) / 2, (LOPSIDED.high - LOPSIDED.low) / 2
    flat = lambda params: [np.float64(params.actor["w"]), np.float64(params.actor["b"]), np.float64(params.critic)]
    (w, b, q), targets = flat(state.params), flat(state.target_params)
    moments = [(np.zeros_like(x), np.zeros_like(x)) for x in (w, b, q)]
    bits, smoothing = noise
    bits = np.asarray(bits).reshape(-1, 16)
    smoothing = np.zeros((len(bits), 16, 2)) if isinstance(smoothing, tuple) else np.asarray(smoothing).reshape(-1, 16, 2)
    for i in range(len(bits)):
        batch = jax.tree.map(lambda x, i=i: x[bits[i] % 24], rows)
        smooth = 0.0
        if hasattr(hparams, "target_noise"):
            smooth = np.clip(hparams.target_noise * smoothing[i], -hparams.target_noise_clip, hparams.target_noise_clip)
        raw = np.clip(np.tanh(batch.next_obs @ targets[0] + targets[1]) + smooth, -1, 1)
        next_q = products(batch.next_obs, center + scale * raw, np) @ targets[2].T  # [N, K]
        goal = batch.reward + hparams.discount * ~batch.terminated * next_q.min(axis=1)
        features = products(batch.obs, batch.action, np)
        grad = -(goal[:, None] - features @ q.T).T @ features / 16
        q, moments[2] = adam_by_hand(q, grad, moments[2], critic_steps + i + 1, hparams.learning_rate)
        if (i + 1) % delay:
            continue
        raw = np.tanh(batch.obs @ w + b)
        form = q[0].reshape(6, 6)  # of the first critic: q = zᵀ form z
        z = np.concatenate([batch.obs, center + scale * raw, np.ones((16, 1))], axis=1)
        dq_da = (z @ (form + form.T))[:, 3:5]
        dloss_dout = -dq_da * scale * (1 - raw**2) / 16
        actor_steps += 1
        w, moments[0] = adam_by_hand(w, batch.obs.T @ dloss_dout, moments[0], actor_steps, hparams.learning_rate)
        b, moments[1] = adam_by_hand(b, dloss_dout.sum(axis=0), moments[1], actor_steps, hparams.learning_rate)
        targets = [hparams.tau * new + (1 - hparams.tau) * old for new, old in zip((w, b, q), targets, strict=True)]
    return [w, b, q], targets


@pytest.mark.parametrize(
    ("static", "tau"),
    [
        ({"updates_per_iteration": 4, "policy_delay": 2}, 0.3),
        ({"updates_per_iteration": 2, "policy_delay": 2}, 0.0),
        ({"updates_per_iteration": 3, "policy_delay": 3}, 0.0),
        ({"updates_per_iteration": 2, "policy_delay": 1, "num_critics": 3}, 1.0),
        ({"updates_per_iteration": 2, "num_critics": 1, "ddpg": True}, 0.3),
    ],
)
def test_an_iteration_is_that_of_a_loop_in_numpy(static, tau):
    """Ten iterations after the first update, where Adam has taken ten times as many steps as one iteration takes."""
    agent, state, rollout, rows = example(**static)
    hparams = agent.hparams._replace(learning_rate=0.01, tau=tau, discount=0.9)
    noise = agent.noise(jax.random.key(1), 2, 4).update
    update = jax.jit(lambda state, hparams: agent.update(state, rollout, noise, hparams, jnp.int32(13)))
    after, _ = update(state, jax.tree.map(jnp.float32, hparams))
    updates, delay = static["updates_per_iteration"], static.get("policy_delay", 1)
    expected, targets = updates_by_hand(state, rows, noise, hparams, delay, 10 * updates, 10 * updates // delay)
    for params, wanted in ((after.params, expected), (after.target_params, targets)):
        found = params.actor["w"], params.actor["b"], params.critic
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), list(found), wanted)
    counts = [int(x.count) for x in after.opt_state]
    assert counts == [11 * updates // delay, 11 * updates]


def test_ddpg_is_td3_with_one_critic_and_neither_delay_nor_target_noise():
    """To the bit, over whole runs."""
    env = lopsided()
    network = jaxrl.networks.deterministic_actor_critic(env.observation_space, env.action_space, num_critics=1, hidden=(8,))
    sizes = {"batch_size": 16, "capacity": 96, "warmup": 5, "updates_per_iteration": 2}
    ddpg = jaxrl.agents.ddpg(network, env.action_space, **sizes)
    td3 = jaxrl.agents.td3(network, env.action_space, policy_delay=1, **sizes)
    assert ddpg.hparams._asdict().items() < td3.hparams._asdict().items()
    runs = []
    for agent in (ddpg, td3._replace(hparams=td3.hparams._replace(target_noise=0.0))):
        learner = jaxrl.make_learner(env, agent, num_envs=4, rollout_length=2)
        train = jax.jit(lambda key, learner=learner: jaxrl.train(key, learner, 4)[0].agent, compiler_options=EMITTERS)
        runs.append(train(jax.random.key(0)))
    jax.tree.map(np.testing.assert_array_equal, runs[0].params, runs[1].params)
    jax.tree.map(np.testing.assert_array_equal, runs[0].target_params, runs[1].target_params)


def test_the_actors_gradient_is_the_deterministic_policy_gradient():
    """That of the chain rule in two parts (Silver et al. 2014, eq. 9), for the networks of the package."""
    env, head = lopsided(), jaxrl.policies.deterministic_head(LOPSIDED)
    actor, critic = jaxrl.networks.deterministic_actor_critic(env.observation_space, LOPSIDED, hidden=(8,))
    obs = jax.random.normal(jax.random.key(0), (16, 1))
    params = jax.jit(actor.init)(jax.random.key(1), obs)
    critics = jax.jit(critic.init)(jax.random.key(2), obs, jnp.zeros((16, 2)))
    act = lambda params: head.to_action(head.mode(actor.apply(params, obs)))

    def in_two_parts(params):
        action = act(params)
        dqda = jax.grad(lambda action: jnp.sum(critic.apply(critics, obs, action)[0]))(action)
        return jnp.mean(losses.deterministic_policy_gradient(action, dqda))

    loss = functools.partial(jaxrl.agents._td3._actor_loss, ActorCritic(actor, critic), head)
    direct, value = jax.jit(jax.grad(loss, has_aux=True))(params, critics, obs)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7), direct, jax.jit(jax.grad(in_two_parts))(params)
    )
    np.testing.assert_allclose(value, -np.mean(critic.apply(critics, obs, act(params))[0]), rtol=1e-5)


def test_critics_begin_differently_and_the_targets_are_copies():
    learner = td3_learner()
    state = jax.jit(learner.init)(jax.random.key(0), jax.tree.map(jnp.float32, learner.agent.hparams)).agent
    kernels = [np.asarray(x) for x in jax.tree.leaves(state.params.critic) if x.ndim == 3]
    assert kernels
    assert all(not np.allclose(x[0], x[1]) for x in kernels)
    jax.tree.map(np.testing.assert_array_equal, state.params, state.target_params)


# --- exploration


def explored(iteration, steps=2_000, **changes):
    """Actions `[steps, 4, 2]` of one long episode, and those of the policy; the warm-up ends before iteration 5."""
    learner = td3_learner()
    agent, hparams = learner.agent, learner.agent.hparams._replace(**changes)
    state = learner.init(jax.random.key(0), hparams).agent
    obs, noise = jnp.full((4, 1), 0.5), agent.noise(jax.random.key(1), steps, 4).act

    def step(carry, noise_t):
        action, carry, _ = agent.explore(state.params.actor, obs, carry, noise_t, hparams, jnp.int32(iteration))
        return carry, action

    actions = jax.lax.scan(step, agent.initial_carry(4), noise)[1]
    return np.asarray(actions), np.asarray(agent.exploit(state.params.actor, obs, agent.initial_carry(4), jax.random.key(0))[0])


def test_actions_of_the_warm_up_are_uniform_in_the_box():
    actions, _ = explored(iteration=4)
    for i in range(2):
        share = (actions[:, :, i] - LOPSIDED.low[i]) / (LOPSIDED.high[i] - LOPSIDED.low[i])
        assert scipy.stats.kstest(share.reshape(-1), "uniform").pvalue > ONE_IN_A_MILLION


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_exploration_noise_has_its_scale_and_its_correlation(correlation):
    """In units of the Box, around the policy's action; 4 × 2 series of 2,000 steps."""
    actions, policy = explored(iteration=5, exploration_noise=0.05, noise_correlation=correlation)
    noise = ((actions - policy) / ((LOPSIDED.high - LOPSIDED.low) / 2))[100:]
    np.testing.assert_allclose(noise.std(), 0.05, rtol=0.1)
    for lag in (1, 2, 5):
        found = np.mean(noise[lag:] * noise[:-lag]) / np.var(noise)
        np.testing.assert_allclose(found, correlation**lag, atol=0.06)


def test_the_noise_starts_anew_with_every_episode():
    """After a rollout whose last step ended an episode."""
    learner = td3_learner(rollout_length=4)  # episodes have three steps
    hparams = learner.agent.hparams._replace(noise_correlation=0.9)
    state = jax.jit(lambda key: jaxrl.train(key, learner, 1, hparams)[0])(jax.random.key(0))
    assert learner.agent.warmup == 5  # six rollouts of four steps: the last episode has just ended
    np.testing.assert_array_equal(state.carry, 0.0)


def test_the_replay_does_not_hold_the_noise():
    learner = td3_learner()
    state = jax.eval_shape(learner.init, jax.random.key(0), learner.agent.hparams)
    assert state.carry.shape == (4, 2)
    assert state.agent.replay.rows.shape[-1] == 1 + 2 + 1 + 1 + 1  # obs, action, reward, flags, next_obs


# --- known answers


def test_it_finds_the_best_action_of_an_asymmetric_box():
    """An error of 0.15 widths costs 0.02 a step. The middle of the Box is 0.24 widths from the best action of outer contexts."""
    learner = td3_learner(num_envs=16, capacity=1600, batch_size=64, hidden=(32,))
    hparams = learner.agent.hparams._replace(
        learning_rate=3e-3, learning_rate_iterations=600.0, discount=0.5, tau=0.1, exploration_noise=0.3
    )
    state, metrics = trained(learner, 600, hparams)
    contexts = jnp.array([[-0.8], [0.0], [0.8]])
    exploit = lambda params: learner.agent.exploit(params, contexts, jnp.zeros((3, 2)), jax.random.key(0))[0]
    actions = np.asarray(jax.vmap(exploit)(state.agent.params.actor))
    widths = (LOPSIDED.high - LOPSIDED.low).astype(np.float32)
    assert np.all(np.abs(actions - best_lopsided_action(np.asarray(contexts))) < 0.15 * widths)
    assert np.all(metrics["episode_return"] > -1e5)  # no action was outside


def continuous(probe):
    """The probe with an action in [0, 1]: the larger half is its last action."""
    env = probe.env
    last = env.action_space.n - 1
    step = lambda key, state, action, params: env.step(key, state, jnp.where(action[0] > 0.5, last, 0), params)
    return env._replace(step=step, action_space=Box(0, 1, (1,)))


MARKOV = [name for name in PROBES if name != "memory"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "truncation" else pytest.mark.slow) for name in MARKOV])
def test_it_learns_the_answer_of_a_probe(name):
    """The policy's choice, and the values of both ends of the Box, where the clipped noise takes many actions."""
    probe = PROBES[name]()
    learner = td3_learner(continuous(probe), hidden=(16,))
    hparams = learner.agent.hparams._replace(
        learning_rate=0.01, learning_rate_iterations=1500.0, discount=probe.discount, tau=0.1, exploration_noise=2.0
    )
    state, _ = trained(learner, 1500, hparams, seeds=2)
    network = jaxrl.networks.deterministic_actor_critic(learner.env.observation_space, learner.env.action_space, hidden=(16,))
    obs = jnp.float32(probe.obs)
    for seed in range(2):
        params = jax.tree.map(lambda x, seed=seed: x[seed], state.agent.params)
        action = np.asarray(learner.agent.exploit(params.actor, obs, (), jax.random.key(0))[0])
        last = probe.env.action_space.n - 1
        best = np.argmax(probe.q, axis=1)
        if last:
            np.testing.assert_array_equal(action[:, 0] > 0.5, best == last)
        for choice in {0, last}:
            q = network.critic.apply(params.critic, obs, jnp.full((len(obs), 1), float(choice)))
            np.testing.assert_allclose(q, np.broadcast_to(probe.q[:, choice], q.shape), atol=0.1)


# --- what does not fit


@pytest.mark.parametrize(
    ("space", "static", "message"),
    [
        (Discrete(2), {}, "td3 needs a Box of floats"),
        (Box(0, 5, (2,), np.int32), {}, "td3 needs a Box of floats"),
        (Box(-1, 1, (2,)), {"batch_size": 100, "capacity": 50}, "batch_size 100 is larger than the replay's capacity 50"),
        (Box(-1, 1, (2,)), {"policy_delay": 0}, "policy_delay must be at least 1"),
        (Box(-1, 1, (2,)), {"updates_per_iteration": 1}, "=1 must be a multiple of policy_delay=2.* nearest is 2"),
        (Box(-1, 1, (2,)), {"updates_per_iteration": 8, "policy_delay": 3}, "=8 must be a multiple of .*=3.* nearest is 9"),
    ],
)
def test_what_does_not_fit_is_refused(space, static, message):
    network = jaxrl.networks.deterministic_actor_critic(Box(-1, 1, (3,)), Box(-1, 1, (2,)))
    with pytest.raises(ValueError, match=message):
        jaxrl.agents.td3(network, space, **static)
    if "policy_delay" not in static and "updates_per_iteration" not in static:
        with pytest.raises(ValueError, match=message.replace("td3", "ddpg")):
            jaxrl.agents.ddpg(network, space, **static)


def test_networks_of_another_form_are_refused_by_name():
    env = lopsided()
    right = jaxrl.networks.deterministic_actor_critic(env.observation_space, env.action_space, hidden=(4,))
    one_critic = jaxrl.networks.critic(env.observation_space, env.action_space, hidden=(4,))
    stochastic = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=(4,))
    for make, network, message in (
        (jaxrl.agents.td3, right._replace(critic=one_critic), r"td3 \(critic\)"),
        (jaxrl.agents.td3, right._replace(actor=stochastic), r"td3 \(actor\)"),
        (jaxrl.agents.ddpg, right, r"ddpg \(critic\): the network must return shapes \[1, 4\], but it returns \[2, 4\]"),
    ):
        agent = make(network, env.action_space, capacity=64, batch_size=8)
        build = functools.partial(jaxrl.make_learner, env, agent, num_envs=4, rollout_length=1)
        with pytest.raises(ValueError, match=f"{message}.*jaxrl.networks.deterministic_actor_critic"):
            build()
