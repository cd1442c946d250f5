"""Every agent on masks, observations in a Dict, MultiDiscrete actions and Boxes of any bounds, against known answers."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import replay
from jaxrl.envs.problems.probes import SPACE_PROBES
from jaxrl.types import Discrete
from tests.problems import (
    LOPSIDED,
    best_lopsided_action,
    dqn_learner,
    lopsided,
    ppo_learner,
    recurrent_ppo_learner,
    reinforce_learner,
)

NUM_SEEDS = 4
RETURNS = {"action mask": 1.5, "Dict observation": 1.25, "MultiDiscrete action": 1.25}  # of the optimal policy, on average


class Case(NamedTuple):
    learner: jaxrl.types.Learner
    hparams: jaxrl.types.HParams
    num_iterations: int


def punish(env):
    """Each negative reward of the mask's probe, which is that of an illegal action, in a size that no average can hide."""

    def step(key, state, action, params):
        state, after = env.step(key, state, action, params)
        return state, after._replace(reward=jnp.where(after.reward < 0, -1e6, after.reward))

    return env._replace(step=step)


def make_case(agent, env, discount):
    common = {"learning_rate": 0.02, "discount": discount}
    if agent == "dqn":
        learner = dqn_learner(env, num_envs=8, warmup=8, capacity=512, batch_size=32)
        return Case(
            learner, learner.agent.hparams._replace(**common, tau=0.1, epsilon_end=0.5, learning_rate_iterations=400.0), 400
        )
    if agent == "reinforce":
        learner = reinforce_learner(env, num_envs=16, rollout_length=4, mode="continuing", baseline="value")
        return Case(learner, learner.agent.hparams._replace(**common, entropy_coef=0.01), 300)
    if agent == "ppo":
        learner = ppo_learner(env, num_envs=16, rollout_length=4)
        return Case(learner, learner.agent.hparams._replace(**common), 150)
    learner = recurrent_ppo_learner(env, num_envs=16, rollout_length=4)
    return Case(learner, learner.agent.hparams._replace(**common), 300)


@functools.cache
def trained(agent, name):
    """The probe, the learner, final states, metrics of every iteration, and the returns of 200 episodes for each seed."""
    probe = SPACE_PROBES[name]()
    env = punish(probe.env) if name == "action mask" else probe.env
    learner, hparams, num_iterations = make_case(agent, env, probe.discount)

    def run(key):
        state, metrics = jaxrl.train(key, learner, num_iterations, hparams, log_every=1)
        return state, metrics, jaxrl.evaluate(jax.random.fold_in(key, 1), learner, state, num_episodes=200)

    return probe, learner, *jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), NUM_SEEDS))


AGENTS = ["dqn", "reinforce", "ppo", "recurrent"]
CASES = [(agent, name) for name in SPACE_PROBES for agent in AGENTS if (agent, name) != ("dqn", "MultiDiscrete action")]


def greedy_columns(learner, state, obs):
    """The column of `Probe.q` of the greedy action at each of the N observations, `[seeds, N]`."""
    num = jax.tree.leaves(obs)[0].shape[0]
    exploit = lambda agent: learner.agent.exploit(
        learner.agent.policy(agent), obs, learner.agent.initial_carry(num), jax.random.key(0)
    )
    action = np.asarray(jax.jit(jax.vmap(lambda agent: exploit(agent)[0]))(state.agent))
    space = learner.env.action_space
    return action if isinstance(space, Discrete) else np.ravel_multi_index(np.moveaxis(action, -1, 0), space.nvec)


@pytest.mark.parametrize(("agent", "name"), CASES)
def test_the_greedy_policy_is_optimal(agent, name):
    """In every seed, at every observation, though an action may tie with another; and so in 200 episodes of evaluation."""
    probe, learner, state, _, returns = trained(agent, name)
    obs, q = probe.obs, probe.q
    if agent == "recurrent" and name == "action mask":  # without the first, the second observation is none of the task
        obs, q = jax.tree.map(lambda x: x[:1], obs), q[:1]
    columns = greedy_columns(learner, state, jax.tree.map(jnp.asarray, obs))
    assert columns.shape == (NUM_SEEDS, len(q))
    np.testing.assert_array_equal(np.take_along_axis(q[None], columns[..., None], axis=2)[..., 0], [q.max(axis=1)] * NUM_SEEDS)
    error = 0.0 if name == "action mask" else 4.5 * 0.5 / np.sqrt(200)  # the others return from 1 to 2, or from 1 to 1.5
    np.testing.assert_allclose(np.mean(returns, axis=1), RETURNS[name], atol=error)


