"""The outputs of an agent's network as a differentiable function of one observation, for `jaxrl.explain`.

An agent's `exploit` returns an action, which has no gradient if it is discrete. The functions here return what the action is
chosen by. Each takes the network and the action space as the agent's factory does, and the factory's options in a mapping.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl import losses
from jaxrl.normalization import normalized_input
from jaxrl.policies import box_units, deterministic_head, to_units
from jaxrl.spaces import Box, Space
from jaxrl.types import ActorCritic, Carry, Network, Obs, PolicyParams, RecurrentNetwork

Options = Mapping[str, Any]

LOGITS, ACTION_VALUES, ACTION = "logits", "action values", "action"


class Outputs(NamedTuple):
    """What a policy computes from one observation.

    Attributes:
      action: the logits `[n]` or the action values `[n]` of the actions of a `Discrete`, −inf if illegal; the logits
        `[sum(nvec)]` of a `MultiDiscrete`; or, for a `Box` of m numbers, the greedy action `[m]` in the environment's units,
        before it is clipped to the bounds.
      value: the value of the state, a scalar: the largest action value, or the critic's. None if the policy's parameters hold
        no value, as those of SAC, TD3, DDPG, OpenAI-ES, and REINFORCE without a learned baseline.
    """

    action: jax.Array
    value: jax.Array | None


class PolicyOutputs(NamedTuple):
    """The outputs of a policy as a function; `jaxrl.explain.policy_outputs` makes it for any algorithm of the table.

    Attributes:
      kind: what `Outputs.action` holds: "logits", "action values" or "action".
      apply: `(policy_params, obs, carry=None) -> Outputs`, differentiable in the observation: one, without a batch axis. The
        policy's own normalisation of observations is included. The carry of a recurrent policy has no batch axis either; by
        default it is that of the start of an episode.
    """

    kind: str
    apply: Callable[..., Outputs]


def q_values(network: Network, action_space: Space, options: Options) -> PolicyOutputs:
    """Of a network with one value for each action: `dqn` and `pqn`."""
    return _of_values(network.apply)


def categorical_values(network: Network, action_space: Space, options: Options) -> PolicyOutputs:
    """Of a network with the logits of K atoms for each action: `c51` and `rainbow`, with the options `v_min` and `v_max`."""

    def values(params, obs):
        logits = network.apply(params, obs)
        atoms = np.linspace(options["v_min"], options["v_max"], logits.shape[-1], dtype=np.float32)
        return losses.categorical_mean(logits, jnp.asarray(atoms))

    return _of_values(values)


def quantile_values(network: Network, action_space: Space, options: Options) -> PolicyOutputs:
    """Of a network with K quantiles for each action: `qr_dqn`."""
    return _of_values(lambda params, obs: jnp.mean(network.apply(params, obs), axis=-1))


def implicit_quantile_values(network: Any, action_space: Space, options: Options) -> PolicyOutputs:
    """Of an implicit quantile network: `iqn`, with the option `num_policy_quantiles`."""
    num = options["num_policy_quantiles"]
    levels = (np.arange(num, dtype=np.float32) + np.float32(0.5)) / np.float32(num)
    return _of_values(lambda params, obs: jnp.mean(network.apply(params, obs, jnp.asarray(levels)), axis=-1))


def stochastic_policy(network: Network, action_space: Space, options: Options) -> PolicyOutputs:
    """Of a policy network: `a2c`, `ppo` and `reinforce`, with the options `squash` and `baseline`."""
    has_value = options.get("baseline", "value") == "value"

    def outputs(params, obs, carry):
        out = network.apply(params, obs)
        return out if has_value else (out, None)

    return _of_policy(outputs, action_space, squash=options.get("squash", False))


def recurrent_policy(network: RecurrentNetwork, action_space: Space, options: Options) -> PolicyOutputs:
    """Of a recurrent policy network with a value: `recurrent_ppo`, with the option `squash`."""

    def outputs(params, obs, carry):
        carry = network.initial_carry(1) if carry is None else _batch(carry)
        return network.apply(params, obs, carry)[0]

    return _of_policy(outputs, action_space, squash=options.get("squash", False))


def mean_policy(network: Network, action_space: Space, options: Options) -> PolicyOutputs:
    """Of the policy with the mean weights: `openai_es`, whose policy parameters are a population and its mean."""
    return _of_policy(lambda population, obs, carry: (network.apply(population.params, obs), None), action_space, squash=False)


def actor(network: ActorCritic, action_space: Space, options: Options) -> PolicyOutputs:
    """Of a stochastic actor with a tanh for a Box: `sac`."""
    return _of_policy(lambda params, obs, carry: (network.actor.apply(params, obs), None), action_space, squash=True)


def deterministic_actor(network: ActorCritic, action_space: Space, options: Options) -> PolicyOutputs:
    """Of a deterministic actor: `td3` and `ddpg`."""
    mode = deterministic_head(action_space).mode

    def outputs(params, obs, carry):
        return (mode(network.actor.apply(params, obs)), None), None

    return _of_policy(outputs, action_space, squash=False)


def _of_values(values: Callable[[Any, Obs], jax.Array]) -> PolicyOutputs:
    def apply(policy_params: PolicyParams, obs: Obs, carry: Carry = None) -> Outputs:
        q = values(*normalized_input(policy_params, _batch(obs)))[0]
        return Outputs(q, jnp.max(q))

    return PolicyOutputs(ACTION_VALUES, apply)


def _of_policy(outputs: Callable[..., Any], action_space: Space, *, squash: bool) -> PolicyOutputs:
    """`outputs` is `(params, obs [1, ...], carry) -> (policy, value)`, where `policy` is the logits or a pair with the mean."""
    box = action_space if isinstance(action_space, Box) else None

    def apply(policy_params: PolicyParams, obs: Obs, carry: Carry = None) -> Outputs:
        policy, value = outputs(*normalized_input(policy_params, _batch(obs)), carry)
        if box is not None:
            mean, _ = policy
            policy = to_units(*box_units(box), jnp.tanh(mean) if squash else mean)
        return Outputs(policy[0], None if value is None else value[0])

    return PolicyOutputs(LOGITS if box is None else ACTION, apply)


def _batch(tree: Any) -> Any:
    return jax.tree.map(lambda x: x[None], tree)
