"""Networks in flax.linen: action values, policies and critics, on a multilayer perceptron, a small CNN or a GRU.

They are optional: any pair of functions `init(key, obs)` and `apply(params, obs)` is a network (`jaxrl.types.Network`), and with
a carry a recurrent one (`jaxrl.types.RecurrentNetwork`). All of these take observations with any leading batch dimensions.
"""

from jaxrl.networks.critics import Ensemble, critic, deterministic_policy, ensemble
from jaxrl.networks.feedforward import policy, q_network
from jaxrl.networks.layers import ACTIVATIONS, DTYPES, MLP, Encoder, orthogonal
from jaxrl.networks.recurrent import recurrent_policy, recurrent_q_network

__all__ = [
    "ACTIVATIONS", "DTYPES", "MLP", "Encoder", "Ensemble", "critic", "deterministic_policy", "ensemble", "orthogonal", "policy",
    "q_network", "recurrent_policy", "recurrent_q_network",
]  # fmt: skip
