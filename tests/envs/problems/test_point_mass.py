"""The point mass against a loop in NumPy, and the best return that it allows."""

import importlib.util
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.envs.problems.point_mass import State, point_mass
from jaxrl.types import Box

ONE_IN_A_MILLION = 1e-6
few_examples = settings(deadline=None, max_examples=25)


def play_loop(start, actions, transition, control, max_action):
    """States after, and rewards of, each step: s' = A s + B a, and −‖s‖ − ‖a‖ for what was executed in s."""
    s = np.asarray(start, np.float64)
    states, rewards = [], []
    for a in np.asarray(actions, np.float64):
        executed = np.array([min(max(x, -max_action), max_action) for x in a])
        rewards.append(-np.sqrt(np.sum(s**2)) - np.sqrt(np.sum(executed**2)))
        s = np.array([sum(row * s) for row in transition]) + np.array([sum(row * executed) for row in control])
        states.append(s)
    return np.array(states), np.array(rewards)


def play(env, start, actions, params=None):
    """The last state and all steps from `start`; the leaves of these are `[T, ...]`."""
    keys = jax.random.split(jax.random.key(0), len(actions))

    def step(state, inputs):
        return env.step(inputs[0], state, inputs[1], env.params if params is None else params)

    state = State(jnp.asarray(start, jnp.float32), jnp.int32(0))
    return jax.lax.scan(step, state, (keys, jnp.asarray(actions, jnp.float32)))


WIDE = {  # more states than actions, nothing symmetric
    "transition": np.array([[0.9, 0.2, 0.0], [-0.1, 1.0, 0.3], [0.0, 0.0, 0.8]]),
    "control": np.array([[0.5, 0.0], [0.1, -0.3], [0.0, 0.7]]),
}
ENVS = {
    "default": point_mass(),
    "more states": point_mass(3, 2, max_action=0.5, **WIDE),
    "more actions": point_mass(1, 3, control=np.array([[0.1, 0.2, -0.4]])),
}
PLAY = {name: jax.jit(partial(play, env)) for name, env in ENVS.items()}


