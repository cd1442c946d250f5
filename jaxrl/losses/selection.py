"""Selection among action values."""

import jax
import jax.numpy as jnp

from jaxrl._src.shapes import check_integers, check_like, leading_axes

# Up to this many actions, unrolled comparisons are cheaper on an accelerator than an argmax, a gather and the
# scatter of its gradient: the comparisons fuse with the surrounding operations, the others do not.
_FEW_ACTIONS = 32


def select(values: jax.Array, index: jax.Array) -> jax.Array:
    """`values[..., index]` for each leading position.

    Args:
      values: `[..., A]`.
      index: integers in 0 … A − 1, `[...]`.

    Returns:
      `[...]`, of the dtype of `values`; differentiable in `values`.

    Raises:
      ValueError: if the shapes do not match.
      TypeError: if `index` does not hold integers.

    >>> import jax.numpy as jnp
    >>> select(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([0, 1])).tolist()
    [1.0, 4.0]
    """
    check_like("select", "the leading axes of values", leading_axes("select", "A", values=values), index=index)
    check_integers(index)
    index = jnp.asarray(index)
    if values.shape[-1] > _FEW_ACTIONS:
        return jnp.take_along_axis(values, index[..., None], axis=-1)[..., 0]
    chosen = values[..., 0]
    for a in range(1, values.shape[-1]):
        chosen = jnp.where(index == a, values[..., a], chosen)
    return chosen


def select_row(values: jax.Array, index: jax.Array) -> jax.Array:
    """`values[..., index, :]` for each leading position: `[..., A, N]` and integers `[...]` to `[..., N]`."""
    check_integers(index)
    index = jnp.asarray(index)
    if values.shape[-2] > _FEW_ACTIONS:
        return jnp.take_along_axis(values, index[..., None, None], axis=-2)[..., 0, :]
    chosen = values[..., 0, :]
    for a in range(1, values.shape[-2]):
        chosen = jnp.where((index == a)[..., None], values[..., a, :], chosen)
    return chosen


def greedy(values: jax.Array) -> jax.Array:
    """The index of the largest of `values` `[..., A]`, the first where several tie, as int32 `[...]`.

    An illegal action has the value −inf. Where a value is NaN, the index is undefined.

    Raises:
      ValueError: if there is no axis of actions.

    >>> import jax.numpy as jnp
    >>> int(greedy(jnp.array([1.0, 3.0, 3.0])))
    1
    """
    leading = leading_axes("greedy", "A", values=values)
    if values.shape[-1] > _FEW_ACTIONS:
        return jnp.argmax(values, axis=-1).astype(jnp.int32)
    best, index = values[..., 0], jnp.zeros(leading, jnp.int32)
    for a in range(1, values.shape[-1]):
        better = values[..., a] > best
        best, index = jnp.where(better, values[..., a], best), jnp.where(better, jnp.int32(a), index)
    return index


def max_value(values: jax.Array) -> jax.Array:
    """The largest of `values` `[..., A]`, as `[...]`; differentiable."""
    if values.shape[-1] > _FEW_ACTIONS:
        return jnp.max(values, axis=-1)
    best = values[..., 0]
    for a in range(1, values.shape[-1]):
        best = jnp.maximum(best, values[..., a])
    return best
