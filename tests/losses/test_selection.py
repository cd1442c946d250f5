"""Choosing among action values: few actions are compared one by one, from 33 on an argmax and a gather are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl import losses
from jaxrl.losses import selection
from tests.losses.oracles import first_argmax

NUM_ACTIONS = [1, 3, 32, 33]
each_path = pytest.mark.parametrize("num_actions", [3, 33])
few_examples = settings(deadline=None, max_examples=25)
select = jax.jit(losses.select)
greedy = jax.jit(losses.greedy)
max_value = jax.jit(selection.max_value)


@st.composite
def values_and_index(draw):
    """Multiples of 1/4, so that ties are common."""
    shape, num_actions = draw(st.sampled_from([(), (5,), (3, 4)])), draw(st.sampled_from(NUM_ACTIONS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(-8, 8, (*shape, num_actions), endpoint=True) / 4
    return values.astype(np.float32), np.asarray(rng.integers(num_actions, size=shape), np.int32)


@few_examples
@given(values_and_index())
def test_greedy_is_the_first_of_the_largest(args):
    values, index = args
    action = greedy(values)
    expected = [first_argmax(values[i]) for i in np.ndindex(index.shape)]
    np.testing.assert_array_equal(np.ravel(action), expected)
    assert (action.shape, action.dtype) == (index.shape, jnp.int32)
    np.testing.assert_array_equal(max_value(values), values.max(-1))


@few_examples
@given(values_and_index())
def test_select_picks_the_indexed_value(args):
    values, index = args
    chosen = select(values, index)
    np.testing.assert_array_equal(np.ravel(chosen), [values[i][index[i]] for i in np.ndindex(index.shape)])
    assert chosen.shape == index.shape


@pytest.mark.parametrize("num_actions", NUM_ACTIONS)
def test_select_reads_every_position(num_actions):
    index = np.arange(num_actions, dtype=np.int32)
    values = np.broadcast_to(10 + index, (num_actions, num_actions))
    np.testing.assert_array_equal(select(values, index), 10 + index)


@each_path
@pytest.mark.parametrize("index_dtype", [np.int32, np.uint8])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32])
def test_select_keeps_the_dtype_of_the_values(num_actions, dtype, index_dtype):
    chosen = select(jnp.arange(num_actions).astype(dtype), np.asarray(2, index_dtype))
    assert chosen == jnp.asarray(2, dtype)
    assert chosen.dtype == dtype


@each_path
def test_the_gradient_of_select_is_one_where_it_selects(num_actions):
    index = np.array([0, num_actions - 1, 1])
    values = np.random.default_rng(0).normal(size=(3, num_actions)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(jnp.float32([1, 2, 3]) * losses.select(x, index))))(values)
    np.testing.assert_array_equal(gradient, np.float32([[1], [2], [3]]) * np.eye(num_actions)[index])


@each_path
def test_greedy_breaks_ties_by_the_lowest_index(num_actions):
    values = np.zeros((4, num_actions), np.float32)
    values[1, 1:] = 1.0
    values[2, [0, -1]] = 2.0
    values[3] = -np.inf  # no action is legal: still a tie
    assert greedy(values).tolist() == [0, 1, 0, 0]


@each_path
def test_greedy_never_picks_an_illegal_action(num_actions):
    values = np.full(num_actions, -np.inf, np.float32)
    values[2] = -1e30
    assert greedy(values) == 2
    assert max_value(values) == np.float32(-1e30)
