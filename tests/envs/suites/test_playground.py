"""MuJoCo Playground's environments against its own wrapper for training, step by step."""

import pytest

import jaxrl
from jaxrl.envs.suites.adapter import lenient
from tests.envs.suites.common import (
    assert_same,
    beside_episode_wrapper,
    check_types,
    play_beside,
    reinforce,
    returns_before_and_after,
)

registry = pytest.importorskip("mujoco_playground").registry
training = pytest.importorskip("brax.envs.wrappers.training")
LIMIT = 30


def test_steps_equal_playgrounds():
    env = jaxrl.make("playground/CartpoleBalance", max_steps_in_episode=LIMIT)
    check_types(env)
    with lenient():
        theirs = training.EpisodeWrapper(registry.load("CartpoleBalance", config_overrides={"impl": "jax"}), LIMIT, 1)
    ours, their, _ = play_beside(env, beside_episode_wrapper(theirs))
    assert_same(ours, their, rtol=1e-4, atol=1e-4)
    assert ours[3].any()


def test_the_time_limit_is_the_configurations_own_and_names_are_checked():
    assert jaxrl.make("playground/CartpoleBalance").params.max_steps_in_episode == 1_000
    with pytest.raises(ValueError, match="unknown environment 'playground/Cartpole'; did you mean playground/Cartpole"):
        jaxrl.make("playground/Cartpole")


def test_reinforce_balances_better_than_at_random():
    """A step gives at most 1: what random actions miss of that is at least halved."""
    limit = 100
    env = jaxrl.make("playground/CartpoleBalance", max_steps_in_episode=limit)
    learner = reinforce(env, rollout_length=limit, mode="episodic", baseline="mean", normalize_advantage=True)
    before, after = returns_before_and_after(learner, 50, learning_rate=1e-2)
    assert (limit - after < 0.5 * (limit - before)).all()