@pytest.mark.parametrize("agent", AGENTS)
def test_no_illegal_action_is_ever_taken(agent):
    """Neither at random, as the policies start, nor greedily, in the whole of training and in evaluation."""
    _, _, _, metrics, returns = trained(agent, "action mask")
    assert np.min(metrics["episodes"].sum(axis=1)) > 400
    finished = np.asarray(metrics["episodes"]) > 0
    assert np.min(np.asarray(metrics["episode_return"])[finished]) >= 0
    assert np.min(returns) >= 0
    assert len(np.unique(np.asarray(metrics["episode_return"])[finished])) > 3  # it explored


@pytest.mark.parametrize("name", ["action mask", "Dict observation"])
def test_action_values_are_those_of_the_probe(name):
    """Exactly −∞ for illegal actions; a bootstrap from these would lift 1.25 to 2."""
    probe, learner, state, *_ = trained("dqn", name)
    network = jaxrl.networks.q_network(learner.env.observation_space, learner.env.action_space, hidden=(16,))
    q = jax.jit(jax.vmap(lambda params: network.apply(params, probe.obs)))(state.agent.params)
    np.testing.assert_array_equal(np.isneginf(q), np.broadcast_to(np.isneginf(probe.q), q.shape))
    np.testing.assert_allclose(q, np.broadcast_to(probe.q, q.shape), atol=0.1)


@pytest.mark.parametrize("name", ["action mask", "Dict observation"])
def test_the_replay_returns_transitions_as_they_were(name):
    """Entries in their dtypes, and each transition one that the environment can make, warm-up included."""
    probe, learner, state, *_ = trained("dqn", name)
    rows = jax.jit(replay.take)(jax.tree.map(lambda x: x[0], state.agent.replay), jnp.arange(512))
    spaces = learner.env.observation_space
    for obs in (rows.obs, rows.next_obs):
        assert {key: (x.shape[1:], x.dtype) for key, x in obs.items()} == {key: (s.shape, s.dtype) for key, s in spaces.items()}
    equal = lambda x, y: (np.asarray(x)[None] == y[:, None]).reshape(len(y), 512, -1).all(axis=2)
    seen = np.logical_and.reduce(jax.tree.leaves(jax.tree.map(equal, rows.obs, probe.obs)))  # [N, 512]
    np.testing.assert_array_equal(seen.sum(axis=0), 1)
    assert seen.any(axis=1).all()
    immediate = np.array([[1.0, 0.0, -np.inf], [-np.inf, 0.0, 0.5]]) if name == "action mask" else probe.q
    np.testing.assert_allclose(rows.reward, immediate[seen.argmax(axis=0), rows.action])
    np.testing.assert_array_equal(rows.terminated, (seen.argmax(axis=0) == 1) if name == "action mask" else True)


def test_dqn_refuses_multi_discrete_actions():
    env = SPACE_PROBES["MultiDiscrete action"]().env
    network = jaxrl.networks.q_network(env.observation_space, Discrete(6))
    with pytest.raises(ValueError, match=r"dqn needs a Discrete action space, got MultiDiscrete\(2, 3\)"):
        jaxrl.agents.dqn(network, env.action_space)


# --- a Box with bounds of its own in each dimension

BOXES = {
    "reinforce": lambda: reinforce_learner(lopsided(), num_envs=32, rollout_length=3, hidden=()),
    "reinforce, squashed": lambda: reinforce_learner(lopsided(), num_envs=32, rollout_length=3, hidden=(), squash=True),
    "ppo": lambda: ppo_learner(lopsided(), num_envs=32, rollout_length=3, hidden=()),
    "ppo, squashed": lambda: ppo_learner(lopsided(), num_envs=32, rollout_length=3, hidden=(), squash=True),
    "recurrent": lambda: recurrent_ppo_learner(lopsided(), num_envs=32, rollout_length=3),
}


@pytest.mark.parametrize("name", BOXES)
def test_the_best_action_is_learned_in_every_dimension_and_no_action_leaves_the_box(name):
    """Within 7 % of each width, where the best actions range over 60 % and 50 % of them."""
    learner = BOXES[name]()
    hparams = learner.agent.hparams._replace(learning_rate=0.01, discount=0.0)

    def run(key):
        state, metrics = jaxrl.train(key, learner, 400, hparams, log_every=1)
        obs = jnp.linspace(-0.9, 0.9, 7)[:, None]
        carry = learner.agent.initial_carry(7)
        action, _ = learner.agent.exploit(learner.agent.policy(state.agent), obs, carry, jax.random.key(0))
        return action, metrics["episode_return"]

    action, returns = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 2))
    assert np.nanmin(returns) > -20  # an action outside costs a million
    best = best_lopsided_action(np.linspace(-0.9, 0.9, 7, dtype=np.float32)[:, None])
    error = np.abs(np.asarray(action) - best) / (LOPSIDED.high - LOPSIDED.low)
    assert np.max(error) < 0.07, np.max(error, axis=(0, 1))
