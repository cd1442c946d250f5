"""ε-greedy action selection."""

import functools
import operator

import jax
import jax.numpy as jnp

from jaxrl._src.dtypes import dtype_of
from jaxrl._src.shapes import check_like, scalar_or_like
from jaxrl.losses import greedy

# Up to this many actions, the legal ones are stored as the bits of a word, which fuses on a GPU; a cumulative sum does not.
_FEW_ACTIONS = 32


def epsilon_greedy_noise(key: jax.Array, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Draw the random bits that `epsilon_greedy` consumes, two arrays `uint32[*shape]`: whether to explore, and which action.

    An agent that draws all its bits in one call may pass any two such arrays instead.
    """
    bits = jax.random.bits(key, (2, *shape), jnp.uint32)
    return bits[0], bits[1]


def epsilon_greedy(q: jax.Array, noise: tuple[jax.Array, jax.Array], epsilon, *, all_legal: bool = False) -> jax.Array:
    """Choose a uniformly random legal action with probability `epsilon`, otherwise the greedy action.

    An action whose value is −inf is illegal: it is chosen neither greedily nor at random. If every action is illegal, the
    result is 0.

    Args:
      q: action values `[..., A]`.
      noise: from `epsilon_greedy_noise`, two arrays `uint32[...]`. The random action is the k-th of n legal ones with
        k = bits mod n, so the relative difference of their probabilities is at most n / 2^32.
      epsilon: probability in [0, 1], a scalar or `[...]`.
      all_legal: whether all actions are known to be legal. Then the random action does not depend on `q`, and a GPU
        launches fewer kernels.

    Returns:
      int32 actions `[...]`.

    Raises:
      ValueError: if the shapes do not match.
      TypeError: if `noise` is not two arrays of uint32.

    >>> noise = epsilon_greedy_noise(jax.random.key(0), (1000,))
    >>> q = jnp.broadcast_to(jnp.array([0.0, -jnp.inf, 2.0, 1.0]), (1000, 4))
    >>> jnp.bincount(epsilon_greedy(q, noise, 0.3), length=4).tolist()
    [103, 0, 808, 89]
    """
    bits = tuple(noise) if isinstance(noise, (tuple, list)) or jnp.ndim(noise) else ()
    if len(bits) != 2 or any(dtype_of(x) != jnp.uint32 for x in bits):
        raise TypeError(f"epsilon_greedy: noise must be two arrays of uint32, from epsilon_greedy_noise; got {noise!r}")
    for each in bits:
        check_like("epsilon_greedy", "the leading axes of q", q.shape[:-1], noise=each)
    explore, action = bits
    uniform = (explore >> 8).astype(jnp.float32) * 2.0**-24
    random_action = (action % q.shape[-1]).astype(jnp.int32) if all_legal else _random_legal_action(q, action)
    return jnp.where(uniform < scalar_or_like("epsilon_greedy", "epsilon", epsilon, uniform), random_action, greedy(q))


def _random_legal_action(q: jax.Array, bits: jax.Array) -> jax.Array:
    """The k-th legal action of `q` `[..., A]`, int32 `[...]`, with k = `bits` mod their number; 0 if none is legal."""
    num_actions, legal = q.shape[-1], q != -jnp.inf
    if num_actions > _FEW_ACTIONS:
        up_to = jnp.cumsum(legal, axis=-1, dtype=jnp.uint32)  # how many of the actions 0 … a are legal
        k = bits % jnp.maximum(up_to[..., -1], 1)
        return jnp.argmax(up_to > k[..., None], axis=-1).astype(jnp.int32)
    mask = functools.reduce(operator.or_, [legal[..., a].astype(jnp.uint32) << a for a in range(num_actions)])
    k = bits % jnp.maximum(jax.lax.population_count(mask), 1)
    action = jnp.zeros_like(bits)
    for width in (16, 8, 4, 2, 1):  # a binary search for the k-th bit that is set
        if width < num_actions:
            passed = jax.lax.population_count((mask >> action) & jnp.uint32(2**width - 1))
            beyond = k >= passed
            action, k = jnp.where(beyond, action + width, action), jnp.where(beyond, k - passed, k)
    return jnp.where(mask == 0, 0, action.astype(jnp.int32))
