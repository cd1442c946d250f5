"""Action-value networks for any action space, ensembles, and deterministic policies: the networks of DDPG, TD3 and SAC."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrl._src.checks import check_size
from jaxrl.networks.feedforward import policy
from jaxrl.networks.layers import MLP, check_body
from jaxrl.policies import box_units
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete, Space, split_action_mask
from jaxrl.types import ActorCritic


class Critic(nn.Module):
    """The value of an action: an MLP of the encoded observation and the action."""

    mlp: MLP  # over {"action", "obs"}
    action_space: Space

    def __call__(self, obs: Any, action: jax.Array) -> jax.Array:
        if isinstance(self.action_space, Box):
            action = _normalize(self.action_space, action)
        return self.mlp({"action": action, "obs": split_action_mask(obs)[0]})[..., 0]


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


def ensemble(network: Any, num: int) -> Ensemble:
    """`num` independent copies of a network, each initialised with its own key and applied to the same inputs.

    Args:
      network: `init(key, *inputs)` and `apply(params, *inputs)`, such as a `critic` or a `q_network`.
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

    return Ensemble(init, apply)


def actor_critic(
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
    """The networks of SAC: a policy with a standard deviation that depends on the state, and an ensemble of critics.

    Args:
      observation_space, hidden, activation, channels, layer_norm, scale_observations, dtype: as for `policy`, for both networks.
      action_space: a `Box` of floats.
      num_critics: number of critics, K; their values are `[K, ...]`.

    Raises:
      ValueError, TypeError: as `policy` and `critic`.
    """
    if not isinstance(action_space, Box):
        raise ValueError(f"actor_critic needs a Box as its action space, got {action_space}")
    options: dict[str, Any] = {
        "hidden": hidden, "activation": activation, "channels": channels, "layer_norm": layer_norm,
        "scale_observations": scale_observations, "dtype": dtype,
    }  # fmt: skip
    actor = policy(observation_space, action_space, state_dependent_std=True, log_std=0.0, **options)
    return ActorCritic(actor, ensemble(critic(observation_space, action_space, **options), num_critics))


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
