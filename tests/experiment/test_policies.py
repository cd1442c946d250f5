"""A saved policy plays as the run that it comes from would: with what outlives an episode, and without anything that learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import wrappers
from jaxrl.experiment import Config, folder, load_policies, run
from jaxrl.experiment.policies import abstract_policies, evaluate_policies, policy_of, restored_env_state
from jaxrl.presets import DEFAULTS, override
from jaxrl.rollout import evaluate_policy
from tests.problems import dqn_learner, ppo_learner, short_point_mass


def with_key(env):
    """The environment with a PRNG key in its state, which neither NumPy nor a checkpoint of arrays can hold."""

    def reset(key, params):
        reset_key, state_key = jax.random.split(key)
        state, obs = env.reset(reset_key, params)
        return (state, state_key), obs

    def step(key, state, action, params):
        inner, after = env.step(key, state[0], action, params)
        return (inner, jax.random.fold_in(state[1], 0)), after

    def carry_over(old, fresh, obs):
        inner, obs = env.carry_over(old[0], fresh[0], obs)
        return (inner, old[1]), obs

    return env._replace(reset=reset, step=step, carry_over=carry_over)


@pytest.fixture(scope="module")
def normalized():
    """A learner with running statistics of its observations, and its state after some training."""
    learner = ppo_learner(with_key(wrappers.normalize_observations(short_point_mass())))
    state, _ = jax.jit(lambda key: jaxrl.train(key, learner, 5))(jax.random.key(0))
    return learner, state


def test_a_policy_plays_with_the_statistics_of_its_training(normalized):
    learner, state = normalized
    policy = jax.tree.map(np.asarray, policy_of(learner, state))  # as a file gives it back
    env_state = restored_env_state(learner, policy)
    play = lambda env_state: evaluate_policy(
        jax.random.key(1), learner.env, learner.agent, policy.params, num_episodes=6, env_state=env_state
    )
    np.testing.assert_array_equal(play(env_state), jaxrl.evaluate(jax.random.key(1), learner, state, num_episodes=6))
    assert not np.array_equal(play(env_state), play(None))


def test_a_policy_holds_nothing_that_learns():
    learner = dqn_learner()
    state = learner.init(jax.random.key(0), jax.tree.map(jnp.float32, learner.agent.hparams))
    policy = policy_of(learner, state)
    assert jax.tree.structure(policy.params) == jax.tree.structure(state.agent.params)
    assert jax.tree.leaves(policy.env_state) == []


def test_a_run_folder_keeps_the_statistics(tmp_path):
    settings = override(DEFAULTS["reinforce"], steps=2_000, num_envs=4, rollout_length=50, network={"hidden": (4,)})
    config = Config(env="PointMass", settings=settings, seeds=2, wrappers=("normalize_observations",))
    result = run(config, tmp_path / "run")
    saved = load_policies(tmp_path / "run", abstract_policies(config))
    jax.tree.map(np.testing.assert_array_equal, saved, result.policies)
    assert jax.tree.leaves(saved.env_state)
    again = evaluate_policies(config, saved, num_episodes=32)
    np.testing.assert_array_equal(again, result.evaluation_returns)
    assert (tmp_path / "run" / folder.POLICIES).is_dir()
