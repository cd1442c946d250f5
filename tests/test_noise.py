"""Noise that environments keep for several steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.noise import held
from jaxrl.types import Noise
from tests.problems import lopsided, ppo_learner


def draw(key, num_steps, num_envs):
    act_key, update_key = jax.random.split(key)
    return Noise({"a": jax.random.normal(act_key, (num_steps, num_envs, 2))}, jax.random.normal(update_key, (3,)))


def test_each_environment_keeps_its_noise_for_the_period():
    noise = held(draw, 3)(jax.random.key(0), 6, 4)
    values = np.asarray(noise.act["a"])
    assert values.shape == (6, 4, 2)
    np.testing.assert_array_equal(values, np.repeat(values[::3], 3, axis=0))
    assert len(np.unique(values)) == 2 * 4 * 2  # two periods of four environments
    np.testing.assert_array_equal(noise.update, draw(jax.random.key(0), 2, 4).update)


def test_a_period_of_one_step_changes_nothing():
    assert held(draw, 1) is draw


@pytest.mark.parametrize(("period", "error"), [(0, ValueError), (1.5, TypeError)])
def test_a_period_is_a_positive_int(period, error):
    with pytest.raises(error, match="noise_period"):
        held(draw, period)


def test_an_agent_with_the_option_acts_with_noise_that_lasts():
    """PPO's action minus its mean, in units of its standard deviation, is the same in both steps of a period."""
    learner = ppo_learner(lopsided(), noise_period=2, rollout_length=4)
    noise = learner.noise(jax.random.key(0)).rollout.act
    np.testing.assert_array_equal(noise[0::2], noise[1::2])
    assert not jnp.array_equal(noise[0], noise[2])
    with pytest.raises(ValueError, match="noise_period=3 must divide rollout_length=4"):
        ppo_learner(lopsided(), noise_period=3, rollout_length=4)
