"""Networks in flax.linen: Q-values, policies, values, on an MLP or a small CNN.

Any pair of `init(key, obs)` and `apply(params, obs)` will do in their place (`jaxrl.types.Network`).
All of them take observations with any leading batch dimensions.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxrl._src.checks import check_choice, check_size
from jaxrl.types import Box, Discrete, Space

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "silu": nn.silu, "gelu": nn.gelu, "elu": nn.elu}


def orthogonal(scale: float):
    """An initialiser of matrices with orthogonal rows or columns of length `scale` (Saxe et al. 2014).

    Gram-Schmidt on normal numbers, each column twice for float32's sake. flax's own calls LAPACK's QR:
    batched by `vmap`, that can hang for good on a CPU of two cores (jaxlib 0.10.2), and on a GPU it is slow.
    """

    def init(key, shape, dtype=jnp.float32):
        rows, columns = shape
        tall = jax.random.normal(key, (max(shape), min(shape)), dtype)

        def orthonormalize(i, q):
            column = jax.lax.dynamic_index_in_dim(tall, i, axis=1, keepdims=False)
            for _ in range(2):
                column = column - q @ (column @ q)
            column = column / jnp.linalg.norm(column)
            return jax.lax.dynamic_update_index_in_dim(q, column, i, axis=1)

        q = jax.lax.fori_loop(0, min(shape), orthonormalize, jnp.zeros_like(tall))
        return jnp.asarray(scale, dtype) * (q if rows >= columns else q.T)

    return init


def _convolve(x: jax.Array, kernel: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """`[N, H, W, C]` and `[3, 3, C, F]` to `[N, H - 2, W - 2, F]`, as one matrix product of all patches; for `nn.Conv`.

    On a CPU, XLA's own convolution inside a loop makes the whole update of a DQN in MinAtar's Breakout four times as slow. And
    with a kernel for each seed of a `vmap` it becomes a grouped one.
    """
    height, width = (size - 2 for size in x.shape[1:3])
    patches = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


class Encoder(nn.Module):
    """Observations `[..., *obs_shape]` to features `[..., F]`: one-hot for Discrete, a convolution
    per entry of `channels` for images `[H, W, C]`, flattened."""

    space: Space
    channels: Sequence[int] = ()
    dtype: str = "float32"

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        if isinstance(self.space, Discrete):
            return jax.nn.one_hot(obs, self.space.n, dtype=jnp.float32)
        batch = obs.shape[: obs.ndim - len(self.space.shape)]
        x = obs.astype(jnp.float32)
        for channels in self.channels:
            conv = nn.Conv(
                channels, (3, 3), padding="VALID", dtype=DTYPES[self.dtype], conv_general_dilated_cls=lambda: _convolve
            )
            x = nn.relu(conv(x))
        return x.reshape(*batch, -1)


class MLP(nn.Module):
    """An encoder, hidden layers, and a linear layer of `num_outputs` whose weights have the scale `output_scale`.

    Parameters are float32. The last layer always computes in it too: a bfloat16 near 100 is right to within 0.25.
    """

    space: Space
    num_outputs: int
    hidden: Sequence[int]
    activation: str
    channels: Sequence[int] = ()
    orthogonal: bool = False
    output_scale: float = 1.0
    dtype: str = "float32"

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        def init(scale):
            return orthogonal(scale) if self.orthogonal else nn.initializers.lecun_normal()

        x = Encoder(self.space, self.channels, self.dtype)(obs)
        for width in self.hidden:
            x = ACTIVATIONS[self.activation](nn.Dense(width, dtype=DTYPES[self.dtype], kernel_init=init(np.sqrt(2.0)))(x))
        return nn.Dense(self.num_outputs, dtype=jnp.float32, kernel_init=init(self.output_scale))(x)


class Policy(nn.Module):
    """Parameters of an action distribution and, with `critic`, the value beside them: two networks, nothing shared."""

    actor: nn.Module
    critic: nn.Module | None
    action_size: int | None  # of a Box; None for logits
    state_dependent_std: bool
    log_std: float

    @nn.compact
    def __call__(self, obs: jax.Array) -> Any:
        policy = self.actor(obs)
        if self.action_size is not None:
            mean = policy[..., : self.action_size]
            if self.state_dependent_std:
                log_std = self.log_std + policy[..., self.action_size :]
            else:
                log_std = self.param("log_std", nn.initializers.constant(self.log_std), (self.action_size,))
            policy = (mean, jnp.broadcast_to(log_std, mean.shape))
        return policy if self.critic is None else (policy, self.critic(obs)[..., 0])


def q_network(
    observation_space: Space,
    action_space: Space,
    *,
    hidden: Sequence[int] = (120, 84),
    activation: str = "relu",
    channels: Sequence[int] = (),
    dtype: str = "float32",
) -> nn.Module:
    """Action values: `apply(params, obs[..., *obs_shape]) -> q[..., n]`.

    Args:
      observation_space: what it reads; Discrete observations are one-hot.
      action_space: Discrete(n).
      hidden: widths of the hidden layers.
      activation: one of `ACTIVATIONS`.
      channels: 3×3 convolutions before them, for observations `[H, W, C]`.
      dtype: "float32" or "bfloat16", in which convolutions and hidden layers compute; parameters, their
        gradients and outputs are float32. Half the memory traffic on a GPU or TPU; slower on a CPU.

    Raises:
      ValueError: for an action space that is not Discrete, an unknown activation or dtype, channels without an image or
        more than fit it.
    """
    if not isinstance(action_space, Discrete):
        raise ValueError(
            f"a Q-network (dqn) needs a Discrete action space, got {action_space}; for continuous actions use reinforce"
        )
    _check(observation_space, hidden, activation, channels, dtype)
    return MLP(observation_space, action_space.n, tuple(hidden), activation, tuple(channels), dtype=dtype)


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
    dtype: str = "float32",
) -> nn.Module:
    """A stochastic policy: `logits[..., n]` for Discrete(n), `(mean, log_std)`, each `[..., m]`, for a Box.

    Args:
      observation_space, hidden, activation, channels, dtype: as for `q_network`.
      action_space: Discrete, or a Box of m numbers.
      value: also give the state's value: `(policy, value[...])`, by a second network of the same form.
      state_dependent_std: the network gives log_std too; otherwise it is a parameter of its own.
      log_std: its initial value. Policies start near their middle: orthogonal weights, 0.01 at the output.

    Raises:
      ValueError: for another action space, an unknown activation or dtype, channels without an image or more than fit it.
    """
    _check(observation_space, hidden, activation, channels, dtype)
    if not isinstance(action_space, Box | Discrete):
        raise ValueError(f"a policy needs a Discrete action space or a Box, got {action_space}")
    if isinstance(action_space, Box):
        size: int | None = math.prod(action_space.shape)
        num_outputs = math.prod(action_space.shape) * (2 if state_dependent_std else 1)
    else:
        size, num_outputs = None, action_space.n

    def mlp(outputs, scale):
        return MLP(observation_space, outputs, tuple(hidden), activation, tuple(channels), True, scale, dtype)

    critic = mlp(1, 1.0) if value else None
    return Policy(mlp(num_outputs, 0.01), critic, size, state_dependent_std, log_std)


def _check(observation_space: Space, hidden: Sequence[int], activation: str, channels: Sequence[int], dtype: str) -> None:
    for width in (*hidden, *channels):
        check_size("hidden and channels", width)
    check_choice("activation", activation, ACTIVATIONS)
    check_choice("dtype", dtype, DTYPES)
    if channels and len(observation_space.shape) != 3:
        raise ValueError(f"channels={tuple(channels)} needs observations [H, W, C], got {observation_space}")
    if channels and min(observation_space.shape[:2]) <= 2 * len(channels):
        raise ValueError(
            f"channels={tuple(channels)}: each 3×3 convolution takes 2 from height and width, which leaves nothing of "
            f"{observation_space}; use fewer than {(min(observation_space.shape[:2]) + 1) // 2} of them"
        )
