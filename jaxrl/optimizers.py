"""Optimizers driven by the learner's clock.

An optimizer is built from the (possibly traced) learning rate where it is used, and its step count is
set from the clock. State holds arrays alone, and no count is ever batched by `vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Optimizer = Callable[[Any], optax.GradientTransformation]  # from a learning rate, e.g. optax.adam


class AdamState(NamedTuple):
    count: jax.Array  # type: ignore[assignment]  # int32 scalar; optax's name, which hides tuple.count
    mu: Any
    nu: Any


def adam(learning_rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    """Adam (Kingma & Ba 2015, algorithm 1), as `optax.adam`, in fewer kernels.

    optax corrects the bias of each moment in passes of its own; here both corrections are two scalars
    that fuse into the one pass over the parameters.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jnp.int32(0), zeros, zeros)

    def update(grads, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
        steps = count.astype(jnp.float32)
        step_size = learning_rate / (1 - b1**steps)
        correction = 1 / (1 - b2**steps)

        def change(m, v):
            return -step_size.astype(m.dtype) * m / (jnp.sqrt(correction.astype(v.dtype) * v) + eps)

        updates = jax.tree.map(change, mu, nu)
        return updates, AdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def set_count(opt_state: Any, count: jax.Array) -> Any:
    """Set every `count` in an optax state to `count`, int32 scalar; a state without one is returned as it is."""

    def set_leaf(path, leaf):
        # By the kind of the last key too: a network's own parameter may be called "count", in a dict.
        return count.astype(leaf.dtype) if path and path[-1] == jax.tree_util.GetAttrKey("count") else leaf

    return jax.tree_util.tree_map_with_path(set_leaf, opt_state)


def apply_gradients(
    optimizer: optax.GradientTransformation, count: jax.Array, grads: Any, opt_state: Any, params: Any
) -> tuple[Any, Any]:
    """The `count`-th step of `optimizer`, counted from 0: the new (params, opt_state)."""
    updates, opt_state = optimizer.update(grads, set_count(opt_state, count), params)
    return optax.apply_updates(params, updates), opt_state


def clip_by_global_norm(grads: Any, max_norm) -> tuple[Any, jax.Array]:
    """Scale all gradients together so that their norm is at most `max_norm` (may be traced; inf: never).

    Returns:
      The gradients, and their norm before it, float32 scalar.
    """
    norm = optax.tree_utils.tree_norm(grads)
    scale = jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-12))
    return jax.tree.map(lambda g: g * scale.astype(g.dtype), grads), norm


def num_updates(clock: jax.Array, warmup: int, updates: int) -> jax.Array:
    """How many updates ran before iteration `clock` of a run with `updates` in each, saturating before int32 ends."""
    return jnp.minimum(clock - warmup, (2**31 - 1) // updates - 1) * updates
