"""Wrappers change what they say and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs.wrappers import flatten


def test_flatten_reshapes_observations_alone():
    env = jaxrl.make("Catch-bsuite")
    flat = flatten(env)
    key = jax.random.key(0)
    (state, obs), (flat_state, flat_obs) = env.reset(key, env.params), flat.reset(key, flat.params)
    np.testing.assert_array_equal(flat_obs, obs.ravel())
    _, after = env.step(key, state, jnp.int32(1), env.params)
    _, flat_after = flat.step(key, flat_state, jnp.int32(1), flat.params)
    np.testing.assert_array_equal(flat_after.obs, after.obs.ravel())
    assert flat_after[1:] == after[1:]
    assert flat.observation_space.shape == flat_obs.shape


def test_flatten_needs_a_box():
    env = jaxrl.make("CartPole-v1")
    with pytest.raises(ValueError, match="flatten needs observations in a Box"):
        flatten(env._replace(observation_space=jaxrl.types.Discrete(3)))
