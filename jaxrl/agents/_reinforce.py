"""REINFORCE (Williams 1992): the Monte-Carlo policy gradient, for discrete and continuous actions."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, transitions
from jaxrl.checks import (
    AT_LEAST_ZERO,
    FINITE,
    FRACTION,
    check_choice,
    check_hparams,
    check_network,
    check_network_output,
    check_optimizer,
)
from jaxrl.minibatches import grad_of_mean, map_rows
from jaxrl.optimizers import Optimizer, adam, optimizer_step
from jaxrl.policies import PolicyHead, policy_head
from jaxrl.schedules import linear_schedule
from jaxrl.shards import mean, num_shards, total
from jaxrl.types import Agent, Metrics, Network, Noise, Space, Transition


class ReinforceHParams(NamedTuple):
    """Hyperparameters of `reinforce`; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate: learning rate at the first update.
      learning_rate_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      discount: discount factor γ.
      entropy_coef: weight of the policy's entropy in the loss.
      value_coef: weight of the value loss, if the baseline is learned.
      max_grad_norm: bound on the global norm of the gradients; inf does not clip.
    """

    learning_rate: float = 1e-3
    learning_rate_iterations: float = math.inf
    discount: float = 0.99
    entropy_coef: float = 0.0
    value_coef: float = 0.5
    max_grad_norm: float = math.inf


_RANGES = dict.fromkeys(ReinforceHParams._fields, FINITE) | {
    "learning_rate_iterations": AT_LEAST_ZERO,
    "max_grad_norm": AT_LEAST_ZERO,
    "discount": FRACTION,
}


class ReinforceState(NamedTuple):
    params: Any
    opt_state: Any


class Batch(NamedTuple):
    """What the loss reads of a rollout's N = T * B steps."""

    obs: Any  # leaves [N, ...]
    raw_action: jax.Array  # [N, ...], what the policy sampled
    target: jax.Array  # [N], the return
    advantage: jax.Array  # [N], without subtracting the value of `obs` unless advantages are normalised
    weight: jax.Array  # [N], 1 or 0


def reinforce(
    network: Network,
    action_space: Space,
    *,
    mode: str = "episodic",
    baseline: str = "mean",
    squash: bool = False,
    normalize_advantage: bool = False,
    optimizer: Optimizer = adam,
    hparams: ReinforceHParams = ReinforceHParams(),
) -> Agent:
    """The Monte-Carlo policy gradient.

    It has two modes:

    - `"episodic"`, the default, is the textbook estimator and needs no value function. In each iteration every environment
      plays one complete episode from a fresh start; steps after its end are masked. With discount 1 the gradient of the
      episode's return is unbiased; with a smaller discount it omits the factor γ^t, as usual (Thomas 2014). The time limit is
      treated as part of the task, and `rollout_length` must be at least the time limit. An episode that does not finish gets
      weight zero. The metric `unfinished` counts these, since dropping them favours short episodes.
    - `"continuing"` learns from rollouts of fixed length that continue across episodes, so no step is wasted. The tail of an
      unfinished episode, and what a time limit cut off, are bootstrapped from the learned value. This mode therefore needs
      `baseline="value"`; its bias is the error of that value, discounted by the distance to the cut.

    Args:
      network: `apply(params, obs[..., *obs_shape])` returns the policy's parameters: `logits[..., n]` for
        Discrete, `(mean, log_std)`, each `[..., m]`, for a Box of m numbers (see `jaxrl.policies.policy_head`); with
        `baseline="value"` the pair `(policy, value[...])`. `jaxrl.networks.policy` builds such networks.
      action_space: `Discrete`, `MultiDiscrete`, or a `Box` of floats.
      mode: "episodic" or "continuing".
      baseline: what is subtracted from the return. "none"; "mean": at each step of the episode, the mean return of the
        *other* environments still in their episode (leaving its own out keeps the gradient unbiased); "value": a learned
        value, with squared loss.
      squash: for a Box with finite bounds, apply a tanh to the Gaussian's sample and scale it to the bounds. Otherwise the
        environment receives the sample clipped to the bounds, and the log-probability is that of the unclipped sample.
      normalize_advantage: normalise advantages to mean 0 and standard deviation 1 over all steps with weight. This is biased,
        but robust to the scale of the rewards.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss`, the mean over all T * B steps, of which those without weight count as 0; `entropy`, and
      with a learned baseline `value_loss`, means over the steps with weight; `gradient_norm` (before clipping); in episodic
      mode `unfinished` (fraction of the environments).

    Raises:
      ValueError: for an unsupported action space, `squash` without finite bounds, or a mode that needs another baseline.
    """
    check_choice("mode", mode, ("episodic", "continuing"))
    check_choice("baseline", baseline, ("none", "mean", "value"))
    if mode == "continuing" and baseline != "value":
        raise ValueError(
            f"reinforce: mode='continuing' bootstraps from a learned value, so it needs baseline='value'; got {baseline!r}"
        )
    check_network("reinforce", network, "policy")
    check_optimizer(optimizer)
    check_hparams(hparams, ReinforceHParams, _RANGES)
    episodic, learn_value = mode == "episodic", baseline == "value"
    head = policy_head(action_space, squash=squash)

    def init(key, obs, hparams):
        check_hparams(hparams, ReinforceHParams, _RANGES)
        params = network.init(key, obs)
        _check_output(jax.eval_shape(network.apply, params, obs), head, params_batch=_batch_size(obs), learn_value=learn_value)
        return ReinforceState(params, optimizer(hparams.learning_rate).init(params))

    def outputs(params, obs):
        out = network.apply(params, obs)
        return out if learn_value else (out, None)

    def explore(params, obs, carry, noise_t, hparams, iteration):
        raw_action = head.sample(outputs(params, obs)[0], noise_t)
        return head.to_action(raw_action), carry, raw_action

    def exploit(params, obs, carry, key):
        return head.to_action(head.mode(outputs(params, obs)[0])), carry

    make_batch, loss = _make_loss(outputs, head, episodic=episodic, baseline=baseline, normalize_advantage=normalize_advantage)

    def update(state, rollout, noise, hparams, iteration):
        batch = make_batch(state.params, rollout, hparams)
        grads, means = grad_of_mean(lambda params, batch: loss(params, batch, hparams), state.params, batch)
        metrics = _of_steps_with_weight(means, batch.weight)
        if episodic:
            metrics["unfinished"] = 1.0 - jnp.mean(batch.weight[: rollout.reward.shape[1]])
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration)
        params, opt_state, norm = optimizer_step(
            optimizer, learning_rate, iteration, grads, state.opt_state, state.params, max_grad_norm=hparams.max_grad_norm
        )
        return ReinforceState(params, opt_state), metrics | {"gradient_norm": norm}

    noise = lambda key, num_steps, num_envs: Noise(act=head.noise(key, (num_steps, num_envs)))
    return Agent(
        hparams=hparams, init=init, noise=noise, policy=lambda state: state.params, explore=explore, exploit=exploit,
        update=update, fresh_episodes=episodic,
    )  # fmt: skip


