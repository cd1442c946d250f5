"""Saliency: how much each component of an observation contributes to a number that a policy computes from it.

A component is a number of an observation: of a vector, a pixel of an image, or an entry of a `Dict`. Floats, bools and integers
of 8 or 16 bits, as in images, vary as real numbers. Integers of 32 bits, such as those of a `Discrete`, and the entry
`"action_mask"` have no gradient: they keep their values, and their saliency is 0. `as_floats` converts those of a `Box`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl._src.checks import check_size
from jaxrl.spaces import ACTION_MASK, Box, Dict, Discrete, Space  # noqa: F401  # Discrete for the examples
from jaxrl.types import Obs

Restore = Callable[[jax.Array], Obs]


def gradient(function: Callable[[Obs], jax.Array], obs: Obs) -> Obs:
    """The gradient of a number with respect to an observation (Simonyan et al. 2014).

    Args:
      function: from one observation to a scalar, such as a value, or the logit of an action. It receives the components that
        vary as float32.
      obs: one observation, without a batch axis.

    Returns:
      A tree like the observation, of float32: the change of the number per unit of each component.

    Raises:
      ValueError: if no component of the observation varies.

    >>> gradient(lambda obs: obs @ jnp.array([2.0, -1.0]), jnp.array([0.3, 0.4])).tolist()
    [2.0, -1.0]
    """
    vector, restore = components(obs)
    return _like(obs, jax.grad(lambda x: function(restore(x)))(vector))


def integrated_gradients(
    function: Callable[[Obs], jax.Array], obs: Obs, baseline: Obs | None = None, *, num_steps: int = 64
) -> Obs:
    """Integrated gradients: the share of each component in the difference of a number to a baseline (Sundararajan et al. 2017).

    The attribution of component i is (x_i − b_i) ∫_0^1 ∂f(b + α (x − b)) / ∂x_i dα (eq. 1). Their sum is f(x) − f(b), which is
    called completeness. The integral is computed by Gauss–Legendre quadrature, which is exact for polynomials of degree up to
    2 `num_steps`; where a network has kinks, as with ReLU, the sum is off by a term that shrinks with more steps.

    Args:
      function: as for `gradient`.
      obs: x, one observation, without a batch axis.
      baseline: b, an observation that stands for the absence of information; by default zeros. Components that do not vary are
        those of `obs`.
      num_steps: points of the quadrature, gradients in all.

    Returns:
      A tree like the observation, of float32, in the units of the number.

    Raises:
      ValueError: if no component of the observation varies, or the baseline has another structure or shapes.
      TypeError: if `num_steps` is not an int.
    """
    num_steps = check_size("num_steps", num_steps)
    vector, restore = components(obs)
    start = jnp.zeros_like(vector) if baseline is None else components(_in_dtypes_of(obs, baseline))[0]
    nodes, weights = np.polynomial.legendre.leggauss(num_steps)
    shares, weights = ((0.5 * (nodes + 1)).astype(np.float32), (0.5 * weights).astype(np.float32))
    slope = jax.grad(lambda x: function(restore(x)))

    def add(total, step):
        share, weight = step
        return total + weight * slope(start + share * (vector - start)), None

    mean, _ = jax.lax.scan(add, jnp.zeros_like(vector), (jnp.asarray(shares), jnp.asarray(weights)))
    return _like(obs, (vector - start) * mean)


# --- observations as vectors


def components(obs: Obs) -> tuple[jax.Array, Restore]:
    """The components of an observation that vary, float32 `[d]`, and a function from such a vector back to an observation.

    The observation that is restored has float32 in place of other dtypes, and the components that do not vary as they are.

    Raises:
      ValueError: if none varies.

    >>> vector, restore = components({"position": jnp.array([0.5, 2.0]), "action_mask": jnp.array([True, False])})
    >>> vector.tolist(), restore(vector + 1)["position"].tolist()
    ([0.5, 2.0], [1.5, 3.0])
    """
    leaves, structure = jax.tree.flatten_with_path(obs)
    leaves = [(path, jnp.asarray(x)) for path, x in leaves]
    varying = [_varies(path, x.dtype) for path, x in leaves]
    if not any(varying):
        kinds = ", ".join(f"{x.dtype}{list(x.shape)}" for _, x in leaves)
        raise ValueError(
            f"an observation of {kinds} has no component with a gradient; wrap the environment in "
            "jaxrl.envs.wrappers.one_hot, or convert numbers of a Box by jaxrl.explain.as_floats"
        )
    parts = [x.astype(jnp.float32).ravel() for (_, x), varies in zip(leaves, varying, strict=True) if varies]
    ends = np.cumsum([part.size for part in parts])

    def restore(vector):
        pieces = iter(jnp.split(vector, ends[:-1]))
        new = [next(pieces).reshape(x.shape) if varies else x for (_, x), varies in zip(leaves, varying, strict=True)]
        return jax.tree.unflatten(structure, new)

    return jnp.concatenate(parts), restore


def as_floats(space: Space, obs: Obs) -> Obs:
    """Convert every `Box` of an observation, or of a batch, to float32, so that it varies; the action mask stays.

    >>> as_floats(Dict({"count": Box(0, 9, (1,), "int32"), "kind": Discrete(3)}), {"count": jnp.array([4]), "kind": jnp.int32(2)})
    {'count': Array([4.], dtype=float32), 'kind': Array(2, dtype=int32)}
    """
    if isinstance(space, Dict):
        return {name: obs[name] if name == ACTION_MASK else as_floats(entry, obs[name]) for name, entry in space.items()}
    return jnp.asarray(obs, jnp.float32) if isinstance(space, Box) else obs


def component_names(space: Space) -> list[str]:
    """A name for each component of observations from `as_floats`, in the order of `components`, such as "0" or "position 1".

    >>> component_names(Dict({"image": Box(0, 1, (1, 2), bool), "speed": Box(0, 1, ())}))
    ['image 0,0', 'image 0,1', 'speed']
    """
    if isinstance(space, Dict):
        inside = {name: component_names(entry) for name, entry in space.items() if name != ACTION_MASK}
        return [f"{name} {part}".strip() for name, parts in inside.items() for part in parts]
    return [",".join(map(str, index)) for index in np.ndindex(space.shape)] if isinstance(space, Box) else []


def vary(function: Callable[[Obs], Any], obs: Obs, dims: Any, values: jax.Array) -> Any:
    """`function` of an observation whose components `dims` `[k]`, numbered as by `components`, have the `values` `[k]`."""
    vector, restore = components(obs)
    return function(restore(vector.at[jnp.asarray(dims)].set(values)))


def _varies(path: Any, dtype: Any) -> bool:
    """Whether the leaf at this path of an observation varies."""
    return _is_number(dtype) and not (path and getattr(path[-1], "key", None) == ACTION_MASK)


def _is_number(dtype: Any) -> bool:
    return bool(jnp.issubdtype(dtype, jnp.floating)) or jnp.dtype(dtype).itemsize <= 2


def _like(obs: Obs, vector: jax.Array) -> Obs:
    """A tree like the observation, with zeros for the components that do not vary."""
    restored = components(obs)[1](vector)

    def one(path, x, of_vector):
        return of_vector if _varies(path, jnp.asarray(x).dtype) else jnp.zeros(jnp.shape(x), jnp.float32)

    return jax.tree.map_with_path(one, obs, restored)


def _in_dtypes_of(obs: Obs, baseline: Obs) -> Obs:
    """The baseline in the dtypes of the observation, which decide what varies."""
    kind = lambda tree: (jax.tree.structure(tree), [np.shape(x) for x in jax.tree.leaves(tree)])
    if kind(baseline) != kind(obs):
        shapes, wanted = (jax.tree.map(np.shape, tree) for tree in (baseline, obs))
        raise ValueError(f"the baseline must be an observation like obs, whose shapes are {wanted}; got {shapes}")
    number = lambda x, b: jnp.asarray(b, jnp.float32) if _is_number(jnp.asarray(x).dtype) else jnp.asarray(x)
    return jax.tree.map(number, obs, baseline)
