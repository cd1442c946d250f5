"""Functions of the transitions of a rollout: flat batches, discounts, advantages, value targets.

A rollout holds true successors, so values of `next_obs` can be bootstrapped from at every step, including at time limits. Only
`terminated` stops bootstrapping. Advantages and returns never mix two episodes.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxrl import returns
from jaxrl._src.shards import num_shards, total
from jaxrl.types import Obs, Space, Transition


def example_transition(obs: Obs, action_space: Space, *, carry: Any = (), extras: Any = ()) -> Transition:
    """One unbatched transition of zeros, as an example of the items of a replay.

    Args:
      obs: a batch of observations, leaves `[B, ...]`, as passed to `Agent.init`.
      action_space: Discrete, MultiDiscrete or Box.
      carry, extras: unbatched, as the agent's `explore` returns them.
    """
    obs = jax.tree.map(lambda x: x[0], obs)
    action = jnp.zeros(action_space.shape, action_space.dtype)  # type: ignore[union-attr]
    return Transition(obs, action, jnp.float32(0), jnp.bool_(False), jnp.bool_(False), obs, carry, extras)


def flatten(tree: Any) -> Any:
    """Reshape leaves `[T, B, ...]` to `[T * B, ...]`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def discounts(rollout: Transition, discount) -> jax.Array:
    """The `discount_t` of losses and returns, float32 `[T, B]` or `[N]`: γ, or 0 where the step terminated the episode."""
    return discount * (1.0 - rollout.terminated.astype(jnp.float32))


def advantages(rollout: Transition, value: jax.Array, next_value: jax.Array, discount, lambda_) -> tuple[jax.Array, jax.Array]:
    """Generalised advantage estimates, and λ-returns as value targets (Schulman et al. 2016).

    Args:
      rollout: leaves `[T, B, ...]`.
      value: values of `rollout.obs`, `[T, B]`.
      next_value: values of `rollout.next_obs`, the true successors, `[T, B]`.
      discount: γ, a scalar.
      lambda_: in [0, 1], a scalar.

    Returns:
      Advantages and targets, each `[T, B]`. No advantage reaches beyond the end of its episode.
    """
    advantage = returns.generalized_advantage_estimation(
        rollout.reward, discounts(rollout, discount), value, next_value, lambda_, truncated=rollout.truncated
    )
    return advantage, advantage + value


def monte_carlo_returns(rollout: Transition, next_value: jax.Array, discount) -> jax.Array:
    """Monte-Carlo returns `[T, B]`; `next_value` `[T, B]` replaces the rewards after a truncation or after the rollout."""
    return returns.discounted_returns(rollout.reward, discounts(rollout, discount), next_value, truncated=rollout.truncated)


def first_episodes(rollout: Transition) -> jax.Array:
    """float32 `[T, B]`: 1 on the steps of each environment's first episode in the rollout, and 0 after its end."""
    done = (rollout.terminated | rollout.truncated).astype(jnp.int32)
    ended_before = jnp.cumsum(done, axis=0) - done
    return (ended_before == 0).astype(jnp.float32)


def normalize(advantage: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """Normalise advantages to mean 0 and standard deviation 1, computed over the entries with `weight` 1 (default: all).

    The entries are those of all shards.

    Raises:
      ValueError: for a single entry, which would always become 0.
    """
    if advantage.size * num_shards() == 1:
        raise ValueError(
            "normalize_advantage: the only advantage of a batch would always become 0; use more environments, a longer rollout "
            "or fewer minibatches, or normalize_advantage=False"
        )
    weight = jnp.ones_like(advantage) if weight is None else weight
    count = jnp.maximum(total(jnp.sum(weight)), 1.0)
    centred = advantage - total(jnp.sum(weight * advantage)) / count
    return centred / (jnp.sqrt(total(jnp.sum(weight * jnp.square(centred))) / count) + 1e-8)