@pytest.mark.parametrize("name", ENVS)
@few_examples
@given(seed=st.integers(0, 2**32 - 1))
def test_dynamics_and_rewards(name, seed):
    env, rng = ENVS[name], np.random.default_rng(seed)
    start = rng.uniform(-1, 1, env.observation_space.shape).astype(np.float32)
    actions = rng.normal(size=(10, *env.action_space.shape)).astype(np.float32)  # a third of them outside ±1
    state, steps = PLAY[name](start, actions)
    states, rewards = play_loop(start, actions, env.params.transition, env.params.control, env.params.max_action)
    np.testing.assert_allclose(steps.obs, states, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(steps.reward, rewards, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(state.position, steps.obs[-1])
    assert steps.reward.dtype == steps.obs.dtype == jnp.float32


def test_the_default_matrices():
    env = point_mass(2)
    np.testing.assert_array_equal(env.params.transition, np.eye(2))
    np.testing.assert_allclose(env.params.control, 0.1 * np.eye(2))
    np.testing.assert_allclose(point_mass(3, 2).params.control, [[0.1, 0], [0, 0.1], [0, 0]])
    np.testing.assert_allclose(point_mass(2, 3).params.control, [[0.1, 0, 0], [0, 0.1, 0]])


def test_actions_are_clipped_before_they_are_executed_and_paid_for():
    env = point_mass(2, max_action=0.5)
    _, steps = play(env, [0.0, 0.0], [[3.0, -0.25]])
    np.testing.assert_allclose(steps.obs[0], [0.05, -0.025], rtol=1e-6)
    np.testing.assert_allclose(steps.reward[0], -np.hypot(0.5, 0.25), rtol=1e-6)


def test_the_reward_is_of_the_state_acted_in():
    _, steps = play(point_mass(1), [0.25], [[1.0], [0.0]])
    np.testing.assert_allclose(steps.reward, [-1.25, -0.35], rtol=1e-6)


@pytest.mark.parametrize("limit", [1, 4])
def test_the_time_limit_truncates_and_nothing_terminates(limit):
    _, steps = play(point_mass(max_steps_in_episode=limit), [0.0, 0.0], np.zeros((limit, 2)))
    assert steps.truncated.tolist() == [False] * (limit - 1) + [True]
    assert not steps.terminated.any()


def test_the_time_limit_may_be_batched():
    env = point_mass()

    def truncated(limit):
        return play(env, [0.0, 0.0], np.zeros((4, 2)), env.params._replace(max_steps_in_episode=limit))[1].truncated

    assert jax.vmap(truncated)(jnp.int32([2, 4])).argmax(axis=1).tolist() == [1, 3]


@pytest.mark.parametrize("noise_scale", [0.0, 0.3])
def test_noise_is_normal_of_its_scale_in_every_component(noise_scale):
    env = point_mass(2, noise_scale=noise_scale)
    state, action, num = State(jnp.float32([0.3, -0.2]), jnp.int32(0)), jnp.float32([0.5, 1.0]), 10_000
    step = jax.jit(jax.vmap(env.step, (0, None, None, None)))
    next_state, after = step(jax.random.split(jax.random.key(0), num), state, action, env.params)
    np.testing.assert_array_equal(next_state.position, after.obs)
    noise = np.asarray(after.obs, np.float64) - [0.35, -0.1]
    if noise_scale == 0:
        np.testing.assert_allclose(noise, np.zeros((num, 2)), atol=1e-6)
        return
    for component in noise.T:
        assert scipy.stats.kstest(component, scipy.stats.norm(0, noise_scale).cdf).pvalue > ONE_IN_A_MILLION
    limit = scipy.stats.norm.isf(ONE_IN_A_MILLION / 2) / np.sqrt(num)
    assert abs(np.corrcoef(noise.T)[0, 1]) < limit
    np.testing.assert_allclose(after.reward, -np.hypot(0.3, 0.2) - np.hypot(0.5, 1.0), rtol=1e-5)  # not of s'


def test_the_noise_scale_may_be_batched():
    env = point_mass()
    state, action = State(jnp.zeros(2, jnp.float32), jnp.int32(0)), jnp.zeros(2, jnp.float32)

    def after(noise_scale):
        return env.step(jax.random.key(0), state, action, env.params._replace(noise_scale=noise_scale))[1].obs

    obs = jax.vmap(after)(jnp.float32([0.0, 1.0, 2.0]))
    assert not obs[0].any()
    assert obs[1].all()
    np.testing.assert_allclose(obs[2], 2 * obs[1], rtol=1e-6)


def test_starts_are_uniform():
    env = point_mass(2, start_range=0.5)
    state, obs = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), 10_000), env.params)
    np.testing.assert_array_equal(state.position, obs)
    assert not state.time.any()
    assert state.time.dtype == jnp.int32
    for component in np.asarray(obs, np.float64).T:
        assert scipy.stats.kstest(component, scipy.stats.uniform(-0.5, 1.0).cdf).pvalue > ONE_IN_A_MILLION
    assert abs(np.corrcoef(obs.T)[0, 1]) < scipy.stats.norm.isf(ONE_IN_A_MILLION / 2) / np.sqrt(10_000)


