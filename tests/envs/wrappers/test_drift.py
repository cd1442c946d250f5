"""Parameters that change during a run, and sets of levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import wrappers as w
from jaxrl.types import Box, Discrete, Environment, Step
from tests.envs.wrappers.problems import constant, first, random_rollout, walk
from tests.problems import reinforce_learner

# --- drift


def test_parameters_follow_the_schedule_across_episodes():
    """Step t of every environment has the parameter of time t, and so has the reset before it; episodes have 4 steps."""
    env = w.drift_params(constant(), w.linear_drift(10, value=(2.0, 7.0)))
    played = random_rollout(env, num_steps=16).transitions
    wanted = 2 + 0.5 * np.minimum(np.arange(17), 10)
    np.testing.assert_allclose(played.reward, np.tile(wanted[:16, None], (1, 3)), rtol=1e-6)
    begins = first(played)
    assert begins[:, 0].sum() == 4
    np.testing.assert_allclose(played.obs[begins][:, 0], np.repeat(wanted[:16:4], 3), rtol=1e-6)


def test_a_sudden_change_of_a_parameter_inside_a_wrapper():
    def schedule(time, params):
        return params._replace(env=params.env._replace(value=jnp.where(time < 6, 1.0, 5.0)))

    env = w.drift_params(w.time_limit(constant(), 3), schedule)
    assert env.params.max_steps_in_episode == 3
    rewards = random_rollout(env, num_steps=9).transitions.reward
    np.testing.assert_array_equal(rewards, np.tile(np.where(np.arange(9) < 6, 1.0, 5.0)[:, None], (1, 3)))
    named = w.drift_params(w.time_limit(constant(), 3), w.linear_drift(6, value=(1.0, 7.0)))
    np.testing.assert_allclose(
        random_rollout(named, num_steps=9).transitions.reward[:, 0], [1, 2, 3, 4, 5, 6, 7, 7, 7], rtol=1e-6
    )


def test_what_is_inside_carries_over():
    """Statistics of a wrapper inside continue across episodes."""
    env = w.drift_params(w.normalize_observations(walk()), lambda time, params: params)
    state = random_rollout(env, num_steps=16).env_state
    assert np.all(w.find_state(state, w.NormalizedObservations).statistics.num > 16)


def test_an_evaluation_plays_in_the_present():
    env = w.drift_params(constant(), w.linear_drift(10, value=(0.0, 10.0)))
    learner = reinforce_learner(env, num_envs=2, rollout_length=4)
    state, _ = jax.jit(lambda key: jaxrl.train(key, learner, 1))(jax.random.key(0))
    np.testing.assert_array_equal(state.env.time, [4, 4])
    evaluate = jax.jit(lambda state: jaxrl.evaluate(jax.random.key(1), learner, state, num_episodes=3))
    np.testing.assert_allclose(evaluate(state), 4 + 5 + 6 + 7, rtol=1e-6)


def test_the_start_of_an_episode_has_the_parameters_of_that_episode():
    """Inside of a randomisation, the nominal parameters are others in each episode."""
    env = w.drift_params(constant(), lambda time, params: params)
    env = w.randomize_params(env, w.uniform_params(value=(0.0, 1.0)))
    played = random_rollout(env, num_steps=16).transitions
    begins = first(played)
    assert len(np.unique(played.reward[begins])) == begins.sum() == 12
    np.testing.assert_allclose(played.obs[begins][:, 0], played.reward[begins], rtol=1e-6)


def test_a_wrong_drift_is_refused():
    with pytest.raises(ValueError, match=r"drift_params: schedule must return parameters like env\.params"):
        w.drift_params(constant(), lambda time, params: jnp.zeros(3))
    with pytest.raises(ValueError, match="linear_drift: there is no parameter weight; there are value"):
        w.drift_params(constant(), w.linear_drift(10, weight=(0.0, 1.0)))
    with pytest.raises(ValueError, match="linear_drift: there is no parameter weight; there are value"):
        w.linear_drift(10, weight=(0.0, 1.0))(jnp.int32(0), constant().params)
    with pytest.raises(TypeError, match=r"linear_drift: value must be two numbers, such as .*; got \(1,\)"):
        w.linear_drift(1, value=(1,))
    with pytest.raises(TypeError, match="drift_params: schedule must be a function, got 3"):
        w.drift_params(constant(), 3)
    with pytest.raises(ValueError, match="num_steps must be at least 1"):
        w.linear_drift(0, value=(0.0, 1.0))
    with pytest.raises(ValueError, match="value must lie in"):
        w.linear_drift(1, value=(0.0, np.inf))


# --- levels


def maze() -> Environment:
    """A level is a random number, which is shown all the time."""

    def reset(key, params):
        level = jax.random.uniform(key, (1,), minval=0.0, maxval=params)
        return level, level

    def step(key, level, action, params):
        return level, Step(level, jax.random.normal(key), jnp.bool_(True), jnp.bool_(False))

    return Environment(reset, step, np.float32(1.0), Box(0, 9, (1,)), Discrete(2), "maze")


def test_levels_are_the_resets_of_their_seeds():
    seeds = [3, 4_294_967_295, 17]
    env = w.over_levels(maze(), seeds)
    played = random_rollout(env, num_steps=50, num_envs=4).transitions
    levels = [float(maze().reset(jax.random.key(np.uint32(seed)), 1.0)[1][0]) for seed in seeds]
    shown, counts = np.unique(played.obs, return_counts=True)
    np.testing.assert_allclose(shown, np.sort(levels), rtol=1e-6)
    chance = 200 / 3
    assert np.all(np.abs(counts - chance) < 4.5 * np.sqrt(chance * 2 / 3))
    assert len(np.unique(played.reward)) == 200  # steps stay random
    assert not set(np.unique(random_rollout(w.over_levels(maze(), range(100, 110))).transitions.obs)) & set(shown)


def test_the_parameters_of_levels():
    env = w.over_levels(w.time_limit(walk(), 3), range(4))
    assert env.params.max_steps_in_episode == 3
    wide = w.randomize_params(w.over_levels(maze(), [5]), lambda key, params: params._replace(env=jnp.float32(9.0)))
    np.testing.assert_allclose(
        wide.reset(jax.random.key(0), wide.params)[1], 9 * maze().reset(jax.random.key(5), 1.0)[1], rtol=1e-6
    )


@pytest.mark.parametrize("seeds", [[], [0.5], [[1, 2]], 3, [-1], [2**32]])
def test_wrong_seeds_are_refused(seeds):
    with pytest.raises(ValueError, match="over_levels: seeds"):
        w.over_levels(maze(), seeds)
