"""Maps of values and actions over two components of the observation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl._src.checks import check_size
from jaxrl.explain.saliency import components, vary
from jaxrl.types import Obs


class Map(NamedTuple):
    """A function over two components of the observation, on a grid.

    Attributes:
      x: values of the first component, `[W]`.
      y: values of the second, `[H]`.
      values: what the function returned, leaves `[H, W, ...]`.
      distance: from each point of the grid to the nearest of the observations, `[H, W]`, in units of the ranges of x and y. A
        policy need not know what to do where it is large.
    """

    x: jax.Array
    y: jax.Array
    values: Any
    distance: jax.Array


def nearest(points: jax.Array, x: jax.Array, y: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """The nearest of N points to each point of a grid.

    Args:
      points: `[N, 2]`.
      x, y: coordinates of the grid, `[W]` and `[H]`, ascending. Distances are in units of their ranges.
      num: K, the number of neighbours, at most N.

    Returns:
      The indices of the K nearest points, the nearest first, int32 `[H, W, K]`, and the distance to the nearest, `[H, W]`.
    """
    scale = jnp.stack([x[-1] - x[0], y[-1] - y[0]])
    scale = jnp.where(scale > 0, scale, 1.0)[None]

    def row(b):
        grid = jnp.stack([x, jnp.broadcast_to(b, x.shape)], axis=-1) / scale
        squared = jnp.sum(jnp.square(grid[:, None] - (points / scale)[None]), axis=-1)
        closest, indices = jax.lax.top_k(-squared, num)
        return indices, jnp.sqrt(-closest[:, 0])

    return jax.lax.map(row, y)


def grid_map(
    function: Callable[[Obs], Any],
    observations: Obs,
    dims: tuple[int, int],
    *,
    size: int = 48,
    num_neighbors: int = 1,
    ranges: Any = None,
) -> Map:
    """The mean of a function where two components of the observation have given values.

    The components of an observation often depend on each other, so the other components come from observations that were
    visited near each point of the grid: the function is averaged over the `num_neighbors` nearest of them, with the two
    components replaced. For a single observation the map is the slice through it.

    Args:
      function: from one observation to a tree of floats, such as a value or the probabilities of the actions.
      observations: those visited, leaves `[N, ...]`.
      dims: the components on the x and on the y axis, numbered as by `components`.
      size: points of the grid along each axis.
      num_neighbors: visited observations to average over, at most N.
      ranges: ((low, high), (low, high)) of x and y; by default those of the observations without the outermost percent on
        either side.

    Raises:
      ValueError: if a component does not exist, both are the same, or there are fewer observations than neighbours.
      TypeError: if `size`, `num_neighbors` or a component is not an int.

    >>> drawn = grid_map(lambda obs: obs[0] - obs[2], jnp.array([[0.0, 5.0, 0.0]]), (0, 2), size=2, ranges=((0, 1), (0, 3)))
    >>> drawn.values.tolist()
    [[0.0, 1.0], [-3.0, -2.0]]
    """
    size, num_neighbors = check_size("size", size, minimum=2), check_size("num_neighbors", num_neighbors)
    vectors = jax.vmap(lambda obs: components(obs)[0])(observations)
    num, num_components = vectors.shape
    for dim in dims:
        check_size("dims", dim, minimum=0)
    if len(set(dims)) != 2 or max(dims) >= num_components:
        raise ValueError(f"dims must be two different components, 0 to {num_components - 1}; got {tuple(dims)}")
    if num_neighbors > num:
        raise ValueError(f"num_neighbors must be at most the number of observations, {num}; got {num_neighbors}")
    points = vectors[:, jnp.asarray(dims)]
    if ranges is None:
        low, high = jnp.percentile(points, jnp.array([1.0, 99.0]), axis=0)
        spread = jnp.where(high > low, 0.0, 1.0)
        ranges = jnp.stack([low - spread, high + spread], axis=-1)
    x, y = (jnp.linspace(range_[0], range_[1], size) for range_ in jnp.asarray(ranges, jnp.float32))
    indices, distance = nearest(points, x, y, num_neighbors)

    def at(neighbors, a, b):
        near = jax.tree.map(lambda leaf: leaf[neighbors], observations)
        values = jax.vmap(lambda obs: vary(function, obs, dims, jnp.stack([a, b])))(near)
        return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), values)

    def row(inputs):
        neighbors, b = inputs
        return jax.vmap(at, (0, 0, None))(neighbors, x, b)

    return Map(x, y, jax.lax.map(row, (indices, y)), distance)
