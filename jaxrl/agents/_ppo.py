"""Proximal policy optimization (Schulman et al. 2017), for discrete, multi-discrete and continuous actions."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import losses, transitions
from jaxrl.checks import AT_LEAST_ZERO, FINITE, FRACTION, check_hparams, check_network_output, check_size
from jaxrl.minibatches import grad_of_mean, map_rows, scan_minibatches
from jaxrl.optimizers import Optimizer, adam, num_updates, optimizer_step
from jaxrl.policies import PolicyHead, policy_head
from jaxrl.schedules import linear_schedule
from jaxrl.types import Agent, Network, Noise, Space, Transition


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


class PPOState(NamedTuple):
    params: Any
    opt_state: Any


class Batch(NamedTuple):
    """What the loss reads of a rollout's N = T * B steps, or of a minibatch of them."""

    obs: Any  # leaves [N, ...]
    raw_action: jax.Array  # [N, ...], what the policy sampled
    log_prob: jax.Array  # [N], of the policy that acted
    value: jax.Array  # [N], before the update
    target: jax.Array  # [N], λ-returns
    advantage: jax.Array  # [N]


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
    check_hparams(hparams, PPOHParams, _RANGES)
    head = policy_head(action_space, squash=squash)

    def init(key, obs, hparams):
        check_hparams(hparams, PPOHParams, _RANGES)
        params = network.init(key, obs)
        batch_shape = (jax.tree.leaves(obs)[0].shape[0],)
        wanted = head.params_spec(batch_shape), jax.ShapeDtypeStruct(batch_shape, jnp.float32)
        out, hint = jax.eval_shape(network.apply, params, obs), "Build it with jaxrl.networks.policy(..., value=True)"
        check_network_output("ppo", out, wanted, hint)
        return PPOState(params, optimizer(hparams.learning_rate).init(params))

    def noise(key, num_steps, num_envs):
        act_key, update_key = jax.random.split(key)
        return Noise(act=head.noise(act_key, (num_steps, num_envs)), update=jax.random.split(update_key, num_epochs))

    def explore(params, obs, carry, noise_t, hparams, iteration):
        raw_action = head.sample(network.apply(params, obs)[0], noise_t)
        return head.to_action(raw_action), carry, raw_action

    def exploit(params, obs, carry, key):
        return head.to_action(head.mode(network.apply(params, obs)[0])), carry

    def update(state, rollout, noise, hparams, iteration):
        batch = _make_batch(network, head, state.params, rollout, hparams)
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
        return PPOState(params, opt_state), metrics

    policy = lambda state: state.params
    return Agent(hparams=hparams, init=init, noise=noise, policy=policy, explore=explore, exploit=exploit, update=update)


def _make_batch(network: Network, head: PolicyHead, params: Any, rollout: Transition, hparams: PPOHParams) -> Batch:
    """Compute the old log-probabilities and values in one pass over all steps, which is cheaper than during the rollout."""

    def old_outputs(steps):
        policy, value = network.apply(params, steps.obs)
        return head.log_prob(policy, steps.extras), value, network.apply(params, steps.next_obs)[1]

    flat, shape = transitions.flatten(rollout), rollout.reward.shape
    log_prob, value, next_value = map_rows(old_outputs, flat)
    advantage, target = transitions.advantages(
        rollout, value.reshape(shape), next_value.reshape(shape), hparams.discount, hparams.gae_lambda
    )
    return Batch(flat.obs, flat.extras, log_prob, value, *transitions.flatten((target, advantage)))


def _make_loss(network: Network, head: PolicyHead, hparams: PPOHParams, clip_range: jax.Array) -> Callable[..., Any]:
    """Return `(params, batch) -> (loss, metrics)`, means over the batch (Schulman et al. 2017, eq. 9)."""

    def loss(params, batch):
        policy, value = network.apply(params, batch.obs)
        log_prob = head.log_prob(policy, batch.raw_action)
        policy_loss = jnp.mean(losses.ppo_clip(log_prob, batch.log_prob, batch.advantage, clip_range))
        value_loss = jnp.mean(losses.ppo_value_loss(value, batch.value, batch.target, hparams.value_clip_range))
        entropy = jnp.mean(head.entropy(policy, batch.raw_action))
        log_ratio = log_prob - batch.log_prob
        metrics = {
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            "approx_kl": jnp.mean(jnp.expm1(log_ratio) - log_ratio),
            "clip_fraction": jnp.mean((jnp.abs(jnp.expm1(log_ratio)) > clip_range).astype(jnp.float32)),
        }
        total = policy_loss + hparams.value_coef * value_loss - hparams.entropy_coef * entropy
        return total, {"loss": total} | metrics

    return loss
