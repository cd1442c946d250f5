"""Builders of networks without recurrence: action values and policies."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl._src.checks import check_scalar
from jaxrl.networks.layers import (
    MLP,
    check_action_mask,
    check_body,
    dense,
    hidden_layers,
    mask_illegal_actions,
    mask_illegal_rows,
)
from jaxrl.networks.noisy import noisy_network
from jaxrl.spaces import Box, Discrete, MultiDiscrete, Space, num_choices, split_action_mask
from jaxrl.types import Network


class DuelingNetwork(nn.Module):
    """Action values as the value of the state plus advantages of mean 0 (Wang et al. 2016, eq. 9).

    With `num_atoms`, there are K such numbers for each action, `[..., A, K]`, each with its own value and advantages.

    The two streams have separate last hidden layers, and share the convolutions and the other hidden layers.
    """

    body: MLP
    action_space: Discrete
    hidden: Sequence[int]  # widths of the hidden layers of each stream
    num_atoms: int | None = None

    @nn.compact
    def __call__(self, obs: Any) -> jax.Array:
        x, noisy = self.body(obs), self.body.noisy

        def stream(num_outputs):
            y = hidden_layers(
                x, self.hidden, self.body.activation, dtype=self.body.dtype, layer_norm=self.body.layer_norm, noisy=noisy
            )
            return dense(num_outputs, noisy=noisy)(y)

        size, num_actions = self.num_atoms or 1, self.action_space.n
        value, advantage = stream(size), stream(num_actions * size)
        value, advantage = (y.reshape(*y.shape[:-1], -1, size) for y in (value, advantage))
        q = value + advantage - jnp.mean(advantage, axis=-2, keepdims=True)
        if self.num_atoms is None:
            return mask_illegal_actions(q[..., 0], obs, self.action_space)
        return mask_illegal_rows(q, obs, self.action_space)


class Policy(nn.Module):
    """Parameters of an action distribution and, with `critic`, also a value, from two networks without shared parameters."""

    actor: nn.Module
    critic: nn.Module | None
    action_size: int | None  # of a Box; None for logits
    state_dependent_std: bool
    log_std: float

    @nn.compact
    def __call__(self, obs: Any, training: bool = False) -> Any:
        policy = self.actor(obs, training)
        if self.action_size is not None:
            policy = split_gaussian(self, policy)
        return policy if self.critic is None else (policy, self.critic(obs)[..., 0])


def split_gaussian(module: Any, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split outputs of a network into (mean, log_std). `log_std` is a parameter of `module` unless it depends on the state."""
    mean = outputs[..., : module.action_size]
    if module.state_dependent_std:
        return mean, module.log_std + outputs[..., module.action_size :]
    log_std = module.param("log_std", nn.initializers.constant(module.log_std), (module.action_size,), jnp.float32)
    return mean, jnp.broadcast_to(log_std, mean.shape)


def q_network(
    observation_space: Space,
    action_space: Space,
    *,
    hidden: Sequence[int] = (120, 84),
    activation: str = "relu",
    channels: Sequence[int] = (),
    dueling: bool = False,
    noisy: bool = False,
    layer_norm: bool = False,
    scale_observations: bool = True,
    dtype: str = "float32",
) -> Network:
    """Action values: `apply(params, obs[..., *obs_shape]) -> q[..., n]`.

    Args:
      observation_space: any space. `Discrete` and `MultiDiscrete` observations are encoded as one-hot vectors; the entries of a
        `Dict` are encoded separately and concatenated. The entry `"action_mask"`, bool `[n]`, is not encoded: illegal actions
        get the value −inf, unless no action is legal.
      action_space: `Discrete(n)`.
      hidden: widths of the hidden layers.
      activation: activation function of the hidden layers: "relu", "tanh", "silu", "gelu" or "elu".
      channels: output channels of each 3×3 convolution before the hidden layers. Convolutions are for images, observations
        `[H, W, C]`, and are followed by a ReLU.
      dueling: use separate streams for the state's value and the advantages, from the last hidden layer on (Wang et al. 2016).
      noisy: perturb the weights of all dense layers with noise of a learned scale, for exploration (Fortunato et al. 2018). The
        network is then a `jaxrl.types.NoisyNetwork`, with `noise(key, batch_shape)` and `apply(params, obs, noise)`.
      layer_norm: apply LayerNorm before each activation.
      scale_observations: scale bounded integers, such as uint8 images, from their bounds to [0, 1]; False only casts them.
      dtype: "float32" or "bfloat16", the dtype in which the results of convolutions and hidden layers, and the gradients with
        respect to them, are stored. Everything else is float32, arithmetic included. bfloat16 reduces the memory traffic of
        many seeds or large batches on a GPU or TPU, but is slower on a CPU.

    Raises:
      ValueError: for an action space that is not Discrete, an action mask that does not fit it, an unknown activation or
        dtype, `channels` without an image or more than fit it.
      TypeError: for widths that are not ints.
    """
    actions, options = q_options(
        observation_space, action_space, hidden=hidden, activation=activation, channels=channels, dtype=dtype,
        layer_norm=layer_norm, scale_observations=scale_observations,
    )  # fmt: skip
    options["noisy"] = noisy
    plain = MLP(num_outputs=actions.n, action_space=actions, **options)
    network = dueling_network(actions, options) if dueling else plain
    return noisy_network(network, observation_space) if noisy else network


