"""Random bits of several shapes from one call of the generator."""

import math

import jax
import jax.numpy as jnp


def random_bits(key: jax.Array, *shapes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Draw independent `uint32` bits for each shape; the key is consumed.

    One call of the generator serves all shapes, since each call takes a CPU about a quarter of a second to compile.
    """
    sizes = [math.prod(shape) for shape in shapes]
    bits = jax.random.bits(key, (sum(sizes),), jnp.uint32)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(bits[end - size : end].reshape(shape) for shape, size, end in zip(shapes, sizes, ends, strict=True))