def test_spaces():
    env = point_mass(3, 2, max_action=0.5)
    assert env.observation_space.shape == (3,)
    assert not env.observation_space.bounded
    assert isinstance(env.action_space, Box)
    assert env.action_space.shape == (2,)
    np.testing.assert_array_equal(env.action_space.low, [-0.5, -0.5])
    np.testing.assert_array_equal(env.action_space.high, [0.5, 0.5])
    assert point_mass(3).action_space.shape == (3,)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"n": 2.0}, TypeError, "n must be an int"),
        ({"m": -1}, ValueError, "m must be at least 1"),
        ({"m": True}, TypeError, "m must be an int"),
        ({"max_steps_in_episode": 0}, ValueError, "max_steps_in_episode must be at least 1"),
        ({"max_steps_in_episode": 50.0}, TypeError, "max_steps_in_episode must be an int"),
        ({"transition": np.eye(3)}, ValueError, r"transition must be \[2, 2\], got \[3, 3\]"),
        ({"transition": np.ones(2)}, ValueError, r"transition must be \[2, 2\], got \[2\]"),
        ({"m": 3, "control": np.ones((3, 2))}, ValueError, r"control must be \[2, 3\], got \[3, 2\]"),
        ({"noise_scale": -0.1}, ValueError, "noise_scale must be at least 0"),
        ({"noise_scale": float("nan")}, ValueError, "noise_scale must be at least 0"),
        ({"max_action": -1.0}, ValueError, "max_action must be at least 0"),
        ({"start_range": -1.0}, ValueError, "start_range must be at least 0"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        point_mass(**{"n": 2, **arguments})


# --- the optimum


@pytest.fixture(scope="module")
def optimum():
    path = Path(__file__).parents[3] / "scripts" / "point_mass_optimum.py"
    spec = importlib.util.spec_from_file_location("point_mass_optimum", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_on_an_axis_the_optimum_is_known(optimum):
    """From (k/10, 0), k full steps lead to rest: 1 + … + k tenths of distance, and k for the actions."""
    expected = 0.1 * (7 * 8 / 2) + 7
    actions, bound = optimum.solve(np.array([0.7, 0.0]))
    assert bound == pytest.approx(expected, abs=1e-3)
    assert optimum.cost(np.array([0.7, 0.0]), actions) == pytest.approx(expected, abs=3e-3)
    assert optimum.interpolate(optimum.dynamic_program(5), np.array([0.7, 0.0])) == pytest.approx(expected)


@pytest.mark.parametrize("start", [(-0.9, 0.3), (0.5, 0.46), (0.1, -0.02)])
def test_the_environment_pays_the_optimum_and_two_methods_agree_on_it(optimum, start):
    start = np.array(start)
    actions, bound = optimum.solve(start)
    _, steps = PLAY["default"](start.astype(np.float32), actions.astype(np.float32))
    paid = -np.sum(np.asarray(steps.reward, np.float64))
    assert steps.truncated.tolist() == [False] * 49 + [True]
    assert paid == pytest.approx(optimum.cost(start, actions), abs=1e-4)
    assert bound - 1e-4 < paid < bound + 3e-3
    grid = optimum.interpolate(optimum.dynamic_program(10), start)
    assert bound - 1e-4 < grid < bound + 0.01  # displacements of whole grid steps cost a little more


@pytest.mark.parametrize("seed", range(5))
def test_the_lower_bound_is_the_least_over_a_grid_of_actions(optimum, seed):
    """Replacing ‖s‖ by pull · s, of ‖pull‖ ≤ 1, leaves each step a minimum of its own: search for it."""
    rng = np.random.default_rng(seed)
    start = rng.uniform(-1, 1, 2)
    angle, length = rng.uniform(0, 2 * np.pi) + 0.05 * rng.normal(size=50).cumsum(), rng.uniform(0, 1, 50)
    pull = length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    actions = np.stack(np.meshgrid(*[np.linspace(-1, 1, 201)] * 2), axis=-1).reshape(-1, 2)
    least = 0.0
    for t in range(50):
        pull_by_action = 0.1 * pull[t + 1 :].sum(axis=0)  # this action moves every later state
        least += pull[t] @ start + np.min(np.linalg.norm(actions, axis=1) + actions @ pull_by_action)
    assert optimum.lower_bound(start, pull) == pytest.approx(least, abs=2e-3)


def test_the_mean_optimum(optimum):
    """The error of the grid falls with the square of its spacing: two grids extrapolate to the limit."""
    coarse, fine = (optimum.grid_mean(optimum.dynamic_program(levels)) for levels in (5, 10))
    assert fine + (fine - coarse) / 3 == pytest.approx(10.872, abs=2e-3)
