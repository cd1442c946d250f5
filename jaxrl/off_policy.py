"""What agents with a replay share: storing rollouts, drawing batches, and the initial parameters of actor and critics."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl import replay, transitions
from jaxrl.checks import check_network_output
from jaxrl.types import ActorCritic, Discrete, Obs, Space, Transition


def store(agent_state: Any, rollout: Transition, iteration: jax.Array) -> Any:
    """`Agent.store` of an agent whose state has the field `replay`: add every transition of the rollout to it."""
    return agent_state._replace(replay=replay.add(agent_state.replay, transitions.flatten(rollout), iteration))


def sample(buffer: replay.Replay, noise: jax.Array, rollout: Transition, iteration: jax.Array) -> Transition:
    """Draw transitions uniformly from all that are stored in iteration `iteration`, its own rollout included.

    Args:
      buffer: the replay, to which every iteration has added a rollout.
      noise: uint32 `[*shape]`, from `replay.noise`.
      rollout: that of this iteration, leaves `[T, B, ...]`.
      iteration: int32 scalar, never batched.

    Returns:
      Transitions with leaves `[*shape, ...]`.
    """
    return replay.sample(buffer, noise, replay.num_stored(iteration + 1, rollout.reward.size, buffer.capacity))


def check_actor_critic(agent_name: str, network: Any, builder: str) -> None:
    """Raise TypeError unless `network` is an `ActorCritic`. The error names the `builder` in `jaxrl.networks`."""
    if not isinstance(network, ActorCritic):
        raise TypeError(
            f"{agent_name} needs a jaxrl.types.ActorCritic, got {type(network).__name__}; build it with jaxrl.networks.{builder}"
        )


def init_actor_critic(
    agent_name: str,
    network: ActorCritic,
    action_space: Space,
    policy_spec: Any,
    key: jax.Array,
    obs: Obs,
    *,
    num_critics: int | None = None,
    hint: str = "",
) -> tuple[Any, Any]:
    """Draw the initial parameters of actor and critics, and check what the networks return.

    Args:
      agent_name: the name of the agent, for the message.
      network: the two networks.
      action_space: that of the environment; if it is `Discrete`, critics take no action, and return the values of all.
      policy_spec: what the actor must return for `obs`, as `jax.ShapeDtypeStruct`s.
      key: consumed.
      obs: example observations, leaves `[B, ...]`.
      num_critics: K, the number of values `[K, B]` or `[K, B, n]` that the critic must return; None allows any number.
      hint: a sentence that says how to build networks that fit.

    Returns:
      The parameters of the actor, and those of the critics.

    Raises:
      ValueError: if a network does not return the expected structure and shapes.
    """
    actor_key, critic_key = jax.random.split(key)
    num_envs = jax.tree.leaves(obs)[0].shape[0]
    actor_params = network.actor.init(actor_key, obs)
    policy = jax.eval_shape(network.actor.apply, actor_params, obs)
    check_network_output(f"{agent_name} (actor)", policy, policy_spec, hint)
    inputs: tuple[Any, ...]
    q_shape: tuple[int, ...]
    if isinstance(action_space, Discrete):
        inputs, q_shape = (obs,), (num_envs, action_space.n)
    else:
        action = jnp.zeros((num_envs, *action_space.shape), action_space.dtype)  # type: ignore[union-attr]
        inputs, q_shape = (obs, action), (num_envs,)
    critic_params = network.critic.init(critic_key, *inputs)
    q = jax.eval_shape(network.critic.apply, critic_params, *inputs)
    num = q.shape[:1] if num_critics is None else (num_critics,)
    check_network_output(f"{agent_name} (critic)", q, jax.ShapeDtypeStruct((*num, *q_shape), jnp.float32), hint)
    return actor_params, critic_params
