"""PPO for recurrent networks: whole sequences in minibatches, replayed from the carry at the start of the rollout."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl.agents._actor_critic import actor_critic, make_batch
from jaxrl.agents._ppo import RANGES, PPOHParams, proximal_loss, update_in_epochs
from jaxrl.checks import check_network, check_size
from jaxrl.minibatches import check_minibatches
from jaxrl.normalization import normalize_agent
from jaxrl.optimizers import Optimizer, adam
from jaxrl.policies import policy_head
from jaxrl.recurrence import unroll_network
from jaxrl.types import Agent, RecurrentNetwork, Space


class Sequences(NamedTuple):
    """A rollout, or a minibatch of its B environments: leaves `[B, T, ...]`, but for the carry."""

    obs: Any
    raw_action: jax.Array
    log_prob: jax.Array  # of the policy that acted
    value: jax.Array  # before the update
    target: jax.Array  # λ-returns
    advantage: jax.Array
    noise: Any  # as in `Batch`
    done: jax.Array  # bool
    carry: Any  # at the first step, leaves [B, ...]


def recurrent_ppo(
    network: RecurrentNetwork,
    action_space: Space,
    *,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    squash: bool = False,
    normalize_advantage: bool = True,
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
    optimizer: Optimizer = partial(adam, eps=1e-5),
    hparams: PPOHParams = PPOHParams(),
) -> Agent:
    """Proximal policy optimization (Schulman et al. 2017) for partially observed tasks.

    As `ppo`, but a minibatch consists of the whole sequences of some environments. Each gradient step replays them from the
    carry that the rollout started with, with the same resets, and differentiates through time as far as the rollout reaches.
    Values are bootstrapped from true successors, with the carry of the episode that they end.

    Args:
      network: `apply(params, obs[B, *obs_shape], carry) -> ((policy, value[B]), carry)`, where `policy` is what
        `jaxrl.policies.policy_head` takes; e.g. from `jaxrl.networks.recurrent_policy(..., value=True)`.
      action_space: `Discrete`, `MultiDiscrete`, or a `Box` of floats.
      num_epochs: passes over the rollout.
      num_minibatches: minibatches of each epoch; divides `num_envs`.
      squash: for a Box with finite bounds, apply a tanh to the Gaussian's sample instead of clipping it to the bounds.
      normalize_advantage: normalise the advantages of each minibatch to mean 0 and standard deviation 1.
      normalize_observations: normalise observations of floats to mean 0 and standard deviation 1 over all environments and
        steps so far, and clip them to ± 10. The statistics are saved with the policy, and stand still in evaluation.
      normalize_rewards: divide rewards by the standard deviation of the discounted return so far, over all environments, and
        clip them to ± 10. Metrics of episodes stay in the units of the task.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`, with the metrics of `ppo`.

    Raises:
      ValueError, TypeError: for an unsupported action space, sizes that are not positive ints, or, from `make_learner`, if
        `num_minibatches` does not divide `num_envs`.
    """
    num_epochs, num_minibatches = check_size("num_epochs", num_epochs), check_size("num_minibatches", num_minibatches)
    check_network("recurrent_ppo", network, "recurrent_policy(..., value=True)", recurrent=True)
    head = policy_head(action_space, squash=squash)

    def update(state, rollout, noise, hparams, iteration):
        shape = rollout.reward.shape
        batch = make_batch(network, head, state.params, rollout, hparams)
        batch = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), batch)
        batch, done = _swap((batch, rollout.terminated | rollout.truncated))
        sequences = Sequences(**batch._asdict(), done=done, carry=jax.tree.map(lambda x: x[0], rollout.carry))

        def loss(params, sequences, clip_range):
            obs, done = _swap((sequences.obs, sequences.done))
            outputs, _ = unroll_network(network, params, obs, sequences.carry, done)
            return proximal_loss(head, _swap(outputs), sequences, hparams, clip_range)

        learn = partial(update_in_epochs, loss, optimizer, num_epochs, num_minibatches, normalize_advantage)
        return learn(state, sequences, noise, hparams, iteration)

    agent = actor_critic(
        "recurrent_ppo", network, head, update, optimizer=optimizer, hparams=hparams, record=PPOHParams, ranges=RANGES,
        builder="recurrent_policy", num_epochs=num_epochs,
    )  # fmt: skip

    def init(key, obs, hparams):
        check_minibatches(jax.tree.leaves(obs)[0].shape[0], num_minibatches)
        return agent.init(key, obs, hparams)

    return normalize_agent(agent._replace(init=init), observations=normalize_observations, rewards=normalize_rewards)


def _swap(tree: Any) -> Any:
    """Leaves `[B, T, ...]` from `[T, B, ...]`, and back."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)
