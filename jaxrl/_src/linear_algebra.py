"""Small linear algebra that `jit`, `vmap` and derivatives treat like any other code."""

import jax
import jax.numpy as jnp


def product(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """`[n, m]` times `[m]`, as m multiplications and additions of columns: `[n]`.

    They fuse with what surrounds them, where a matrix product is a kernel of its own. As sums over an axis they would
    too, but on a CPU jaxlib 0.10.2 gives wrong numbers for two such sums of different length that are added, in batches
    of some ten thousand (https://github.com/jax-ml/jax/issues/39103).

    >>> import jax.numpy as jnp
    >>> product(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1.0, 10.0])).tolist()
    [21.0, 43.0]
    """
    total = matrix[:, 0] * vector[0]
    for column in range(1, matrix.shape[1]):
        total = total + matrix[:, column] * vector[column]
    return total


def solve(a: jax.Array, b: jax.Array) -> jax.Array:
    """The x of a x = b, for matrices that need no pivoting: diagonally dominant ones (by rows or by columns), such as
    I − γP of a Markov chain, and positive definite ones (Golub & Van Loan 2013, §4.1 and §4.2).

    LAPACK, which `jnp.linalg.solve` calls, can hang where `vmap` batches it on a CPU of two cores (jaxlib 0.10.2), and
    on a GPU makes the host wait. This is a loop of n rank-one updates in full precision, batched like any other.

    Args:
      a: `[n, n]`.
      b: `[n]` or `[n, k]`.

    Returns:
      As b. Differentiable in both, in either mode; inf or NaN where a is singular.

    Raises:
      ValueError: where the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> solve(jnp.array([[2.0, 0.0], [-1.0, 4.0]]), jnp.array([2.0, 3.0])).tolist()
    [1.0, 1.0]
    """
    n = a.shape[0] if a.ndim else 0
    if a.shape != (n, n) or b.ndim not in (1, 2) or b.shape[0] != n:
        raise ValueError(f"solve takes a [n, n] and b [n] or [n, k]; got {list(a.shape)} and {list(b.shape)}")
    fixed = jax.lax.stop_gradient(a)  # derivatives are implicit: they see a in the product alone
    return jax.lax.custom_linear_solve(
        lambda x: jnp.matmul(a, x, precision="highest"),
        b,
        solve=lambda _, y: _eliminate(fixed, y),
        transpose_solve=lambda _, y: _eliminate(fixed.T, y),
    )


def _eliminate(a: jax.Array, b: jax.Array) -> jax.Array:
    """Gauss-Jordan: turn [a | b] into [I | x], a column of a at a time."""
    n = a.shape[0]

    def column(i, rows):
        pivot = jax.lax.dynamic_index_in_dim(rows, i, axis=0, keepdims=False)
        pivot = pivot / jax.lax.dynamic_index_in_dim(pivot, i, keepdims=False)
        factor = jax.lax.dynamic_index_in_dim(rows, i, axis=1)
        is_pivot = (jnp.arange(n) == i)[:, None]
        return jnp.where(is_pivot, pivot[None], rows - factor * pivot[None])

    rows = jax.lax.fori_loop(0, n, column, jnp.concatenate([a, b.reshape(n, -1)], axis=1))
    return rows[:, n:].reshape(b.shape)
