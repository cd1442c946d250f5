"""Small environments with known answers, and the learners that several test files share."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl import losses, optimizers, transitions
from jaxrl.policies import policy_head
from jaxrl.recurrence import successor_outputs, unroll_network
from jaxrl.types import Agent, Box, Discrete, Environment, Noise, Step


class Count(NamedTuple):
    time: jax.Array


def endless(reward: float = 1.0, limit: int = 10) -> Environment:
    """One observation, one reward, never terminates, truncated after `limit` steps: Q = reward / (1 − γ)."""

    def reset(key, params):
        return Count(jnp.int32(0)), jnp.ones(1)

    def step(key, state, action, params):
        time = state.time + 1
        return Count(time), Step(jnp.ones(1), params, jnp.bool_(False), time >= limit)

    return Environment(reset, step, jnp.float32(reward), Box(0, 1, (1,)), Discrete(2), "endless")


def countdown(limit: int = 3, reset_value: float = 0.0) -> Environment:
    """Reward 1 a step, *terminates* after `limit` steps; the observation is one-hot in time.

    `reset_value` is added to a feature that only the first observation of an episode shows.
    """

    def observe(time):
        return jnp.append(jax.nn.one_hot(time, limit + 1), jnp.where(time == 0, reset_value, 0.0))

    def reset(key, params):
        return Count(jnp.int32(0)), observe(jnp.int32(0))

    def step(key, state, action, params):
        time = state.time + 1
        return Count(time), Step(observe(time), jnp.float32(1.0), time >= limit, jnp.bool_(False))

    return Environment(reset, step, (), Box(-np.inf, np.inf, (limit + 2,)), Discrete(2), "countdown")


class Chain(NamedTuple):
    """A random MDP: `P[S, A, S]`, `r[S, A]`, an episode of `horizon` steps from state 0."""

    transition: jax.Array
    reward: jax.Array


def tabular(transition, reward, horizon: int) -> Environment:
    """The MDP as an environment with one-hot observations; it terminates after `horizon` steps."""
    num_states, num_actions = reward.shape

    class State(NamedTuple):
        state: jax.Array
        time: jax.Array

    def reset(key, params):
        return State(jnp.int32(0), jnp.int32(0)), jax.nn.one_hot(0, num_states)

    def step(key, state, action, params):
        nxt = jax.random.categorical(key, jnp.log(params.transition[state.state, action])).astype(jnp.int32)
        time = state.time + 1
        out = Step(jax.nn.one_hot(nxt, num_states), params.reward[state.state, action], time >= horizon, jnp.bool_(False))
        return State(nxt, time), out

    params = Chain(jnp.asarray(transition, jnp.float32), jnp.asarray(reward, jnp.float32))
    return Environment(reset, step, params, Box(0, 1, (num_states,)), Discrete(num_actions), "tabular")


def short_point_mass() -> Environment:
    return jaxrl.make("PointMass", max_steps_in_episode=5)


class Context(NamedTuple):
    value: jax.Array
    time: jax.Array


LOPSIDED = Box(np.float32([0, -3]), np.float32([10, 1]), (2,))  # neither around 0 nor the same in both dimensions


def best_lopsided_action(context):
    """float32 `[..., 2]` for contexts `[..., 1]`."""
    return np.float32([5, -1]) + context * np.float32([3, -1])


def lopsided(limit: int = 3) -> Environment:
    """Shows a context in [-1, 1]; each step costs the squared distance from the action that is best in it, in widths of the Box.

    An action outside of the Box costs a million more.
    """

    def reset(key, params):
        value = jax.random.uniform(key, (1,), jnp.float32, minval=-1.0)
        return Context(value, jnp.int32(0)), value

    def step(key, state, action, params):
        best = jnp.float32([5, -1]) + state.value * jnp.float32([3, -1])
        cost = jnp.sum(jnp.square((action - best) / (LOPSIDED.high - LOPSIDED.low)))
        outside = jnp.any((action < LOPSIDED.low) | (action > LOPSIDED.high))
        time = state.time + 1
        after = Step(state.value, -cost - jnp.where(outside, 1e6, 0.0), jnp.bool_(False), time >= limit)
        return Context(state.value, time), after

    return Environment(reset, step, (), Box(-1, 1, (1,)), LOPSIDED, "lopsided")


def dqn_learner(env=None, *, num_envs=4, rollout_length=1, hidden=(16,), **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=hidden)
    static = {"warmup": 5, "capacity": 96, "batch_size": 16} | static
    return jaxrl.make_learner(
        env, jaxrl.agents.dqn(network, env.action_space, **static), num_envs=num_envs, rollout_length=rollout_length
    )


def reinforce_learner(env=None, *, num_envs=4, rollout_length=8, hidden=(16,), **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    value = static.get("baseline") == "value"
    network = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=hidden, value=value)
    agent = jaxrl.agents.reinforce(network, env.action_space, **static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


def ppo_learner(env=None, *, num_envs=4, rollout_length=8, hidden=(16,), **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    network = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=hidden, value=True)
    agent = jaxrl.agents.ppo(network, env.action_space, **{"num_epochs": 2, "num_minibatches": 2} | static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


def sac_learner(env=None, *, num_envs=4, rollout_length=1, hidden=(16,), **static):
    env = lopsided() if env is None else env
    network = jaxrl.networks.actor_critic(env.observation_space, env.action_space, hidden=hidden)
    static = {"warmup": 5, "capacity": 96, "batch_size": 16} | static
    agent = jaxrl.agents.sac(network, env.action_space, **static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


def td3_learner(env=None, *, algorithm="td3", num_envs=4, rollout_length=1, hidden=(16,), **static):
    env = lopsided() if env is None else env
    num_critics = 2 if algorithm == "td3" else 1
    network = jaxrl.networks.deterministic_actor_critic(
        env.observation_space, env.action_space, num_critics=num_critics, hidden=hidden
    )
    static = {"warmup": 5, "capacity": 96, "batch_size": 16} | static
    agent = getattr(jaxrl.agents, algorithm)(network, env.action_space, **static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


class RecurrentHParams(NamedTuple):
    learning_rate: float = 1e-3
    discount: float = 0.99
    gae_lambda: float = 0.95
    value_coef: float = 0.5
    entropy_coef: float = 0.01
    max_grad_norm: float = 0.5


class RecurrentState(NamedTuple):
    params: Any
    opt_state: Any


class Recorded(NamedTuple):
    """What acting records; each `[B, ...]`."""

    raw_action: jax.Array
    log_prob: jax.Array
    value: jax.Array


def recurrent_network(env, num_units=8, hidden=()):
    return jaxrl.networks.recurrent_policy(
        env.observation_space, env.action_space, value=True, hidden=hidden, num_units=num_units
    )


def recurrent_actor_critic(network, action_space, *, optimizer=optimizers.adam) -> Agent:
    """Advantage actor-critic on a recurrent network, one gradient step an iteration: the smallest agent with a carry."""
    head = policy_head(action_space)

    def init(key, obs, hparams):
        params = network.init(key, obs, network.initial_carry(jax.tree.leaves(obs)[0].shape[0]))
        return RecurrentState(params, optimizer(hparams.learning_rate).init(params))

    def explore(params, obs, carry, noise_t, hparams, iteration):
        (policy, value), carry = network.apply(params, obs, carry)
        raw_action = head.sample(policy, noise_t)
        return head.to_action(raw_action), carry, Recorded(raw_action, head.log_prob(policy, raw_action), value)

    def exploit(params, obs, carry, key):
        (policy, _), carry = network.apply(params, obs, carry)
        return head.to_action(head.mode(policy)), carry

    def update(state, rollout, noise, hparams, iteration):
        first = jax.tree.map(lambda x: x[0], rollout.carry)
        done = rollout.terminated | rollout.truncated

        def loss(params):
            (policy, value), carries = unroll_network(network, params, rollout.obs, first, done)
            _, next_value = successor_outputs(network, params, rollout.next_obs, carries)
            advantage, target = jax.lax.stop_gradient(
                transitions.advantages(rollout, value, next_value, hparams.discount, hparams.gae_lambda)
            )
            log_prob = head.log_prob(policy, rollout.extras.raw_action)
            policy_loss = jnp.mean(losses.policy_gradient(log_prob, advantage))
            value_loss = jnp.mean(jnp.square(value - target))
            entropy = jnp.mean(head.entropy(policy, rollout.extras.raw_action))
            total = policy_loss + hparams.value_coef * value_loss - hparams.entropy_coef * entropy
            ratio_error = jnp.abs(jnp.exp(log_prob - rollout.extras.log_prob) - 1.0)
            return total, {"loss": total, "value_loss": value_loss, "entropy": entropy, "ratio_error": ratio_error}

        grads, metrics = jax.grad(loss, has_aux=True)(state.params)
        params, opt_state, _ = optimizers.optimizer_step(
            optimizer, hparams.learning_rate, iteration, grads, state.opt_state, state.params, max_grad_norm=hparams.max_grad_norm
        )
        return RecurrentState(params, opt_state), metrics

    return Agent(
        hparams=RecurrentHParams(),
        init=init,
        noise=lambda key, num_steps, num_envs: Noise(act=head.noise(key, (num_steps, num_envs))),
        policy=lambda state: state.params,
        explore=explore,
        exploit=exploit,
        update=update,
        initial_carry=network.initial_carry,
    )


def recurrent_learner(env=None, *, num_envs=4, rollout_length=8, num_units=8, **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    agent = recurrent_actor_critic(recurrent_network(env, num_units), env.action_space, **static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


LEARNERS = {
    "dqn": dqn_learner,
    "double dqn, huber, hard sync, rollouts": lambda: dqn_learner(
        double=True, loss="huber", target_update_period=3, updates_per_iteration=2, rollout_length=3
    ),
    "reinforce, continuing": lambda: reinforce_learner(mode="continuing", baseline="value", normalize_advantage=True),
    "reinforce, episodic": lambda: reinforce_learner(short_point_mass(), rollout_length=5),
    "reinforce, squashed": lambda: reinforce_learner(lopsided(), rollout_length=3, baseline="value", squash=True),
    "ppo": ppo_learner,
    "ppo, continuous": lambda: ppo_learner(lopsided(), normalize_advantage=False),
    "sac": functools.partial(sac_learner, updates_per_iteration=2),
    "td3": functools.partial(td3_learner, rollout_length=2, updates_per_iteration=4),
    "recurrent": recurrent_learner,
}


def plain(tree):
    """Leaves as NumPy arrays, keys as their words, so that trees can be compared."""

    def one(x):
        return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    return jax.tree.map(one, tree)
