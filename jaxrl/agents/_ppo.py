"""Proximal policy optimization (Schulman et al. 2017), for discrete, multi-discrete and continuous actions."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import losses, transitions
from jaxrl.agents._actor_critic import ActorCriticState, Feedforward, actor_critic, make_batch, total_loss
from jaxrl.checks import AT_LEAST_ZERO, FINITE, FRACTION, check_network, check_size
from jaxrl.minibatches import grad_of_mean, scan_minibatches
from jaxrl.noise import held
from jaxrl.normalization import normalize_agent
from jaxrl.optimizers import Optimizer, adam, optimizer_step
from jaxrl.policies import PolicyHead, policy_head
from jaxrl.schedules import linear_schedule
from jaxrl.shards import mean
from jaxrl.types import Agent, Metrics, Network, Space


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


RANGES = dict.fromkeys(PPOHParams._fields, AT_LEAST_ZERO) | {
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
    normalize_observations: bool = False,
    normalize_rewards: bool = False,
    noise_period: int = 1,
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
      normalize_observations: normalise observations of floats to mean 0 and standard deviation 1 over all environments and
        steps so far, and clip them to ± 10. The statistics are saved with the policy, and stand still in evaluation.
      normalize_rewards: divide rewards by the standard deviation of the discounted return so far, over all environments, and
        clip them to ± 10. Metrics of episodes stay in the units of the task.
      noise_period: steps for which each environment keeps the noise of its policy; it divides `rollout_length`. More than 1
        explores further where single steps average out, as in MountainCarContinuous.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics, means over all minibatches of an iteration, also those that `target_kl` leaves out: `loss`,
      `policy_loss`, `value_loss`, `entropy`, `approx_kl` (estimate of KL(old, new), Schulman 2020), `clip_fraction` (fraction
      of the samples whose ratio is clipped), `gradient_norm` (before clipping).

    Raises:
      ValueError, TypeError: for an unsupported action space, or sizes that are not positive ints.
    """
    num_epochs, num_minibatches = check_size("num_epochs", num_epochs), check_size("num_minibatches", num_minibatches)
    check_network("ppo", network, "policy(..., value=True)")
    head, stateless = policy_head(action_space, squash=squash), Feedforward(network)

    def update(state, rollout, noise, hparams, iteration):
        batch = make_batch(stateless, head, state.params, rollout, hparams)

        def loss(params, batch, clip_range):
            return proximal_loss(head, network.apply(params, batch.obs), batch, hparams, clip_range)

        learn = partial(update_in_epochs, loss, optimizer, num_epochs, num_minibatches, normalize_advantage)
        return learn(state, batch, noise, hparams, iteration)

    agent = actor_critic(
        "ppo", stateless, head, update, optimizer=optimizer, hparams=hparams, record=PPOHParams, ranges=RANGES,
        num_epochs=num_epochs,
    )  # fmt: skip
    agent = agent._replace(noise=held(agent.noise, noise_period))
    return normalize_agent(agent, observations=normalize_observations, rewards=normalize_rewards)


def proximal_loss(head: PolicyHead, outputs: Any, batch: Any, hparams: PPOHParams, clip_range: jax.Array) -> tuple[Any, Metrics]:
    """The loss (Schulman et al. 2017, eq. 9) and its metrics, means over a batch.

    `outputs` is (policy parameters, values) at the observations of the batch; the leaves of both may have any leading axes.
    """
    policy, value = outputs
    log_prob = head.log_prob(policy, batch.raw_action)
    policy_loss = losses.ppo_clip(log_prob, batch.log_prob, batch.advantage, clip_range)
    value_loss = losses.ppo_value_loss(value, batch.value, batch.target, hparams.value_clip_range)
    # After the first step, the actions are samples of another policy.
    sample = batch.raw_action if batch.noise is None else head.sample(policy, batch.noise)
    total, metrics = total_loss(policy_loss, value_loss, head.entropy(policy, sample), hparams)
    log_ratio = log_prob - batch.log_prob
    return total, metrics | {
        "approx_kl": jnp.mean(jnp.expm1(log_ratio) - log_ratio),
        "clip_fraction": jnp.mean((jnp.abs(jnp.expm1(log_ratio)) > clip_range).astype(jnp.float32)),
    }


def update_in_epochs(
    loss: Callable[..., Any],
    optimizer: Optimizer,
    num_epochs: int,
    num_minibatches: int,
    normalize_advantage: bool,
    state: ActorCriticState,
    batch: Any,
    keys: jax.Array,
    hparams: PPOHParams,
    iteration: jax.Array,
) -> tuple[ActorCriticState, Metrics]:
    """Gradient steps on shuffled minibatches, which change nothing once the KL divergence exceeds `hparams.target_kl`.

    Args:
      loss: `(params, minibatch, clip_range) -> (loss, metrics)`, means over the minibatch.
      optimizer, num_epochs, num_minibatches, normalize_advantage: as for `ppo`.
      state: the parameters and the state of the optimizer.
      batch: a record with a field `advantage`, leaves `[N, ...]`; N is the number of what is shuffled.
      keys: `[num_epochs]`, for the shuffles.
      hparams, iteration: as for `Agent.update`.
    """
    learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration)
    clip_range = linear_schedule(hparams.clip_range, 0.0, hparams.clip_range_iterations, iteration)

    def step(carry, minibatch):
        active, params, opt_state = carry
        if normalize_advantage:
            minibatch = minibatch._replace(advantage=transitions.normalize(minibatch.advantage))
        grads, metrics = grad_of_mean(lambda params, batch: loss(params, batch, clip_range), params, minibatch)
        *new, norm = optimizer_step(  # how many steps were taken depends on data
            optimizer, learning_rate, None, grads, opt_state, params, max_grad_norm=hparams.max_grad_norm
        )
        active = active & (mean(metrics["approx_kl"]) <= hparams.target_kl)
        params, opt_state = jax.tree.map(lambda x, y: jnp.where(active, x, y), tuple(new), (params, opt_state))
        return (active, params, opt_state), metrics | {"gradient_norm": norm}

    carry = jnp.bool_(True), state.params, state.opt_state
    (_, params, opt_state), metrics = scan_minibatches(step, carry, batch, keys, num_minibatches)
    return ActorCriticState(params, opt_state), metrics
