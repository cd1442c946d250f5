"""Recurrent policies and action values with a gated recurrent unit (`jaxrl.types.RecurrentNetwork`)."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl._src.checks import check_size
from jaxrl.networks.feedforward import (
    policy,  # noqa: F401  # the help texts "as for `policy`" are read from it
    policy_outputs,
    split_gaussian,
)
from jaxrl.networks.layers import MLP, check_action_mask, check_body, dense, mask_illegal_actions, orthogonal
from jaxrl.networks.storage import stored
from jaxrl.spaces import Discrete, Space


def _recurrent_kernel(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """Initialise a kernel `[H, 3 H]` with one orthogonal matrix for each of the three gates."""
    matrices = jax.vmap(lambda key: orthogonal(1.0)(key, (shape[0], shape[0]), dtype))(jax.random.split(key, 3))
    return jnp.concatenate(list(matrices), axis=1)


class GRU(nn.Module):
    """One step of a gated recurrent unit (Cho et al. 2014), in the variant of cuDNN and flax. Maps (x, h) to the next h.

    r = σ(W_r x + U_r h + b_r), z = σ(W_z x + U_z h + b_z), n = tanh(W_n x + b_n + r (U_n h + c_n)), h' = (1 − z) n + z h.
    The two products are stored in `dtype`, the gates and the carry are float32.
    """

    num_units: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, carry: jax.Array) -> jax.Array:
        size, layer = self.num_units, functools.partial(dense, 3 * self.num_units, dtype=self.dtype)
        inputs = stored(layer(kernel_init=orthogonal(1.0), name="input")(x), self.dtype)
        recurrent = stored(layer(use_bias=False, kernel_init=_recurrent_kernel, name="recurrent")(carry), self.dtype)
        bias = self.param("candidate_bias", nn.initializers.zeros, (size,), jnp.float32)
        input_r, input_z, input_n = jnp.split(inputs, 3, axis=-1)
        recurrent_r, recurrent_z, recurrent_n = jnp.split(recurrent, 3, axis=-1)
        reset, update = jax.nn.sigmoid(input_r + recurrent_r), jax.nn.sigmoid(input_z + recurrent_z)
        candidate = jnp.tanh(input_n + reset * (recurrent_n + jnp.broadcast_to(bias, recurrent_n.shape)))
        return (1.0 - update) * candidate + update * carry


class RecurrentQNetwork(nn.Module):
    """Action values from an encoder, hidden layers, a GRU and a linear layer."""

    body: MLP
    num_units: int
    action_space: Discrete

    def initial_carry(self, num_envs: int) -> jax.Array:
        """Zeros, float32 `[num_envs, num_units]`."""
        return jnp.zeros((num_envs, self.num_units), jnp.float32)

    @nn.compact
    def __call__(self, obs: Any, carry: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = GRU(self.num_units, self.body.dtype)(self.body(obs), carry)
        return mask_illegal_actions(
            nn.Dense(self.action_space.n, dtype=jnp.float32, name="q")(carry), obs, self.action_space
        ), carry


class RecurrentPolicy(nn.Module):
    """Parameters of an action distribution, and optionally a value, from an encoder, hidden layers, a GRU and linear layers."""

    body: MLP
    num_units: int
    num_outputs: int
    action_space: Space
    action_size: int | None  # of a Box; None for logits
    value: bool
    state_dependent_std: bool
    log_std: float

    def initial_carry(self, num_envs: int) -> jax.Array:
        """Zeros, float32 `[num_envs, num_units]`."""
        return jnp.zeros((num_envs, self.num_units), jnp.float32)

    @nn.compact
    def __call__(self, obs: Any, carry: jax.Array) -> tuple[Any, jax.Array]:
        carry = GRU(self.num_units, self.body.dtype)(self.body(obs), carry)
        output = nn.Dense(self.num_outputs, dtype=jnp.float32, kernel_init=orthogonal(0.01), name="actor")(carry)
        if self.action_size is None:
            output = mask_illegal_actions(output, obs, self.action_space)
        else:
            output = split_gaussian(self, output)
        if not self.value:
            return output, carry
        value = nn.Dense(1, dtype=jnp.float32, kernel_init=orthogonal(1.0), name="critic")(carry)
        return (output, value[..., 0]), carry


def recurrent_policy(
    observation_space: Space,
    action_space: Space,
    *,
    value: bool = False,
    hidden: Sequence[int] = (64,),
    num_units: int = 64,
    activation: str = "tanh",
    channels: Sequence[int] = (),
    state_dependent_std: bool = False,
    log_std: float = -0.5,
    layer_norm: bool = False,
    scale_observations: bool = True,
    dtype: str = "float32",
) -> RecurrentPolicy:
    """A stochastic policy with a GRU: `apply(params, obs[B, ...], carry[B, num_units]) -> (output, carry)`.

    The output is that of `policy` for the same action space. With `value`, policy and value share all layers but the last.

    Args:
      observation_space, action_space, activation, channels, dtype: as for `policy`.
      state_dependent_std, log_std, layer_norm, scale_observations: as for `policy`.
      value: return `(policy, value[B])` as the output.
      hidden: widths of the hidden layers before the GRU.
      num_units: size of the GRU's carry, which is float32.

    Raises:
      ValueError, TypeError: as for `policy`; TypeError for `num_units` that is not an int.

    >>> from jaxrl.spaces import Box
    >>> network = recurrent_policy(Box(-1, 1, (3,)), Discrete(2), num_units=8)
    >>> obs, carry = jnp.zeros((4, 3)), network.initial_carry(4)
    >>> logits, carry = network.apply(network.init(jax.random.key(0), obs, carry), obs, carry)
    >>> logits.shape, carry.shape
    ((4, 2), (4, 8))
    """
    options = check_body(
        observation_space, hidden=hidden, activation=activation, channels=channels, dtype=dtype, layer_norm=layer_norm,
        scale_observations=scale_observations,
    )  # fmt: skip
    num_outputs, size = policy_outputs(observation_space, action_space, state_dependent_std)
    body = MLP(num_outputs=None, orthogonal=True, **options)
    num_units = check_size("num_units", num_units)
    return RecurrentPolicy(body, num_units, num_outputs, action_space, size, value, state_dependent_std, log_std)


def recurrent_q_network(
    observation_space: Space,
    action_space: Space,
    *,
    hidden: Sequence[int] = (120,),
    num_units: int = 84,
    activation: str = "relu",
    channels: Sequence[int] = (),
    layer_norm: bool = False,
    scale_observations: bool = True,
    dtype: str = "float32",
) -> RecurrentQNetwork:
    """Action values with a GRU: `apply(params, obs[B, ...], carry[B, num_units]) -> (q[B, n], carry)`.

    Args:
      observation_space, action_space, activation, channels, layer_norm, scale_observations, dtype: as for `q_network`.
      hidden: widths of the hidden layers before the GRU.
      num_units: size of the GRU's carry, which is float32.

    Raises:
      ValueError, TypeError: as for `q_network`; TypeError for `num_units` that is not an int.
    """
    if not isinstance(action_space, Discrete):
        raise ValueError(f"a recurrent Q-network needs a Discrete action space, got {action_space}")
    options = check_body(
        observation_space, hidden=hidden, activation=activation, channels=channels, dtype=dtype, layer_norm=layer_norm,
        scale_observations=scale_observations,
    )  # fmt: skip
    check_action_mask(observation_space, action_space)
    return RecurrentQNetwork(MLP(num_outputs=None, **options), check_size("num_units", num_units), action_space)
