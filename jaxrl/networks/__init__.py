"""Networks in flax.linen: action values, policies and values, on a multilayer perceptron or a small CNN.

They are optional: any pair of functions `init(key, obs)` and `apply(params, obs)` is a network (`jaxrl.types.Network`).
All of these take observations with any leading batch dimensions.
"""

from jaxrl.networks.feedforward import policy, q_network
from jaxrl.networks.layers import ACTIVATIONS, DTYPES, MLP, Encoder, orthogonal

__all__ = ["ACTIVATIONS", "DTYPES", "MLP", "Encoder", "orthogonal", "policy", "q_network"]
