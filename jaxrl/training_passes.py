"""Passes of networks in training, for agents that support a `jaxrl.types.TrainableNetwork`.

A `TrainableNetwork` has dropout or running statistics. These functions treat any other network as one without either, so that an
agent has one code path: it differentiates with respect to the `weights` of its parameters, and after a step of the optimizer puts
the new statistics in.
"""

from typing import Any

import jax

from jaxrl.types import NetworkParams


def is_trainable(network: Any) -> bool:
    """Whether the network has passes in training that differ from those in evaluation."""
    return getattr(network, "apply_training", None) is not None


def training_keys(key: jax.Array, shape: tuple[int, ...], *networks: Any) -> tuple[jax.Array | None, ...]:
    """Keys `[*shape]` for one pass of each network in training; None for a network that needs none. The key is consumed."""
    keys = jax.random.split(key, len(networks))
    return tuple(jax.random.split(k, shape) if is_trainable(net) else None for k, net in zip(keys, networks, strict=True))


def apply_training(network: Any, params: Any, key: jax.Array | None, *inputs: Any) -> tuple[Any, Any]:
    """The outputs of a pass in training, and the new statistics; of `apply`, and `()`, for a network without such a pass."""
    if is_trainable(network):
        return network.apply_training(params, key, *inputs)
    return network.apply(params, *inputs), ()


def weights(params: Any) -> Any:
    """What an optimizer changes: `params`, a tree, with the weights in place of each `NetworkParams` in it."""
    return jax.tree.map(lambda x: x.weights if _is_record(x) else x, params, is_leaf=_is_record)


def with_weights(params: Any, new: Any) -> Any:
    """`params` with other weights, a tree as `weights` returns it."""
    return jax.tree.map(lambda x, w: x._replace(weights=w) if _is_record(x) else w, params, new, is_leaf=_is_record)


def with_statistics(params: Any, statistics: Any) -> Any:
    """The parameters of one network with new statistics, as `apply_training` returns them."""
    return params._replace(statistics=statistics) if _is_record(params) else params


def _is_record(x: Any) -> bool:
    return isinstance(x, NetworkParams)
