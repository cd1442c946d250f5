"""Networks of distributional Q-learning: several numbers for each action, which describe the distribution of its return."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxrl._src.checks import check_size
from jaxrl.networks.feedforward import dueling_network, q_options
from jaxrl.networks.layers import MLP, dense, hidden_layers, mask_illegal_rows
from jaxrl.networks.noisy import noisy_network
from jaxrl.networks.storage import gradient_stored, stored
from jaxrl.spaces import Discrete, Space
from jaxrl.types import Network


class DistributionalNetwork(nn.Module):
    """An MLP with K outputs for each action, `[..., A, K]`."""

    mlp: MLP
    action_space: Discrete

    def __call__(self, obs: Any) -> jax.Array:
        outputs = self.mlp(obs)
        return mask_illegal_rows(outputs.reshape(*outputs.shape[:-1], self.action_space.n, -1), obs, self.action_space)


def distributional_q_network(
    observation_space: Space,
    action_space: Space,
    *,
    num_atoms: int = 51,
    hidden: Sequence[int] = (120, 84),
    activation: str = "relu",
    channels: Sequence[int] = (),
    dueling: bool = False,
    noisy: bool = False,
    layer_norm: bool = False,
    scale_observations: bool = True,
    dtype: str = "float32",
) -> Network:
    """K numbers for each action: `apply(params, obs[..., *obs_shape]) -> [..., n, K]`.

    For `jaxrl.agents.c51` and `rainbow` they are the logits of K atoms, for `qr_dqn` quantiles of the return.

    Args:
      observation_space, hidden, activation, channels, noisy, layer_norm, scale_observations, dtype: as for `q_network`. Illegal
        actions get −inf in all K places.
      action_space: `Discrete(n)`.
      num_atoms: K, the number of atoms or quantiles.
      dueling: use separate streams for the state's value and the advantages, from the last hidden layer on. Each atom has its own
        value, and its advantages have mean 0 over the actions (Hessel et al. 2018).

    Raises:
      ValueError, TypeError: as for `q_network`, and for `num_atoms` that is not a positive int.

    >>> from jaxrl.spaces import Box
    >>> network = distributional_q_network(Box(-1, 1, (3,)), Discrete(2), num_atoms=5, hidden=(8,))
    >>> obs = jnp.zeros((4, 3))
    >>> network.apply(network.init(jax.random.key(0), obs), obs).shape
    (4, 2, 5)
    """
    actions, options = q_options(
        observation_space, action_space, hidden=hidden, activation=activation, channels=channels, dtype=dtype,
        layer_norm=layer_norm, scale_observations=scale_observations,
    )  # fmt: skip
    options["noisy"] = noisy
    num_atoms = check_size("num_atoms", num_atoms)
    plain = DistributionalNetwork(MLP(num_outputs=actions.n * num_atoms, **options), actions)
    network = dueling_network(actions, options, num_atoms) if dueling else plain
    return noisy_network(network, observation_space) if noisy else network


class ImplicitQuantileNetwork(nn.Module):
    """Quantiles of the return at given levels (Dabney et al. 2018b, section 3.1).

    The features of the observation are multiplied by an embedding of the level, relu(W cos(π i τ) + b) with i = 0 … E − 1
    (eq. 4).
    """

    body: MLP  # the features
    action_space: Discrete
    hidden: Sequence[int]  # widths of the hidden layers after the product
    embedding_size: int  # E

    @nn.compact
    def __call__(self, obs: Any, tau: jax.Array) -> jax.Array:
        features, dtype = self.body(obs), self.body.dtype
        multiples = math.pi * jnp.arange(self.embedding_size, dtype=jnp.float32)
        cosines = jnp.cos(tau[..., None] * multiples.reshape((1,) * tau.ndim + multiples.shape))
        linear = dense(features.shape[-1], dtype=dtype, name="embedding")(cosines)
        embedding = nn.relu(stored(linear, dtype))  # [..., N, F] or [N, F]
        x = features[..., None, :]
        x = gradient_stored(x * embedding.reshape((1,) * (x.ndim - embedding.ndim) + embedding.shape), dtype)
        x = hidden_layers(x, self.hidden, self.body.activation, dtype=dtype, layer_norm=self.body.layer_norm)
        quantiles = jnp.swapaxes(nn.Dense(self.action_space.n, dtype=jnp.float32)(x), -1, -2)
        return mask_illegal_rows(quantiles, obs, self.action_space)


def implicit_quantile_network(
    observation_space: Space,
    action_space: Space,
    *,
    embedding_size: int = 64,
    hidden: Sequence[int] = (120, 84),
    activation: str = "relu",
    channels: Sequence[int] = (),
    layer_norm: bool = False,
    scale_observations: bool = True,
    dtype: str = "float32",
) -> nn.Module:
    """Quantiles of the return of each action at any levels: `apply(params, obs[..., *obs_shape], tau) -> [..., n, N]`.

    The levels `tau` in [0, 1] are `[..., N]`, or `[N]` for the same ones in the whole batch. `init(key, obs, tau)` returns the
    parameters. The last hidden layer comes after the product of features and embedded levels, all others before it. Its
    computation time is proportional to N.

    Args:
      observation_space, hidden, activation, channels, layer_norm, scale_observations, dtype: as for `q_network`. Illegal actions
        have the quantiles −inf.
      action_space: `Discrete(n)`.
      embedding_size: E, the number of cosines that represent a level.

    Raises:
      ValueError, TypeError: as for `q_network`, and for `embedding_size` that is not a positive int.

    >>> from jaxrl.spaces import Box
    >>> network = implicit_quantile_network(Box(-1, 1, (3,)), Discrete(2), hidden=(8,))
    >>> obs, tau = jnp.zeros((4, 3)), jnp.array([0.25, 0.75])
    >>> network.apply(network.init(jax.random.key(0), obs, tau), obs, tau).shape
    (4, 2, 2)
    """
    actions, options = q_options(
        observation_space, action_space, hidden=hidden, activation=activation, channels=channels, dtype=dtype,
        layer_norm=layer_norm, scale_observations=scale_observations,
    )  # fmt: skip
    body = MLP(num_outputs=None, **options | {"hidden": options["hidden"][:-1]})
    return ImplicitQuantileNetwork(body, actions, options["hidden"][-1:], check_size("embedding_size", embedding_size))