def _make_loss(
    outputs: Callable[..., Any], head: PolicyHead, *, episodic: bool, baseline: str, normalize_advantage: bool
) -> tuple[Callable[..., Batch], Callable[..., Any]]:
    """Return `(params, rollout, hparams) -> Batch` and `(params, batch, hparams) -> (loss, metrics)`, means over the batch.

    `outputs(params, obs)` must return (policy parameters, value or None).
    """
    learn_value = baseline == "value"

    def make_batch(params, rollout, hparams):
        def values(obs):
            flat = map_rows(lambda obs: outputs(params, obs)[1], transitions.flatten(obs))
            return flat.reshape(rollout.reward.shape)

        weight = _first_finished_episodes(rollout) if episodic else jnp.ones_like(rollout.reward)
        next_value = jnp.zeros_like(rollout.reward) if episodic else values(rollout.next_obs)
        target = advantage = transitions.monte_carlo_returns(rollout, next_value, hparams.discount)
        if baseline == "mean":
            advantage = target - _mean_of_others(target, weight)
        if normalize_advantage:
            advantage = transitions.normalize(target - values(rollout.obs) if learn_value else advantage, weight)
        return transitions.flatten(Batch(rollout.obs, rollout.extras, target, advantage, weight))

    def loss(params, batch, hparams):
        policy_params, value = outputs(params, batch.obs)
        advantage = batch.target - value if learn_value and not normalize_advantage else batch.advantage
        log_prob = head.log_prob(policy_params, batch.raw_action)
        # The mean is over all T * B steps, including those of weight 0. Dividing by the number of steps with weight 1 would
        # be biased, since that number is random and depends on the actions.
        loss = jnp.mean(batch.weight * losses.policy_gradient(log_prob, advantage))
        entropy = jnp.mean(batch.weight * head.entropy(policy_params, batch.raw_action))
        loss = loss - hparams.entropy_coef * entropy
        metrics = {"entropy": entropy}
        if learn_value:
            metrics["value_loss"] = jnp.mean(batch.weight * optax.losses.squared_error(value, batch.target))
            loss = loss + hparams.value_coef * metrics["value_loss"]
        return loss, {"loss": loss} | metrics

    return make_batch, loss


def _check_output(out: Any, head: PolicyHead, *, params_batch: int, learn_value: bool) -> None:
    policy = head.params_spec((params_batch,))
    wanted = (policy, jax.ShapeDtypeStruct((params_batch,), jnp.float32)) if learn_value else policy
    check_network_output("reinforce", out, wanted, f"Build it with jaxrl.networks.policy(..., value={learn_value})")


def _batch_size(obs: Any) -> int:
    return jax.tree.leaves(obs)[0].shape[0]


def _first_finished_episodes(rollout: Transition) -> jax.Array:
    """float32 `[T, B]`: 1 on the steps of each environment's first episode, 0 after it, and 0 throughout if it never ends."""
    finished = jnp.any(rollout.terminated | rollout.truncated, axis=0, keepdims=True)
    return transitions.first_episodes(rollout) * finished.astype(jnp.float32)


def _of_steps_with_weight(means: Metrics, weight: jax.Array) -> Metrics:
    """Metrics that are means over all steps, as means over the steps with weight `[N]`; the loss stays as it is."""
    of_steps, share = mean(({name: x for name, x in means.items() if name != "loss"}, jnp.mean(weight)))
    share = jnp.maximum(share, 1.0 / (num_shards() * weight.size))
    return means | jax.tree.map(lambda x: x / share, of_steps)


def _mean_of_others(target: jax.Array, weight: jax.Array) -> jax.Array:
    """For each step and environment, the mean return of the other environments still in their episode; 0 if there are none."""
    of_all = total(jnp.sum(weight * target, axis=1, keepdims=True))
    others = total(jnp.sum(weight, axis=1, keepdims=True)) - weight
    return jnp.where(others > 0, (of_all - weight * target) / jnp.maximum(others, 1.0), 0.0)
