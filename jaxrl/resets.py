"""Fresh episodes for a rollout, drawn ahead with the rest of the noise if they fit into memory.

`unroll` may need a fresh episode for every environment at every step. `reset_scheme` chooses statically how to provide them.
The two functions of a scheme draw the random part, and make the episodes of one step from it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jaxrl.types import Environment, EnvState, Obs

Episode = tuple[EnvState, Obs]  # leaves [B, ...]

# Per seed. Fresh episodes that would take more are computed from the same keys when their step comes. The bound is per seed
# since a program must not depend on the number of seeds that it is batched over.
MAX_NOISE_BYTES = 4 * 2**20


class ResetNoise(NamedTuple):
    """The random part of an iteration's fresh episodes."""

    steps: Any  # leaves [T, B, ...], or [B, ...] if every environment starts a fresh episode once per iteration
    shared: Any = ()  # read by all steps


class ResetScheme(NamedTuple):
    """A way to draw the fresh episodes of an iteration."""

    num_keys: int
    draw: Callable[[jax.Array], ResetNoise]  # (keys [num_keys])
    episode: Callable[[Any, Any], Episode]  # (one step of ResetNoise.steps, ResetNoise.shared), leaves [B, ...]


def reset_scheme(env: Environment, shape: tuple[int, ...], pool_size: int | None) -> ResetScheme:
    """Choose how to draw a fresh episode for every position of `shape`.

    Args:
      env: the environment.
      shape: the positions at which a fresh episode may be needed, `(T, B)` or `(B,)`.
      pool_size: K, to draw only K episodes, from which each position takes one at random; None: one for each position.
    """
    if pool_size is not None:
        return _pool(env, shape, pool_size)
    episode = jax.eval_shape(env.reset, jax.random.key(0), env.params)
    if math.prod(shape) * num_bytes(episode) > MAX_NOISE_BYTES:
        return ResetScheme(
            math.prod(shape),
            draw=lambda keys: ResetNoise(keys.reshape(shape)),
            episode=lambda keys, _: reset_all(env, keys),
        )
    return ResetScheme(
        math.prod(shape),
        draw=lambda keys: ResetNoise(reset_all(env, keys.reshape(shape))),
        episode=lambda episode, _: episode,
    )


def _pool(env: Environment, shape: tuple[int, ...], pool_size: int) -> ResetScheme:
    def draw(keys):
        index = jax.random.randint(keys[0], shape, 0, pool_size)
        return ResetNoise(index, shared=reset_all(env, keys[1:]))

    return ResetScheme(1 + pool_size, draw, episode=lambda index, pool: jax.tree.map(lambda x: x[index], pool))


def reset_all(env: Environment, keys: jax.Array) -> Episode:
    """One fresh `(env_state, obs)` for each key; its leading axes are those of `keys`."""
    reset = env.reset
    for _ in keys.shape:
        reset = jax.vmap(reset, (0, None))
    return reset(keys, env.params)


def begin_episodes(env: Environment, env_state: EnvState, fresh: Episode) -> Episode:
    """The fresh episodes `[B, ...]`, with what `carry_over` preserves of the old `env_state` `[B, ...]`."""
    return fresh if env.carry_over is None else jax.vmap(env.carry_over)(env_state, *fresh)


def num_bytes(tree: Any) -> int:
    """The total size of all leaves in bytes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
