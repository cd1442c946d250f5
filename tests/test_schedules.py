"""Schedules against NumPy's interpolation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl.schedules import linear_schedule

LAST_ITERATION = 2**31 - 1

schedule = jax.jit(linear_schedule)


@settings(deadline=None, max_examples=25)
@given(
    ends=st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)),
    num_iterations=st.integers(1, 10**6),
    iteration=st.one_of(st.integers(0, 10**6), st.just(LAST_ITERATION)),
)
def test_it_interpolates_and_then_stays(ends, num_iterations, iteration):
    value = schedule(np.float32(ends[0]), np.float32(ends[1]), np.float32(num_iterations), jnp.int32(iteration))
    np.testing.assert_allclose(value, np.interp(iteration, [0, num_iterations], ends), atol=1e-6)
    assert value.dtype == jnp.float32
    assert min(ends) - 1e-6 <= value <= max(ends) + 1e-6


def test_it_is_exact_at_its_ends():
    iterations = (-3, 0, 1, 2, 3, 4, 5, LAST_ITERATION)
    values = [float(linear_schedule(1.0, 0.05, 4.0, jnp.int32(iteration))) for iteration in iterations]
    np.testing.assert_allclose(values, [1.0, 1.0, 0.7625, 0.525, 0.2875, 0.05, 0.05, 0.05], rtol=1e-6)
    assert float(linear_schedule(1e-3, 0.0, 4.0, jnp.int32(4))) == 0.0
    assert float(linear_schedule(1e8, 0.05, 4.0, jnp.int32(4))) == np.float32(0.05)


def test_the_iteration_may_be_a_python_int():
    value = linear_schedule(1.0, 0.5, 4, 2)
    assert (float(value), value.dtype) == (0.75, jnp.float32)


@pytest.mark.parametrize("iteration", [0, 1, 10**6, LAST_ITERATION])
def test_an_infinite_schedule_stays_at_its_start(iteration):
    assert schedule(0.3, 0.0, jnp.inf, jnp.int32(iteration)) == np.float32(0.3)


def test_a_schedule_of_no_iterations_is_a_step():
    assert [float(schedule(1.0, 0.25, 0.0, jnp.int32(iteration))) for iteration in (0, 1, 2)] == [1.0, 0.25, 0.25]


def test_every_argument_may_be_batched():
    starts, ends, lengths = np.float32([1.0, 0.5]), np.float32([0.0, 0.1]), np.float32([10.0, np.inf])
    values = jax.vmap(linear_schedule, (0, 0, 0, None))(starts, ends, lengths, jnp.int32(5))
    np.testing.assert_allclose(values, [0.5, 0.5], rtol=1e-6)
    values = jax.vmap(linear_schedule, (None, None, None, 0))(1.0, 0.0, 4.0, jnp.array([0, 1, 4], jnp.int32))
    np.testing.assert_allclose(values, [1.0, 0.75, 0.0], rtol=1e-6)


def test_it_takes_python_ints():
    assert linear_schedule(1, 0, 4, jnp.int32(1)) == 0.75
