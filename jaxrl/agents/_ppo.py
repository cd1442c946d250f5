"""Proximal policy optimization (Schulman et al. 2017), for discrete, multi-discrete and continuous actions."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import losses, transitions
from jaxrl.agents._actor_critic import ActorCriticState, actor_critic, make_batch, total_loss
from jaxrl.checks import AT_LEAST_ZERO, FINITE, FRACTION, check_size
from jaxrl.minibatches import grad_of_mean, scan_minibatches
from jaxrl.optimizers import Optimizer, adam, num_updates, optimizer_step
from jaxrl.policies import PolicyHead, policy_head
from jaxrl.schedules import linear_schedule
from jaxrl.types import Agent, Network, Noise, Space


class PPOHParams(NamedTuple):
    """Hyperparameters of `ppo`; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate: learning rate at the first update.
      learning_rate_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      discount: discount factor γ.
      gae_lambda: λ of the generalised advantage estimates and of the value targets.
      clip_range: ε, how far the ratio of probabilities may move from 1, at the first update.
      clip_range_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      value_clip_range: how far a value may move from the old value in an update, in units of the value; inf does not clip.
      value_coef: weight of the value loss.
      entropy_coef: weight of the policy's entropy in the loss.
      max_grad_norm: bound on the global norm of the gradients; inf does not clip.
      target_kl: an iteration stops learning at the first minibatch whose estimated KL divergence from the old policy is above
        this; inf never stops.
    """

    learning_rate: float = 2.5e-4
    learning_rate_iterations: float = math.inf
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip_range: float = 0.2
    clip_range_iterations: float = math.inf
    value_clip_range: float = math.inf
    value_coef: float = 0.5
    entropy_coef: float = 0.01
    max_grad_norm: float = 0.5
    target_kl: float = math.inf


_RANGES = dict.fromkeys(PPOHParams._fields, AT_LEAST_ZERO) | {
    "learning_rate": FINITE,
    "discount": FRACTION,
    "gae_lambda": FRACTION,
    "value_coef": FINITE,
    "entropy_coef": FINITE,
}


def ppo(
    network: Network,
    action_space: Space,
    *,
    num_epochs: int = 4,
    num_minibatches: int = 4,
    squash: bool = False,
    normalize_advantage: bool = True,
    optimizer: Optimizer = partial(adam, eps=1e-5),
    hparams: PPOHParams = PPOHParams(),
) -> Agent:
    """Proximal policy optimization with generalised advantage estimates.

    Each iteration learns from one rollout, in several epochs over shuffled minibatches, with the clipped surrogate objective.
    Values are bootstrapped from true successors, even at time limits.

    Args:
      network: `apply(params, obs[..., *obs_shape]) -> (policy, value[...])`, where `policy` is what
        `jaxrl.policies.policy_head` takes; e.g. from `jaxrl.networks.policy(..., value=True)`.
      action_space: `Discrete`, `MultiDiscrete`, or a `Box` of floats.
      num_epochs: passes over the rollout.
      num_minibatches: minibatches of each epoch; divides `num_envs * rollout_length`.
      squash: for a Box with finite bounds, apply a tanh to the Gaussian's sample instead of clipping it to the bounds.
      normalize_advantage: normalise the advantages of each minibatch to mean 0 and standard deviation 1.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics, means over the gradient steps: `loss`, `policy_loss`, `value_loss`, `entropy`, `approx_kl`
      (estimate of KL(old, new), Schulman 2020), `clip_fraction` (fraction of the samples whose ratio is clipped),
      `gradient_norm` (before clipping).

    Raises:
      ValueError, TypeError: for an unsupported action space, or sizes that are not positive ints.
    """
    num_epochs, num_minibatches = check_size("num_epochs", num_epochs), check_size("num_minibatches", num_minibatches)
    head = policy_head(action_space, squash=squash)

    def noise(key, num_steps, num_envs):
        act_key, update_key = jax.random.split(key)
        return Noise(act=head.noise(act_key, (num_steps, num_envs)), update=jax.random.split(update_key, num_epochs))

    def update(state, rollout, noise, hparams, iteration):
        batch = make_batch(network, head, state.params, rollout, hparams)
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration)
        clip_range = linear_schedule(hparams.clip_range, 0.0, hparams.clip_range_iterations, iteration)
        loss = _make_loss(network, head, hparams, clip_range)
        first = num_updates(iteration, 0, num_epochs * num_minibatches)

        def step(carry, minibatch):
            index, active, params, opt_state = carry
            if normalize_advantage:
                minibatch = minibatch._replace(advantage=transitions.normalize(minibatch.advantage))
            grads, metrics = grad_of_mean(loss, params, minibatch)
            *new, norm = optimizer_step(
                optimizer, learning_rate, first + index, grads, opt_state, params, max_grad_norm=hparams.max_grad_norm
            )
            active = active & (metrics["approx_kl"] <= hparams.target_kl)
            params, opt_state = jax.tree.map(lambda x, y: jnp.where(active, x, y), tuple(new), (params, opt_state))
            return (index + 1, active, params, opt_state), metrics | {"gradient_norm": norm}

        carry = jnp.int32(0), jnp.bool_(True), state.params, state.opt_state
        (_, _, params, opt_state), metrics = scan_minibatches(step, carry, batch, noise, num_minibatches)
        return ActorCriticState(params, opt_state), metrics

    agent = actor_critic("ppo", network, head, update, optimizer=optimizer, hparams=hparams, record=PPOHParams, ranges=_RANGES)
    return agent._replace(noise=noise)


def _make_loss(network: Network, head: PolicyHead, hparams: PPOHParams, clip_range: jax.Array) -> Callable[..., Any]:
    """Return `(params, batch) -> (loss, metrics)`, means over the batch (Schulman et al. 2017, eq. 9)."""

    def loss(params, batch):
        policy, value = network.apply(params, batch.obs)
        log_prob = head.log_prob(policy, batch.raw_action)
        policy_loss = losses.ppo_clip(log_prob, batch.log_prob, batch.advantage, clip_range)
        value_loss = losses.ppo_value_loss(value, batch.value, batch.target, hparams.value_clip_range)
        total, metrics = total_loss(policy_loss, value_loss, head.entropy(policy, batch.raw_action), hparams)
        log_ratio = log_prob - batch.log_prob
        return total, metrics | {
            "approx_kl": jnp.mean(jnp.expm1(log_ratio) - log_ratio),
            "clip_fraction": jnp.mean((jnp.abs(jnp.expm1(log_ratio)) > clip_range).astype(jnp.float32)),
        }

    return loss
