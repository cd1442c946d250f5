"""The outputs of a policy's network, for any algorithm of the table."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl.algorithms import algorithm
from jaxrl.outputs import ACTION, ACTION_VALUES, PolicyOutputs
from jaxrl.settings import Settings
from jaxrl.spaces import Discrete, Space
from jaxrl.types import Carry, Environment, Obs, PolicyParams


def policy_outputs(name: str, network: Any, action_space: Space, **options: Any) -> PolicyOutputs:
    """What a policy's network computes from an observation, as a differentiable function.

    Args:
      name: of the algorithm, such as "ppo".
      network, action_space: as the agent's factory received them.
      options: those of the factory that are not at their defaults, such as `squash`; others than it has are ignored.

    Returns:
      A `PolicyOutputs`. Its `apply` takes the policy parameters, `agent.policy(state.agent)`, and one observation.

    Raises:
      ValueError: for an algorithm that is not in the table or has no such function, or another action space than it supports.

    >>> import jax, jaxrl
    >>> env = jaxrl.make("CartPole-v1")
    >>> network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=(8,))
    >>> outputs = policy_outputs("dqn", network, env.action_space)
    >>> obs = jax.numpy.zeros(4)
    >>> outputs.kind, outputs.apply(network.init(jax.random.key(0), obs[None]), obs).action.shape
    ('action values', (2,))
    """
    entry = algorithm(name)
    if entry.outputs is None:
        raise ValueError(f"{name} cannot be explained: its entry in jaxrl.algorithms has no outputs; add one of jaxrl.outputs")
    if not isinstance(action_space, entry.action_spaces):
        raise ValueError(f"{name} needs a {entry.actions} action space, got {action_space}")
    defaults = {option.name: option.default for option in entry.agent_options}
    return entry.outputs(network, action_space, defaults | options)


def outputs_of_settings(settings: Settings, env: Environment) -> PolicyOutputs:
    """`policy_outputs` for settings, such as those of a preset: `jaxrl.presets.tuned("dqn", "CartPole-v1")`.

    Args:
      settings: those with which the agent was built.
      env: its environment, with its wrappers.

    Raises:
      ValueError: as `policy_outputs`.
    """
    network = algorithm(settings.algorithm).network(env, settings.network, settings.agent)
    return policy_outputs(settings.algorithm, network, env.action_space, **settings.agent)


def action_probabilities(
    outputs: PolicyOutputs, policy_params: PolicyParams, action_space: Space, obs: Obs, carry: Carry = None
) -> jax.Array:
    """The probability of each action of a `Discrete` in one observation, `[n]`.

    They are the softmax of logits. A policy of action values is greedy: the probability of its best action is 1.

    Raises:
      ValueError: for other action spaces.
    """
    if not isinstance(action_space, Discrete) or outputs.kind == ACTION:
        raise ValueError(f"action_probabilities needs a Discrete action space, got {action_space}")
    preferences = outputs.apply(policy_params, obs, carry).action
    if outputs.kind == ACTION_VALUES:
        return jax.nn.one_hot(jnp.argmax(preferences), action_space.n, dtype=jnp.float32)
    return jax.nn.softmax(preferences)
