"""gymnax's environments against gymnax itself."""

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers import FlattenObservationWrapper

import jaxrl
from jaxrl.envs.gymnax import from_gymnax, names

CHECKED = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "Catch-bsuite", "FourRooms-misc"]


def random_action(space, key):
    if isinstance(space, jaxrl.types.Discrete):
        return jax.random.randint(key, (), 0, space.n)
    return jax.random.uniform(key, space.shape, minval=space.low, maxval=space.high).astype(space.dtype)


@pytest.mark.parametrize("name", CHECKED)
def test_steps_equal_gymnax_step_by_step(name):
    """Rewards, flags and true successors over 300 random steps of 4 seeds, also where gymnax resets."""
    env = jaxrl.make(name)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        theirs, params = gymnax.make(name)

    def run(key):
        reset_key, run_key = jax.random.split(key)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            obs, state = theirs.reset_env(reset_key, params)
        own_state, own_obs = env.reset(reset_key, env.params)

        def step(state, key):
            action_key, step_key = jax.random.split(key)
            action = random_action(env.action_space, action_key)
            with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
                _, after, reward, terminated, truncated, info = theirs.step(step_key, state, action, params)
            inner_key, _ = jax.random.split(step_key)  # as gymnax does inside
            # Both step from gymnax's state: chaotic dynamics would magnify the last bit of the step before.
            own, out = env.step(inner_key, state, action, env.params)
            return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), after, own), (
                (out.reward, reward),
                (out.terminated, terminated),
                (out.truncated, truncated),
                (out.obs, info["final_observation"]),
            )

        state = jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype), state, own_state)
        return (own_obs, obs), jax.lax.scan(step, state, jax.random.split(run_key, 300))[1]

    first, pairs = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 4))
    for own, their in (first, *pairs):
        np.testing.assert_allclose(np.asarray(own, np.float64), np.asarray(their, np.float64), rtol=1e-5, atol=1e-5)
    assert np.any(pairs[1][0] | pairs[2][0]) or name in ("Acrobot-v1", "Pendulum-v1", "FourRooms-misc")


@pytest.mark.parametrize("name", names())
def test_every_environment_has_stable_types_and_spaces_of_ours(name):
    env = jaxrl.make(name)
    key = jax.random.key(0)
    state, obs = jax.eval_shape(env.reset, key, env.params)
    action = jax.eval_shape(lambda key: random_action(env.action_space, key), key)
    after, out = jax.eval_shape(env.step, key, state, action, env.params)
    for old, new in zip(jax.tree.leaves((state, obs)), jax.tree.leaves((after, out.obs)), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)
    assert (out.reward.shape, out.reward.dtype) == ((), jnp.float32)
    for flag in (out.terminated, out.truncated):
        assert (flag.shape, flag.dtype) == ((), jnp.bool_)
    assert env.observation_space.shape == obs.shape
    assert env.name == name


def test_the_time_limit_truncates_and_does_not_terminate():
    env = jaxrl.make("Pendulum-v1", max_steps_in_episode=3)
    state, _ = env.reset(jax.random.key(0), env.params)
    flags = []
    for t in range(3):
        state, out = env.step(jax.random.key(t), state, jnp.zeros(env.action_space.shape), env.params)
        flags.append((bool(out.terminated), bool(out.truncated)))
    assert flags == [(False, False), (False, False), (False, True)]


def test_overrides_are_parameters():
    assert jaxrl.make("CartPole-v1", gravity=5.0).params.gravity == 5.0


def test_wrong_names_and_parameters_are_refused():
    with pytest.raises(ValueError, match=r"unknown environment 'cartpole'; did you mean CartPole-v1"):
        jaxrl.make("cartpole")
    with pytest.raises(ValueError, match=r"unknown environment 'zzzz'; there are PointMass, CartPole-v1"):
        jaxrl.make("zzzz")
    with pytest.raises(ValueError, match="CartPole-v1 has no parameter lenght; it has"):
        jaxrl.make("CartPole-v1", lenght=1.0)


def test_a_wrapped_environment_is_refused_and_ours_is_named():
    with pytest.raises(
        TypeError, match=r"bare gymnax environment, got FlattenObservationWrapper.*jaxrl\.envs\.wrappers\.flatten"
    ):
        from_gymnax(FlattenObservationWrapper(gymnax.make("Catch-bsuite")[0]))
