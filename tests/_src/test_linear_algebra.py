"""Elimination against LAPACK, its derivatives against finite differences, and products in large batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxrl._src.linear_algebra import product, solve
from jaxrl.envs.problems.point_mass import State, point_mass

N = 5
few_examples = settings(deadline=None, max_examples=25)
compiled = jax.jit(solve)
batched = jax.jit(jax.vmap(solve))


def markov(rng):
    """I − γP, with transitions that may be certain: no small pivot is excluded."""
    probs = rng.dirichlet(np.full(N, 0.2), size=N)
    return np.eye(N) - rng.uniform(0, 0.99) * probs


def positive(rng):
    x = rng.normal(size=(N, N))
    return x @ x.T + 0.1 * np.eye(N)


@few_examples
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from([markov, positive, lambda rng: markov(rng).T]))
def test_it_solves_as_lapack_does(seed, kind):
    rng = np.random.default_rng(seed)
    a, b = kind(rng), rng.normal(size=(N, 2))
    expected = np.linalg.solve(a, b)
    tolerance = 2e-6 * np.linalg.cond(a) * np.abs(expected).max()
    np.testing.assert_allclose(compiled(jnp.float32(a), jnp.float32(b)), expected, rtol=0, atol=tolerance)


def test_a_batch_is_its_elements():
    rng = np.random.default_rng(0)
    a, b = np.stack([markov(rng) for _ in range(3)]), rng.normal(size=(3, N))
    expected = np.stack([np.linalg.solve(x, y) for x, y in zip(a, b, strict=True)])
    np.testing.assert_allclose(batched(jnp.float32(a), jnp.float32(b)), expected, rtol=1e-4, atol=1e-5)


def test_derivatives_in_both_modes():
    rng = np.random.default_rng(1)
    a, b = jnp.float32(np.eye(N) - 0.5 * rng.dirichlet(np.ones(N), size=N)), jnp.float32(rng.normal(size=N))
    check_grads(jax.jit(solve), (a, b), order=1, modes=["fwd", "rev"], eps=1e-2, atol=2e-2, rtol=2e-2)


def test_a_singular_matrix_is_not_finite():
    assert not np.isfinite(solve(jnp.zeros((2, 2)), jnp.ones(2))).any()


@pytest.mark.parametrize(("a", "b"), [((2, 3), (2,)), ((2, 2), (3,)), ((2,), (2,)), ((2, 2), ()), ((), ())])
def test_shapes_that_do_not_fit(a, b):
    with pytest.raises(ValueError, match=r"solve takes a \[n, n\] and b"):
        solve(jnp.zeros(a), jnp.zeros(b))


def test_products_are_right_in_a_batch_of_many():
    """Two of different length, added: as sums over an axis, jaxlib 0.10.2 gets those from row 10,922 on wrong."""
    rng, num = np.random.default_rng(0), 16_384
    env = point_mass(3, 2, transition=rng.normal(size=(3, 3)), control=rng.normal(size=(3, 2)))
    position, action = np.float32(rng.normal(size=(num, 3))), np.float32(rng.uniform(-1, 1, size=(num, 2)))
    expected = position @ env.params.transition.T + action @ env.params.control.T
    two = lambda s, a: product(jnp.asarray(env.params.transition), s) + product(jnp.asarray(env.params.control), a)
    np.testing.assert_allclose(jax.jit(jax.vmap(two))(position, action), expected, atol=1e-5)
    states = State(position, np.zeros(num, np.int32))
    _, step = jax.jit(jax.vmap(env.step, (None, 0, 0, None)))(jax.random.key(0), states, action, env.params)
    np.testing.assert_allclose(step.obs, expected, atol=1e-5)
    norms = np.linalg.norm(position, axis=1) + np.linalg.norm(action, axis=1)
    np.testing.assert_allclose(step.reward, -norms, rtol=1e-5)
