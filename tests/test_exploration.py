"""Schedules against NumPy's interpolation; ε-greedy against its definition and the binomial distribution."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.exploration import epsilon_greedy, epsilon_greedy_noise, linear_schedule

ONE_IN_A_MILLION = 1e-6
LAST_CLOCK = 2**31 - 1

schedule = jax.jit(linear_schedule)
few_examples = settings(deadline=None, max_examples=25)


@few_examples
@given(
    ends=st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)),
    iterations=st.integers(1, 10**6),
    clock=st.one_of(st.integers(0, 10**6), st.just(LAST_CLOCK)),
)
def test_the_schedule_interpolates_and_then_stays(ends, iterations, clock):
    value = schedule(np.float32(ends[0]), np.float32(ends[1]), np.float32(iterations), jnp.int32(clock))
    np.testing.assert_allclose(value, np.interp(clock, [0, iterations], ends), atol=1e-6)
    assert value.dtype == jnp.float32
    assert min(ends) - 1e-6 <= value <= max(ends) + 1e-6


def test_the_schedule_meets_its_ends():
    values = [float(linear_schedule(1.0, 0.05, 4.0, jnp.int32(clock))) for clock in (-3, 0, 1, 2, 3, 4, 5, LAST_CLOCK)]
    np.testing.assert_allclose(values, [1.0, 1.0, 0.7625, 0.525, 0.2875, 0.05, 0.05, 0.05], rtol=1e-6)
    assert float(linear_schedule(1e-3, 0.0, 4.0, jnp.int32(4))) == 0.0
    assert float(linear_schedule(1e8, 0.05, 4.0, jnp.int32(4))) == np.float32(0.05)


@pytest.mark.parametrize("clock", [0, 1, 10**6, LAST_CLOCK])
def test_an_infinite_schedule_stays_at_its_start(clock):
    assert schedule(0.3, 0.0, jnp.inf, jnp.int32(clock)) == np.float32(0.3)


def test_a_schedule_of_no_iterations_is_a_step():
    assert [float(schedule(1.0, 0.25, 0.0, jnp.int32(clock))) for clock in (0, 1, 2)] == [1.0, 0.25, 0.25]


def test_a_schedule_may_be_batched_in_every_argument():
    starts, ends, iterations = np.float32([1.0, 0.5]), np.float32([0.0, 0.1]), np.float32([10.0, np.inf])
    values = jax.vmap(linear_schedule, (0, 0, 0, None))(starts, ends, iterations, jnp.int32(5))
    np.testing.assert_allclose(values, [0.5, 0.5], rtol=1e-6)


def test_a_schedule_takes_python_ints():
    assert linear_schedule(1, 0, 4, jnp.int32(1)) == 0.75


# --- ε-greedy

NUM_STEPS, NUM_ENVS, NUM_ACTIONS = 500, 64, 5


@partial(jax.jit, static_argnums=1)
def actions_and_noise(epsilon, shape=(NUM_STEPS, NUM_ENVS), seed=0):
    """The greedy action is everywhere the last one."""
    noise = epsilon_greedy_noise(jax.random.key(seed), shape, NUM_ACTIONS)
    q = jnp.broadcast_to(jnp.arange(NUM_ACTIONS, dtype=jnp.float32), (*shape, NUM_ACTIONS))
    return epsilon_greedy(q, noise, epsilon), noise


def assert_uniform(actions):
    """Pearson's chi-square test, at a level that a uniform draw fails for one key in a million."""
    counts, expected = np.bincount(np.ravel(actions), minlength=NUM_ACTIONS), actions.size / NUM_ACTIONS
    assert len(counts) == NUM_ACTIONS
    assert np.sum((counts - expected) ** 2) / expected < scipy.stats.chi2.isf(ONE_IN_A_MILLION, NUM_ACTIONS - 1)


def test_epsilon_zero_is_greedy():
    actions, _ = actions_and_noise(0.0)
    np.testing.assert_array_equal(actions, np.full((NUM_STEPS, NUM_ENVS), NUM_ACTIONS - 1))


def test_epsilon_one_is_uniformly_random():
    actions, (_, random_actions) = actions_and_noise(1.0)
    np.testing.assert_array_equal(actions, random_actions)
    assert_uniform(actions)


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 0.9])
def test_epsilon_is_the_share_of_random_actions(epsilon):
    actions, _ = actions_and_noise(epsilon)
    others = actions[actions != NUM_ACTIONS - 1]
    # One random action in NUM_ACTIONS happens to be the greedy one.
    share = epsilon * (NUM_ACTIONS - 1) / NUM_ACTIONS
    low, high = scipy.stats.binom(actions.size, share).interval(1 - ONE_IN_A_MILLION)
    assert low <= others.size <= high
    counts = np.bincount(others, minlength=NUM_ACTIONS - 1)
    statistic = np.sum((counts - counts.mean()) ** 2) / counts.mean()
    assert statistic < scipy.stats.chi2.isf(ONE_IN_A_MILLION, NUM_ACTIONS - 2)


def test_every_environment_has_its_own_draw():
    """If all explored together, the number that does would be 0 or all of them, not binomial."""
    _, (uniform, random_actions) = actions_and_noise(0.5)
    explores = np.asarray(uniform) < 0.5
    for exploring in (explores.sum(axis=1), explores.sum(axis=0)):  # over environments, then over steps
        size = explores.size // exploring.size
        low, high = scipy.stats.binom(size, 0.5).interval(1 - ONE_IN_A_MILLION / exploring.size)
        assert (low <= exploring).all()
        assert (exploring <= high).all()
    assert np.unique(uniform).size > 0.99 * uniform.size
    # Nor do two neighbours pick the same random action more often than by chance.
    random_actions = np.asarray(random_actions)
    same = np.sum(random_actions[:, 1:] == random_actions[:, :-1])
    low, high = scipy.stats.binom(NUM_STEPS * (NUM_ENVS - 1), 1 / NUM_ACTIONS).interval(1 - ONE_IN_A_MILLION)
    assert low <= same <= high


def test_the_random_action_does_not_depend_on_the_decision_to_explore():
    _, (uniform, random_actions) = actions_and_noise(0.5)
    assert_uniform(random_actions[uniform < 0.1])


@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
def test_actions_have_the_shape_of_the_batch(shape):
    actions, _ = actions_and_noise(0.5, shape)
    assert actions.shape == shape
    assert actions.dtype == jnp.int32


def test_epsilon_may_be_batched():
    q, noise = jnp.array([0.0, 1.0]), (jnp.float32(0.4), jnp.int32(0))
    assert jax.vmap(epsilon_greedy, (None, None, 0))(q, noise, jnp.float32([0.3, 0.5])).tolist() == [1, 0]
