"""Small environments with known answers, and the learners that several test files share."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxrl
from jaxrl.agents import SACHParams
from jaxrl.types import Box, Discrete, Environment, Step


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


def a2c_learner(env=None, *, num_envs=4, rollout_length=8, hidden=(16,), **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    network = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=hidden, value=True)
    agent = jaxrl.agents.a2c(network, env.action_space, **static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


def dqn_learner(env=None, *, num_envs=4, rollout_length=1, hidden=(16,), **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=hidden)
    static = {"warmup": 5, "capacity": 96, "batch_size": 16} | static
    return jaxrl.make_learner(
        env, jaxrl.agents.dqn(network, env.action_space, **static), num_envs=num_envs, rollout_length=rollout_length
    )


def distributional_learner(name="c51", env=None, *, num_envs=4, rollout_length=1, hidden=(16,), num_atoms=7, **static):
    """A learner of c51, qr_dqn, iqn or rainbow."""
    env = jaxrl.make("CartPole-v1") if env is None else env
    network = distributional_network(name, env, hidden=hidden, num_atoms=num_atoms)
    static = {"warmup": 5, "capacity": 96, "batch_size": 16} | static
    if name == "iqn":
        static = {"num_quantiles": 4, "num_policy_quantiles": num_atoms} | static
    agent = getattr(jaxrl.agents, name)(network, env.action_space, **static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


def distributional_network(name, env, *, hidden=(16,), num_atoms=7):
    spaces = env.observation_space, env.action_space
    if name == "iqn":
        return jaxrl.networks.implicit_quantile_network(*spaces, hidden=hidden, embedding_size=6)
    dueling, noisy = name == "rainbow", name == "rainbow"
    return jaxrl.networks.distributional_q_network(*spaces, hidden=hidden, num_atoms=num_atoms, dueling=dueling, noisy=noisy)


def reinforce_learner(env=None, *, num_envs=4, rollout_length=8, hidden=(16,), **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    value = static.get("baseline") == "value"
    network = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=hidden, value=value)
    agent = jaxrl.agents.reinforce(network, env.action_space, **static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


def openai_es_learner(env=None, *, num_envs=4, rollout_length=500, hidden=(16,), **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    network = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=hidden)
    agent = jaxrl.agents.openai_es(network, env.action_space, **static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


def ppo_learner(env=None, *, num_envs=4, rollout_length=8, hidden=(16,), **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    network = jaxrl.networks.policy(env.observation_space, env.action_space, hidden=hidden, value=True)
    agent = jaxrl.agents.ppo(network, env.action_space, **{"num_epochs": 2, "num_minibatches": 2} | static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


def pqn_learner(env=None, *, num_envs=4, rollout_length=8, hidden=(16,), layer_norm=True, **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=hidden, layer_norm=layer_norm)
    agent = jaxrl.agents.pqn(network, env.action_space, **{"num_epochs": 2, "num_minibatches": 2} | static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


def sac_learner(env=None, *, num_envs=4, rollout_length=1, hidden=(16,), network=(), **static):
    env = lopsided() if env is None else env
    network = jaxrl.networks.actor_critic(env.observation_space, env.action_space, hidden=hidden, **dict(network))
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


def recurrent_network(env, num_units=8, hidden=()):
    return jaxrl.networks.recurrent_policy(
        env.observation_space, env.action_space, value=True, hidden=hidden, num_units=num_units
    )


def recurrent_ppo_learner(env=None, *, num_envs=4, rollout_length=8, num_units=8, **static):
    env = jaxrl.make("CartPole-v1") if env is None else env
    static = {"num_epochs": 2, "num_minibatches": 2} | static
    agent = jaxrl.agents.recurrent_ppo(recurrent_network(env, num_units), env.action_space, **static)
    return jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=rollout_length)


LEARNERS = {
    "a2c": a2c_learner,
    "c51": functools.partial(distributional_learner, num_envs=8),
    "dqn": dqn_learner,
    "double dqn, huber, hard sync, rollouts": lambda: dqn_learner(
        double=True, loss="huber", target_update_period=3, updates_per_iteration=2, rollout_length=3
    ),
    "dqn, three steps, prioritized": lambda: dqn_learner(n_step=3, prioritized=True, updates_per_iteration=2, rollout_length=3),
    "dqn, munchausen": lambda: dqn_learner(munchausen=True),
    "recurrent ppo": functools.partial(recurrent_ppo_learner, num_epochs=5),
    "iqn": functools.partial(distributional_learner, "iqn"),
    "qr_dqn": functools.partial(distributional_learner, "qr_dqn", double=True),
    "rainbow": functools.partial(distributional_learner, "rainbow", updates_per_iteration=2),
    "openai_es": lambda: openai_es_learner(short_point_mass(), rollout_length=5),
    "reinforce, continuing": lambda: reinforce_learner(mode="continuing", baseline="value", normalize_advantage=True),
    "reinforce, episodic": lambda: reinforce_learner(short_point_mass(), rollout_length=5),
    "reinforce, squashed": lambda: reinforce_learner(lopsided(), rollout_length=3, baseline="value", squash=True),
    "ppo": ppo_learner,
    "ppo, normalised": lambda: ppo_learner(normalize_observations=True, normalize_rewards=True),
    "ppo, continuous": lambda: ppo_learner(lopsided(), normalize_advantage=False),
    "pqn": pqn_learner,
    "sac": functools.partial(sac_learner, updates_per_iteration=2),
    "sac, discrete": lambda: sac_learner(
        jaxrl.make("CartPole-v1"),
        rollout_length=2,
        noise_period=2,
        updates_per_iteration=2,
        hparams=SACHParams(learning_rate=0.01),
    ),
    "sac, dropout and batch renormalisation": lambda: sac_learner(
        target_network=False, network={"num_critics": 3, "layer_norm": True, "dropout": 0.1, "batch_renorm": True}
    ),
    "td3": functools.partial(td3_learner, rollout_length=2, updates_per_iteration=4),
}


def plain(tree):
    """Leaves as NumPy arrays, keys as their words, so that trees can be compared."""

    def one(x):
        return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    return jax.tree.map(one, tree)