def q_options(observation_space: Space, action_space: Space, **options: Any) -> tuple[Discrete, dict[str, Any]]:
    """Check the arguments of a Q-network, and return the actions, and `options` as arguments of `MLP`."""
    if not isinstance(action_space, Discrete):
        raise ValueError(
            f"a Q-network needs a Discrete action space, got {action_space}; for other actions use an agent with a policy, "
            "such as ppo or sac"
        )
    arguments = check_body(observation_space, **options)
    check_action_mask(observation_space, action_space)
    return action_space, arguments


def dueling_network(action_space: Discrete, options: dict[str, Any], num_atoms: int | None = None) -> DuelingNetwork:
    """A dueling network whose streams have the last of the hidden layers in `options`, arguments of `MLP`."""
    hidden = options["hidden"]
    body = MLP(num_outputs=None, **options | {"hidden": hidden[:-1]})
    return DuelingNetwork(body, action_space, hidden[-1:], num_atoms)


def policy(
    observation_space: Space,
    action_space: Space,
    *,
    value: bool = False,
    hidden: Sequence[int] = (64, 64),
    activation: str = "tanh",
    channels: Sequence[int] = (),
    state_dependent_std: bool = False,
    log_std: float = -0.5,
    layer_norm: bool = False,
    scale_observations: bool = True,
    dtype: str = "float32",
) -> nn.Module:
    """A stochastic policy. Its outputs are what `jaxrl.policies.policy_head` takes for the same action space.

    They are `logits[..., n]` for `Discrete(n)`, `logits[..., sum(nvec)]` for `MultiDiscrete(nvec)`, and `(mean, log_std)`, each
    `[..., m]`, for a `Box` of m numbers. Weights are orthogonal, with scale 0.01 in the last layer, so that policies start near
    uniform, or near the middle of the Box.

    Args:
      observation_space, hidden, activation, channels, layer_norm, scale_observations, dtype: as for `q_network`. The entry
        `"action_mask"` of a `Dict`, bool with one entry for each logit, sets the logits of illegal actions to −inf.
      action_space: `Discrete`, `MultiDiscrete` or `Box`.
      value: return `(policy, value[...])`, with the value of the state from a second network of the same form.
      state_dependent_std: for a Box of actions, make the standard deviation an output of the network; otherwise it is a separate
        parameter.
      log_std: initial value of `log_std`, the logarithm of the standard deviation, for a Box of actions. It is in normalised
        units: where both bounds are finite, [-1, 1] stands for [low, high].

    Raises:
      ValueError: for another action space, an action mask that does not fit it, an unknown activation or dtype, `channels`
        without an image or more than fit it.
      TypeError: for widths that are not ints.
    """
    options = check_body(
        observation_space, hidden=hidden, activation=activation, channels=channels, dtype=dtype, layer_norm=layer_norm,
        scale_observations=scale_observations,
    )  # fmt: skip
    num_outputs, size = policy_outputs(observation_space, action_space, state_dependent_std)
    masked = action_space if size is None else None
    actor = MLP(num_outputs=num_outputs, orthogonal=True, output_scale=0.01, action_space=masked, **options)
    critic = MLP(num_outputs=1, orthogonal=True, **options) if value else None
    return Policy(actor, critic, size, state_dependent_std, float(check_scalar("log_std", log_std)))


def policy_outputs(observation_space: Space, action_space: Space, state_dependent_std: bool) -> tuple[int, int | None]:
    """The number of outputs of a policy network, and the size of the actions if they are a Box."""
    if isinstance(action_space, Discrete | MultiDiscrete):
        check_action_mask(observation_space, action_space)
        return num_choices(action_space), None
    if not isinstance(action_space, Box):
        raise ValueError(f"a policy needs a Discrete or MultiDiscrete action space or a Box, got {action_space}")
    if split_action_mask(observation_space)[1] is not None:
        raise ValueError(f"an action mask needs a Discrete or MultiDiscrete action space, got {action_space}")
    size = math.prod(action_space.shape)
    return (2 * size if state_dependent_std else size), size
