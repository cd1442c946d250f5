"""Rows in microbatches give what the whole gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrl._src import microbatches
from jaxrl._src.microbatches import grad_of_mean, map_rows


def sizes(num):
    """How many rows a microbatch of `num` rows has."""
    return num // microbatches._num_microbatches(np.zeros((num, 2)))


@given(st.integers(1, 20_000))
def test_pieces_are_equal_and_near_their_size_or_the_rows_stay_whole(num):
    size = sizes(num)
    assert num % size == 0
    assert 256 <= size <= 1024 or size == num
    divisors = [d for d in range(256, 1025) if num % d == 0]
    assert size in divisors or not divisors


def test_pieces_of_usual_rollouts():
    assert [sizes(num) for num in (5, 512, 1000, 1026, 16 * 500, 64 * 128, 8191)] == [5, 512, 500, 513, 500, 512, 8191]


@pytest.mark.parametrize("num", [96, 2048, 1000, 8191])
def test_mapped_rows_are_those_of_the_function(num):
    rows = {"x": jnp.arange(num * 3.0).reshape(num, 3), "n": jnp.arange(num)}
    fn = lambda rows: (rows["x"].sum(axis=1), rows["n"][:, None] * 2)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(lambda rows: map_rows(fn, rows))(rows), fn(rows))


def loss(params, rows):
    x, y = rows
    hidden = jnp.tanh(x @ params["w"])
    error = hidden @ params["v"] - y
    return jnp.mean(jnp.square(error)), {"error": jnp.mean(error), "largest": jnp.mean(hidden, axis=0)}


def problem(num, seeds=()):
    keys = jax.random.split(jax.random.key(0), 4)
    params = {"w": jax.random.normal(keys[0], (*seeds, 3, 8)), "v": jax.random.normal(keys[1], (*seeds, 8))}
    return params, (jax.random.normal(keys[2], (*seeds, num, 3)), jax.random.normal(keys[3], (*seeds, num)))


@pytest.mark.parametrize("num", [96, 2048, 1000, 8191])
def test_the_gradient_and_the_means_are_those_of_the_whole(num):
    params, rows = problem(num)
    got = jax.jit(lambda *args: grad_of_mean(loss, *args))(params, rows)
    wanted = jax.grad(loss, has_aux=True)(params, rows)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), got, wanted)


def test_batched_by_vmap():
    params, rows = problem(2048, seeds=(3,))
    got = jax.jit(jax.vmap(lambda *args: grad_of_mean(loss, *args)))(params, rows)
    wanted = jax.vmap(jax.grad(loss, has_aux=True))(params, rows)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), got, wanted)


def products(program, num):
    """Whether the program multiplies `num` rows at once, and whether it does in microbatches of 512."""
    return f"tensor<{num}x3xf32>, tensor<3x8xf32>" in program, "tensor<512x3xf32>, tensor<3x8xf32>" in program


@pytest.mark.parametrize(("platform", "whole"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_pieces_are_for_a_cpu_alone(platform, whole):
    def both(params, rows):
        return grad_of_mean(loss, params, rows), map_rows(lambda x: jnp.tanh(x @ params["w"]), rows[0])

    program = jax.jit(both).trace(*problem(2048)).lower(lowering_platforms=(platform,)).as_text()
    assert products(program, 2048) == (whole, not whole)
    assert ("stablehlo.while" in program) is not whole
