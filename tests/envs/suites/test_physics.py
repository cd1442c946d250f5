"""gymnax's classic control against Gymnasium's own physics, from the same states and actions."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.types import Discrete

# The fields of gymnax's state, in the order of Gymnasium's, and half the width of the states to try. Acrobot's velocities may
# be twice as large, but its integrator then magnifies float32's rounding a thousandfold.
STATES = {
    "CartPole-v1": {"x": 2.3, "x_dot": 3.0, "theta": 0.2, "theta_dot": 3.0},
    "Acrobot-v1": {"joint_angle1": 3.1, "joint_angle2": 3.1, "velocity_1": 6.0, "velocity_2": 12.0},
    "MountainCar-v0": {"position": 1.2, "velocity": 0.07},
    "MountainCarContinuous-v0": {"position": 1.2, "velocity": 0.07},
    "Pendulum-v1": {"theta": 9.0, "theta_dot": 8.0},
}
NUM = 400


def draw(name, env, rng):
    """States `[NUM, n]`, within the bounds where an episode may go on, and actions, also beyond their bounds."""
    high = np.array([*STATES[name].values()])
    states = rng.uniform(-high, high, (NUM, len(high)))
    if name.startswith("MountainCar"):
        anywhere, at_the_wall, at_the_goal = (-1.2, 0.44), (-1.2, -1.15), (0.4, 0.44)
        places = (anywhere, anywhere, at_the_wall, at_the_goal)
        states[:, 0] = np.concatenate([rng.uniform(*place, NUM // 4) for place in places])
    if isinstance(env.action_space, Discrete):
        return states.astype(np.float32), rng.integers(0, env.action_space.n, NUM)
    return states.astype(np.float32), rng.uniform(-3, 3, (NUM, 1)).astype(np.float32)


def by_jaxrl(env, fields, states, actions):
    state, _ = jax.eval_shape(env.reset, jax.random.key(0), env.params)
    state = jax.tree.map(lambda x: jnp.zeros((len(states), *x.shape), x.dtype), state)
    state = state.replace(**{field: jnp.asarray(states[:, i]) for i, field in enumerate(fields)})
    keys = jax.random.split(jax.random.key(0), len(states))
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    return jax.tree.map(np.asarray, step(keys, state, jnp.asarray(actions), env.params)[1])


def by_gymnasium(env, states, actions):
    obs, reward, terminated = [], [], []
    for state, action in zip(states, actions, strict=True):
        env.reset(seed=0)
        env.state = state.astype(np.float64)
        out = env.step(action)
        obs.append(np.array(out[0]))
        reward.append(out[1])
        terminated.append(out[2])
    return np.stack(obs), np.array(reward), np.array(terminated)


def of_rounding(env, states, actions, obs):
    """How far Gymnasium's own observations `[NUM, n]` move where its state moves by four roundings of float32.

    Acrobot chains four evaluations of stiff equations at high speeds: what is rounded first is far off in the end.
    """
    rng, moved = np.random.default_rng(1), np.zeros_like(obs)
    for _ in range(8):
        near = states.astype(np.float64) * (1 + 4 * 2.0**-24 * rng.choice([-1, 1], states.shape))
        moved = np.maximum(moved, np.abs(by_gymnasium(env, near, actions)[0].astype(np.float64) - obs))
    return moved


@pytest.mark.parametrize("name", STATES)
def test_a_step_is_gymnasiums(name):
    """Observation, reward and termination, to float32 rounding, but for the one difference that the docs list."""
    env = jaxrl.make(name)
    states, actions = draw(name, env, np.random.default_rng(0))
    own = by_jaxrl(env, STATES[name], states, actions)
    obs, reward, terminated = by_gymnasium(gymnasium.make(name).unwrapped, states, actions)
    if name == "MountainCarContinuous-v0":
        # At the left wall gymnax lets the car keep its speed towards the wall; Gymnasium stops it.
        wall = own.obs[:, 0] == np.float32(-1.2)
        assert np.all(obs[wall, 1] == 0)
        assert 10 < np.sum(own.obs[wall, 1] < 0) == np.sum(wall)
        own = own._replace(obs=np.where(wall[:, None], obs, own.obs))
    np.testing.assert_allclose(own.obs, obs, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(own.reward, reward, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(own.terminated, terminated)
    assert not np.any(own.truncated)
    assert np.any(terminated) or name == "Pendulum-v1"


def test_a_cart_pole_of_other_masses_and_length_is_gymnasiums():
    """Gymnasium computes what follows from them; gymnax's own parameters would go stale."""
    changes = {"masscart": 0.7, "masspole": 0.3, "length": 1.2}
    env, theirs = jaxrl.make("CartPole-v1", **changes), gymnasium.make("CartPole-v1").unwrapped
    for key, value in changes.items():
        setattr(theirs, key, value)
    theirs.total_mass = theirs.masscart + theirs.masspole
    theirs.polemass_length = theirs.masspole * theirs.length
    states, actions = draw("CartPole-v1", env, np.random.default_rng(1))
    own = by_jaxrl(env, STATES["CartPole-v1"], states, actions)
    np.testing.assert_allclose(own.obs, by_gymnasium(theirs, states, actions)[0], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", STATES)
def test_spaces_limits_and_starts_are_gymnasiums(name):
    env, theirs = jaxrl.make(name), gymnasium.make(name)
    assert env.params.max_steps_in_episode == theirs.spec.max_episode_steps
    spaces = [(env.observation_space, theirs.observation_space)]
    if isinstance(env.action_space, Discrete):
        assert env.action_space.n == theirs.action_space.n
    else:
        spaces.append((env.action_space, theirs.action_space))
    for own, their in spaces:
        np.testing.assert_array_equal(own.low, their.low)
        np.testing.assert_array_equal(own.high, their.high)
        assert (own.shape, own.dtype) == (their.shape, their.dtype)
    starts = np.asarray(jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), NUM), env.params)[1])
    their_starts = np.stack([theirs.reset(seed=seed)[0] for seed in range(NUM)])
    # Both are uniform: the extremes of 400 draws miss the ends of the range by 1 / 20 of it with probability 1e-9.
    width = np.ptp(their_starts, axis=0)
    for extreme in (np.min, np.max):
        assert np.all(np.abs(extreme(starts, 0) - extreme(their_starts, 0)) <= 0.05 * width)
