"""Random bits of several shapes from one call of the generator, and noise that environments keep for several steps."""

import math

import jax
import jax.numpy as jnp

from jaxrl.checks import check_size
from jaxrl.types import NoiseFn


def random_bits(key: jax.Array, *shapes: tuple[int, ...]) -> tuple[jax.Array, ...]:
    """Draw independent `uint32` bits for each shape; the key is consumed.

    One call of the generator serves all shapes, since each call takes a CPU about a quarter of a second to compile.
    """
    sizes = [math.prod(shape) for shape in shapes]
    bits = jax.random.bits(key, (sum(sizes),), jnp.uint32)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(bits[end - size : end].reshape(shape) for shape, size, end in zip(shapes, sizes, ends, strict=True))


def held(noise: NoiseFn, period: int) -> NoiseFn:
    """`noise` of an agent, whose part for acting each environment keeps for `period` steps.

    Where single steps of independent noise average out, it explores further. In every single step, its distribution is unchanged.

    Args:
      noise: `Agent.noise`, which draws independent noise for every step.
      period: number of steps, which must divide the length of a rollout; 1 returns `noise`.

    Raises:
      TypeError, ValueError: if `period` is not a positive int. The returned function raises ValueError for a rollout whose length
        it does not divide.
    """
    period = check_size("noise_period", period)
    if period == 1:
        return noise

    def draw(key, num_steps, num_envs):
        if num_steps % period:
            raise ValueError(f"noise_period={period} must divide rollout_length={num_steps}")
        drawn = noise(key, num_steps // period, num_envs)
        return drawn._replace(act=jax.tree.map(lambda x: jnp.repeat(x, period, axis=0), drawn.act))

    return draw
