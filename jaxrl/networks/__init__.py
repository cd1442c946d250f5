"""Networks in flax.linen: action values, policies and critics, based on a multilayer perceptron, a small CNN or a GRU.

They are optional. Any pair of functions `init(key, obs)` and `apply(params, obs)` is a network (`jaxrl.types.Network`), and with
a carry, a recurrent network (`jaxrl.types.RecurrentNetwork`). The networks here take observations with any leading batch axes.
"""

from jaxrl.networks.critics import (
    Ensemble,
    actor_critic,
    critic,
    deterministic_actor_critic,
    deterministic_policy,
    ensemble,
    trainable,
)
from jaxrl.networks.distributional import distributional_q_network, implicit_quantile_network
from jaxrl.networks.feedforward import policy, q_network
from jaxrl.networks.layers import ACTIVATIONS, MLP, Encoder, orthogonal
from jaxrl.networks.normalization import BatchRenorm
from jaxrl.networks.recurrent import recurrent_policy, recurrent_q_network
from jaxrl.networks.storage import DTYPES

__all__ = [
    "ACTIVATIONS", "DTYPES", "MLP", "BatchRenorm", "Encoder", "Ensemble", "actor_critic", "critic",
    "deterministic_actor_critic", "deterministic_policy", "distributional_q_network", "ensemble",
    "implicit_quantile_network", "orthogonal", "policy", "q_network", "recurrent_policy", "recurrent_q_network",
    "trainable",
]  # fmt: skip
