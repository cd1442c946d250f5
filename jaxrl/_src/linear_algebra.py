"""Linear algebra for small matrices, in operations that work under `jit` and `vmap` and are differentiable."""

import jax
import jax.numpy as jnp


def product(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """`[n, m]` times `[m]`, as a sum of m scaled columns: `[n]`.

    It fuses with the surrounding operations, whereas a matrix product is a kernel of its own. So would a sum over an
    axis, but jaxlib 0.10.2 computes wrong numbers on CPUs where two such sums of different length are added, in batches
    of about ten thousand (https://github.com/jax-ml/jax/issues/39103).

    >>> import jax.numpy as jnp
    >>> product(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1.0, 10.0])).tolist()
    [21.0, 43.0]
    """
    total = matrix[:, 0] * vector[0]
    for column in range(1, matrix.shape[1]):
        total = total + matrix[:, column] * vector[column]
    return total


def solve(a: jax.Array, b: jax.Array) -> jax.Array:
    """Solve a x = b for matrices that need no pivoting: diagonally dominant ones (by rows or by columns), such as
    I − γP of a Markov chain, and positive definite ones (Golub & Van Loan 2013, §4.1 and §4.2).

    `jnp.linalg.solve` calls LAPACK, which can hang when batched by `vmap` on a CPU with two cores (jaxlib 0.10.2), and
    synchronizes with the host on a GPU. This is a loop of n rank-one updates in full precision.

    Args:
      a: `[n, n]`.
      b: `[n]` or `[n, k]`.

    Returns:
      x, of the shape of b; inf or NaN if a is singular. Differentiable in a and b, in forward and reverse mode.

    Raises:
      ValueError: if the shapes do not match.

    >>> import jax.numpy as jnp
    >>> solve(jnp.array([[2.0, 0.0], [-1.0, 4.0]]), jnp.array([2.0, 3.0])).tolist()
    [1.0, 1.0]
    """
    n = a.shape[0] if a.ndim else 0
    if a.shape != (n, n) or b.ndim not in (1, 2) or b.shape[0] != n:
        raise ValueError(f"solve takes a [n, n] and b [n] or [n, k]; got {list(a.shape)} and {list(b.shape)}")
    fixed = jax.lax.stop_gradient(a)  # derivatives are implicit and use a in the product only
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
