"""XLand-MiniGrid's environments against its own, step by step."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from tests.envs.suites.common import assert_contained, assert_same, check_types, play_beside, reinforce, returns_before_and_after

xminigrid = pytest.importorskip("xminigrid")


@pytest.mark.parametrize("name", ["MiniGrid-EmptyRandom-5x5", "MiniGrid-DoorKey-5x5", "XLand-MiniGrid-R1-9x9"])
def test_steps_equal_xminigrids(name):
    limit = 30
    env = jaxrl.make(f"xminigrid/{name}", max_steps_in_episode=limit)
    check_types(env)
    assert env.observation_space.dtype == np.uint8
    theirs, params = xminigrid.make(name, max_steps=limit)

    def step(key, state, action):
        after = theirs.step(params, state.inner, action)
        return after.observation, after.reward, after.discount == 0, after.last() & (after.discount == 1)

    ours, their, fresh = play_beside(env, step)
    assert_same((*ours[:3], ours[3] & ~ours[2]), their)
    assert ours[3].any()
    assert ours[2].any() or name != "MiniGrid-EmptyRandom-5x5"
    assert_contained(env, ours[0])
    assert_contained(env, fresh)


def test_the_reward_follows_a_replaced_time_limit():
    """What is left of the time is in the reward, so it must not be of the limit that the environment was made with."""
    env = jaxrl.make("xminigrid/MiniGrid-Empty-5x5")
    env = env._replace(params=env.params._replace(max_steps_in_episode=jnp.int32(10)))
    theirs, params = xminigrid.make("MiniGrid-Empty-5x5", max_steps=10)

    def step(key, state, action):
        after = theirs.step(params, state.inner, action)
        return after.observation, after.reward, after.discount == 0, after.last() & (after.discount == 1)

    ours, their, _ = play_beside(env, step, num_envs=16)
    assert_same((*ours[:3], ours[3] & ~ours[2]), their)
    assert (ours[1] > 0).any()


def test_wrong_names_and_parameters_are_refused():
    with pytest.raises(
        ValueError, match=r"unknown environment 'xminigrid/MiniGrid-Empty'; did you mean xminigrid/MiniGrid-Empty"
    ):
        jaxrl.make("xminigrid/MiniGrid-Empty")
    with pytest.raises(ValueError, match=r"has no parameter size; it has height, width"):
        jaxrl.make("xminigrid/MiniGrid-Empty-5x5", size=3)


def test_reinforce_learns_the_way_to_the_goal():
    env = jaxrl.make("xminigrid/MiniGrid-Empty-5x5", max_steps_in_episode=40)
    learner = reinforce(env, rollout_length=40, mode="continuing", baseline="value", normalize_advantage=True)
    before, after = returns_before_and_after(learner, 100, learning_rate=3e-3, entropy_coef=0.01)
    assert (after > before + 0.2).all()
    assert after.min() > 0.7
