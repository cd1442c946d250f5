"""Action-value networks for any action space, ensembles, and deterministic policies: the networks of DDPG, TD3 and SAC."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrl._src.checks import check_size
from jaxrl.networks.feedforward import policy, q_network
from jaxrl.networks.layers import MLP, check_body
from jaxrl.policies import box_units
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete, Space, split_action_mask
from jaxrl.types import ActorCritic, NetworkParams


class Critic(nn.Module):
    """The value of an action: an MLP of the encoded observation and the action."""

    mlp: MLP  # over {"action", "obs"}
    action_space: Space

    def __call__(self, obs: Any, action: jax.Array, training: bool = False) -> jax.Array:
        if isinstance(self.action_space, Box):
            action = _normalize(self.action_space, action)
        return self.mlp({"action": action, "obs": split_action_mask(obs)[0]}, training)[..., 0]


def _normalize(box: Box, action: jax.Array) -> jax.Array:
    """Actions `[..., *action_shape]` to float32 `[..., m]`, in the normalised units of the policy heads."""
    flat = action.reshape(*action.shape[: action.ndim - len(box.shape)], -1).astype(jnp.float32)
    origin, scale = (jnp.broadcast_to(jnp.asarray(x, jnp.float32), flat.shape) for x in box_units(box))
    return (flat - origin) / jnp.where(scale > 0, scale, 1.0)


def critic(
    observation_space: Space,
    action_space: Space,
    *,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    channels: Sequence[int] = (),
    layer_norm: bool = False,
    scale_observations: bool = True,
    dtype: str = "float32",
) -> nn.Module:
    """A critic, the value of an action: `apply(params, obs[..., *obs_shape], action[..., *action_shape]) -> value[...]`.

    Args:
      observation_space, hidden, activation, channels, layer_norm, scale_observations, dtype: as for `q_network`. An action mask
        is ignored.
      action_space: a `Box`, whose actions are scaled from the environment's units to the normalised units of `jaxrl.policies`;
        or `Discrete` or `MultiDiscrete`, whose actions are encoded as one-hot vectors.

    Raises:
      ValueError: for another action space, an unknown activation or dtype, `channels` without an image or more than fit it.
      TypeError: for widths that are not ints.
    """
    options = check_body(
        observation_space, hidden=hidden, activation=activation, channels=channels, dtype=dtype, layer_norm=layer_norm,
        scale_observations=scale_observations,
    )  # fmt: skip
    if not isinstance(action_space, Box | Discrete | MultiDiscrete):
        raise ValueError(f"a critic needs a Box, Discrete or MultiDiscrete action space, got {action_space}")
    actions = Box(-np.inf, np.inf, (math.prod(action_space.shape),)) if isinstance(action_space, Box) else action_space
    space = Dict({"action": actions, "obs": split_action_mask(observation_space)[0]})
    return Critic(MLP(num_outputs=1, **options | {"space": space}), action_space)


class Ensemble(NamedTuple):
    """A network whose parameters and outputs have a leading axis of independent members."""

    init: Callable[..., Any]  # (key, *inputs) -> params, leaves [N, ...]
    apply: Callable[..., Any]  # (params, *inputs) -> outputs, leaves [N, ...]
    apply_training: Callable[..., Any] | None = None  # (params, key, *inputs) -> (outputs, statistics), leaves [N, ...]


class Trainable(NamedTuple):
    """A `jaxrl.types.TrainableNetwork` made of a flax module whose last argument is `training`; `trainable` builds one."""

    init: Callable[..., NetworkParams]
    apply: Callable[..., Any]
    apply_training: Callable[..., tuple[Any, Any]]


def trainable(module: nn.Module) -> Trainable:
    """Turn a flax module with dropout or batch renormalisation into a `jaxrl.types.TrainableNetwork`.

    Args:
      module: its keyword argument `training` turns dropout on and makes batch renormalisation use the batch.
    """

    def init(key, *inputs):
        variables = dict(module.init(key, *inputs))
        return NetworkParams({"params": variables.pop("params")}, variables)

    def apply(params, *inputs):
        # An agent that takes gradients of all parameters would train the statistics as if they were weights.
        return module.apply({**params.weights, **jax.lax.stop_gradient(params.statistics)}, *inputs)

    def apply_training(params, key, *inputs):
        outputs, statistics = module.apply(
            {**params.weights, **params.statistics}, *inputs, training=True, rngs={"dropout": key}, mutable=["statistics"]
        )
        return outputs, dict(statistics)

    return Trainable(init, apply, apply_training)


def ensemble(network: Any, num: int) -> Ensemble:
    """`num` independent copies of a network, each initialised with its own key and applied to the same inputs.

    Args:
      network: `init(key, *inputs)` and `apply(params, *inputs)`, such as a `critic` or a `q_network`; or a
        `jaxrl.types.TrainableNetwork`, each member of which then has statistics and dropout of its own.
      num: N, the number of members.

    Returns:
      An `Ensemble`, whose parameters and outputs are those of the network with an additional leading axis, `[N, ...]`.

    Raises:
      TypeError, ValueError: unless `num` is a positive int.

    >>> import jax, jax.numpy as jnp
    >>> critics = ensemble(critic(Box(-1, 1, (3,)), Box(-1, 1, (2,)), hidden=(8,)), 2)
    >>> obs, action = jnp.zeros((5, 3)), jnp.zeros((5, 2))
    >>> critics.apply(critics.init(jax.random.key(0), obs, action), obs, action).shape
    (2, 5)
    """
    check_size("num", num)

    def init(key, *inputs):
        return jax.vmap(lambda key: network.init(key, *inputs))(jax.random.split(key, num))

    def apply(params, *inputs):
        return jax.vmap(lambda params: network.apply(params, *inputs))(params)

    def apply_training(params, key, *inputs):
        return jax.vmap(lambda params, key: network.apply_training(params, key, *inputs))(params, jax.random.split(key, num))

    return Ensemble(init, apply, apply_training if hasattr(network, "apply_training") else None)


def actor_critic(
    observation_space: Space,
    action_space: Space,
    *,
    num_critics: int = 2,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    channels: Sequence[int] = (),
    layer_norm: bool = False,
    dropout: float = 0.0,
    batch_renorm: bool = False,
    scale_observations: bool = True,
    dtype: str = "float32",
) -> ActorCritic:
    """The networks of SAC: a policy, whose standard deviation depends on the state for a `Box`, and an ensemble of critics.

    With `dropout` or `batch_renorm`, the networks concerned are `jaxrl.types.TrainableNetwork`s.

    Args:
      observation_space, hidden, activation, channels, layer_norm, scale_observations, dtype: as for `policy`, for both networks.
      action_space: a `Box` of floats; or `Discrete`, for which each critic is a `q_network`.
      num_critics: number of critics, K; their values are `[K, ...]`, and `[K, ..., n]` for `Discrete`.
      dropout: share of the hidden units of the critics that a pass in training sets to 0; 0.01 with layer_norm is DroQ
        (Hiraoka et al. 2022).
      batch_renorm: batch renormalisation of the inputs and hidden layers of actor and critics, as in CrossQ (Bhatt et al. 2024).

    Raises:
      ValueError, TypeError: as `policy` and `critic`; ValueError for `dropout` outside of [0, 1).
    """
    if not isinstance(action_space, Box | Discrete):
        raise ValueError(f"actor_critic needs a Box or Discrete as its action space, got {action_space}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}")
    options: dict[str, Any] = {
        "hidden": hidden, "activation": activation, "channels": channels, "layer_norm": layer_norm,
        "scale_observations": scale_observations, "dtype": dtype,
    }  # fmt: skip
    if isinstance(action_space, Box):
        actor = policy(observation_space, action_space, state_dependent_std=True, log_std=0.0, **options)
        value: Any = critic(observation_space, action_space, **options)
        changed = value.clone(mlp=value.mlp.clone(dropout=dropout, batch_renorm=batch_renorm))
    else:
        actor = policy(observation_space, action_space, **options)
        value = q_network(observation_space, action_space, **options)
        changed = value.clone(dropout=dropout, batch_renorm=batch_renorm)
    return ActorCritic(
        trainable(actor.clone(actor=actor.actor.clone(batch_renorm=True))) if batch_renorm else actor,
        ensemble(trainable(changed) if dropout or batch_renorm else value, num_critics),
    )


def deterministic_policy(
    observation_space: Space,
    action_space: Space,
    *,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    channels: Sequence[int] = (),
    layer_norm: bool = False,
    scale_observations: bool = True,
    dtype: str = "float32",
) -> nn.Module:
    """A deterministic policy. Its output `[..., m]` is what `jaxrl.policies.deterministic_head` takes, before the tanh.

    Weights are orthogonal, with scale 0.01 in the last layer, so that actions start near the middle of the Box.

    Args:
      observation_space, hidden, activation, channels, layer_norm, scale_observations, dtype: as for `q_network`.
      action_space: a `Box` of m numbers.

    Raises:
      ValueError: for another action space, an unknown activation or dtype, `channels` without an image or more than fit it.
      TypeError: for widths that are not ints.
    """
    options = check_body(
        observation_space, hidden=hidden, activation=activation, channels=channels, dtype=dtype, layer_norm=layer_norm,
        scale_observations=scale_observations,
    )  # fmt: skip
    if not isinstance(action_space, Box):
        raise ValueError(f"a deterministic policy needs a Box as its action space, got {action_space}")
    return MLP(num_outputs=math.prod(action_space.shape), orthogonal=True, output_scale=0.01, **options)


def deterministic_actor_critic(
    observation_space: Space,
    action_space: Space,
    *,
    num_critics: int = 2,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    channels: Sequence[int] = (),
    layer_norm: bool = False,
    scale_observations: bool = True,
    dtype: str = "float32",
) -> ActorCritic:
    """The networks of TD3 and DDPG: a deterministic policy, and an ensemble of critics.

    Args:
      observation_space, hidden, activation, channels, layer_norm, scale_observations, dtype: as for `actor_critic`.
      action_space: a `Box` of floats.
      num_critics: number of critics, K; their values are `[K, ...]`.

    Raises:
      ValueError, TypeError: as `deterministic_policy` and `critic`.
    """
    options: dict[str, Any] = {
        "hidden": hidden, "activation": activation, "channels": channels, "layer_norm": layer_norm,
        "scale_observations": scale_observations, "dtype": dtype,
    }  # fmt: skip
    actor = deterministic_policy(observation_space, action_space, **options)
    return ActorCritic(actor, ensemble(critic(observation_space, action_space, **options), num_critics))
