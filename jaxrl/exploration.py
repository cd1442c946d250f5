"""ε-greedy action selection."""

import jax
import jax.numpy as jnp

from jaxrl.losses import greedy


def epsilon_greedy_noise(key: jax.Array, shape: tuple[int, ...], num_actions: int) -> tuple[jax.Array, jax.Array]:
    """What `epsilon_greedy` consumes: a uniform number and a uniformly random action, each of `shape`.

    Every environment has its own draw of both.
    """
    return epsilon_greedy_noise_of(jax.random.bits(key, (2, *shape), jnp.uint32), num_actions)


def epsilon_greedy_noise_of(bits: jax.Array, num_actions: int) -> tuple[jax.Array, jax.Array]:
    """`epsilon_greedy_noise` from random bits `uint32[2, *shape]`, for those who draw all their bits at once.

    The probabilities of the actions differ by at most A / 2^32, relatively.
    """
    explore, action = bits
    return (explore >> 8).astype(jnp.float32) * 2.0**-24, (action % num_actions).astype(jnp.int32)


def epsilon_greedy(q: jax.Array, noise: tuple[jax.Array, jax.Array], epsilon) -> jax.Array:
    """With probability `epsilon` a uniformly random action, else the greedy one.

    Args:
      q: action values `[..., A]`.
      noise: from `epsilon_greedy_noise`, each `[...]`.
      epsilon: probability in [0, 1], a scalar.

    Returns:
      int32 actions `[...]`.
    """
    uniform, random_action = noise
    return jnp.where(uniform < epsilon, random_action, greedy(q))
