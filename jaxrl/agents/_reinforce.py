"""REINFORCE (Williams 1992): the Monte-Carlo policy gradient, for discrete and continuous actions."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrl import losses, returns
from jaxrl._src.checks import AT_LEAST_ZERO, FINITE, FRACTION, check_choice, check_hparams
from jaxrl._src.microbatches import grad_of_mean, map_rows
from jaxrl.distributions import categorical, diagonal_gaussian, tanh_gaussian
from jaxrl.optimizers import Optimizer, adam, apply_gradients, clip_by_global_norm
from jaxrl.schedules import linear_schedule
from jaxrl.types import Agent, Box, Discrete, Network, Noise, Space, Transition


class HParams(NamedTuple):
    """Everything tunable that is no size: may be traced, and batched by `vmap`."""

    learning_rate: float = 1e-3
    learning_rate_iterations: float = math.inf  # to decay linearly to 0 by then; inf: constant
    discount: float = 0.99
    entropy_coef: float = 0.0
    value_coef: float = 0.5  # weight of the value loss, where the baseline is learned
    max_grad_norm: float = math.inf  # of all gradients together; inf: no clipping


_RANGES = dict.fromkeys(HParams._fields, FINITE) | {
    "learning_rate_iterations": AT_LEAST_ZERO,
    "max_grad_norm": AT_LEAST_ZERO,
    "discount": FRACTION,
}


class State(NamedTuple):
    params: Any
    opt_state: Any


class Rows(NamedTuple):
    """What the loss sees of a rollout's N = T * B steps."""

    obs: jax.Array  # [N, ...]
    x: jax.Array  # [N, ...], what the policy sampled
    target: jax.Array  # [N], the return
    advantage: jax.Array  # [N], as far as it does not need the value of `obs`
    weight: jax.Array  # [N], 1 or 0


class Policy(NamedTuple):
    """How network outputs and noise become actions: `sample` gives what the log-probability is of."""

    noise_shape: tuple[int, ...]
    noise: Any
    sample: Any  # (params, noise) -> x
    mode: Any  # (params) -> x
    action: Any  # (x) -> what the environment gets
    log_prob: Any  # (params, x) -> [...], up to terms without a gradient
    entropy: Any  # (params, x) -> [...]


def reinforce(
    network: Network,
    action_space: Space,
    *,
    mode: str = "episodic",
    baseline: str = "mean",
    squash: bool = False,
    normalize_advantage: bool = False,
    optimizer: Optimizer = adam,
    hparams: HParams = HParams(),  # noqa: B008 - a NamedTuple of floats is immutable
) -> Agent:
    """The Monte-Carlo policy gradient.

    Two modes say what a return is:

    - `"episodic"` (the default, since it is the textbook's estimator and needs no value function): every
      iteration, each environment plays one whole episode from a fresh start; what it steps after that
      episode's end is masked. Unbiased for the gradient of the episode's return (with discount 1; with
      a smaller one, up to the usual omission of the factor γ^t, Thomas 2014). The time limit counts as
      a part of the task. `rollout_length` must be at least the time limit; an episode that is unfinished
      all the same gets weight zero and shows in the metric `unfinished`, for dropping it favours short
      episodes. Short episodes waste the steps after them.
    - `"continuing"`: rollouts of fixed length that go on through episodes. No step is wasted, and the tail
      of an unfinished episode, and what a time limit cut off, are bootstrapped from the learned value: so
      it needs `baseline="value"`, and its bias is that value's error, discounted by the distance to the cut.

    Args:
      network: `apply(params, obs[..., *obs_shape])` gives the policy's parameters: `logits[..., n]` for
        Discrete, `(mean, log_std)`, each `[..., m]`, for a Box of m numbers; with `baseline="value"` the
        pair `(policy, value[...])`. `jaxrl.networks.policy` builds such a network.
      action_space: `Discrete`, or a `Box` of floats.
      mode: "episodic" or "continuing".
      baseline: what is subtracted from the return. "none"; "mean": at each step of the episode, the mean
        return of the *other* environments that are still playing (leaving one's own out keeps it unbiased);
        "value": learned, with squared loss.
      squash: for a Box with finite bounds: tanh of the Gaussian, scaled to the bounds. Otherwise the
        environment gets the Gaussian's sample clipped to the bounds, and the log-probability is of the
        sample itself.
      normalize_advantage: to mean 0 and standard deviation 1 over the steps that count. Biased, and robust.
      optimizer: from a learning rate to an optax transformation.
      hparams: the defaults of the run.

    Returns:
      An `Agent`. Its metrics: `loss`, `entropy`, `gradient_norm` (before clipping), `value_loss` with a
      learned baseline, `unfinished` (share of the environments) in episodic mode.

    Raises:
      ValueError: for an action space it cannot handle, `squash` without finite bounds, or modes that do not fit.
    """
    check_choice("mode", mode, ("episodic", "continuing"))
    check_choice("baseline", baseline, ("none", "mean", "value"))
    if mode == "continuing" and baseline != "value":
        raise ValueError(
            f"reinforce: mode='continuing' bootstraps unfinished episodes from a learned value, so it needs "
            f"baseline='value'; got baseline={baseline!r}. Use mode='episodic' for the others"
        )
    check_hparams(hparams, HParams, _RANGES)
    episodic, learn_value = mode == "episodic", baseline == "value"
    policy = _make_policy(action_space, squash)

    def init(key, obs, hparams):
        check_hparams(hparams, HParams, _RANGES)
        params = network.init(key, obs)
        _check_outputs(jax.eval_shape(network.apply, params, obs), obs, action_space, policy, learn_value)
        return State(params, optimizer(hparams.learning_rate).init(params))

    def outputs(params, obs):
        out = network.apply(params, obs)
        return out if learn_value else (out, None)

    def noise(key, num_steps, num_envs):
        return Noise(policy.noise(key, (num_steps, num_envs, *policy.noise_shape)), ())

    def act(state, obs, memory, noise_t, hparams, clock):
        policy_params, _ = outputs(state.params, obs)
        x = policy.mode(policy_params) if noise_t is None else policy.sample(policy_params, noise_t)
        return policy.action(x), memory, x

    rows_of, loss = _make_loss(outputs, policy, episodic=episodic, baseline=baseline, normalize_advantage=normalize_advantage)

    def update(state, trajectory, noise, hparams, clock):
        rows = rows_of(state.params, trajectory, hparams)
        grads, means = grad_of_mean(lambda params, rows: loss(params, rows, hparams), state.params, rows)
        num = rows.weight.size
        metrics = means | {"entropy": means["entropy"] / jnp.maximum(jnp.mean(rows.weight), 1.0 / num)}
        if episodic:
            metrics["unfinished"] = 1.0 - jnp.mean(rows.weight[: trajectory.reward.shape[1]])
        grads, norm = clip_by_global_norm(grads, hparams.max_grad_norm)
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, clock)
        params, opt_state = apply_gradients(optimizer(learning_rate), clock, grads, state.opt_state, state.params)
        return State(params, opt_state), metrics | {"gradient_norm": norm}

    return Agent(
        hparams, init, noise, lambda num_envs: (), act, lambda state, trajectory, clock: state, update, fresh_episodes=episodic
    )


def _make_loss(
    outputs: Callable[..., Any], policy: Policy, *, episodic: bool, baseline: str, normalize_advantage: bool
) -> tuple[Callable[..., Rows], Callable[..., Any]]:
    """`(params, trajectory, hparams) -> Rows` and `(params, rows, hparams) -> (loss, metrics)`, means over any of these rows;
    `outputs(params, obs)` is (policy parameters, value or None)."""
    learn_value = baseline == "value"

    def rows_of(params, trajectory, hparams):
        def values(obs):
            shape = trajectory.reward.shape
            return map_rows(lambda obs: outputs(params, obs)[1], _flatten(obs)).reshape(shape)

        done = trajectory.terminated | trajectory.truncated
        weight = _first_episodes(done) if episodic else jnp.ones_like(trajectory.reward)
        next_value = jnp.zeros_like(trajectory.reward) if episodic else values(trajectory.next_obs)
        target = advantage = _returns(trajectory, hparams.discount, next_value)
        if baseline == "mean":
            advantage = target - _mean_of_others(target, weight)
        if normalize_advantage:
            advantage = _normalize(target - values(trajectory.obs) if learn_value else advantage, weight)
        return jax.tree.map(_flatten, Rows(trajectory.obs, trajectory.extras, target, advantage, weight))

    def loss(params, rows, hparams):
        policy_params, value = outputs(params, rows.obs)
        advantage = rows.target - value if learn_value and not normalize_advantage else rows.advantage
        log_prob = policy.log_prob(policy_params, rows.x)
        # The mean runs over all T * B steps, those without weight included: dividing by their random
        # number instead would be biased, for it depends on the actions.
        loss = jnp.mean(rows.weight * losses.policy_gradient(log_prob, advantage))
        entropy = jnp.mean(rows.weight * policy.entropy(policy_params, rows.x))
        loss = loss - hparams.entropy_coef * entropy
        metrics = {"entropy": entropy}
        if learn_value:
            metrics["value_loss"] = jnp.mean(rows.weight * optax.losses.squared_error(value, rows.target))
            loss = loss + hparams.value_coef * metrics["value_loss"]
        return loss, {"loss": loss} | metrics

    return rows_of, loss


def _make_policy(action_space: Space, squash: bool) -> Policy:
    if isinstance(action_space, Discrete):
        if squash:
            raise ValueError("reinforce: squash=True is for a Box of actions, got a Discrete space")
        return Policy(
            (action_space.n,),
            categorical.noise,
            categorical.sample,
            categorical.mode,
            lambda x: x,
            categorical.log_prob,
            lambda params, x: categorical.entropy(params),
        )
    if not isinstance(action_space, Box) or not np.issubdtype(action_space.dtype, np.floating):
        raise ValueError(f"reinforce needs a Discrete action space or a Box of floats, got {action_space}")
    if squash and not action_space.bounded:
        raise ValueError(f"reinforce: squash=True needs finite bounds, got {action_space}")
    size = math.prod(action_space.shape)

    def action(x):
        x = x.reshape(*x.shape[:-1], *action_space.shape).astype(action_space.dtype)
        low, high = (jnp.broadcast_to(bound, x.shape) for bound in (action_space.low, action_space.high))
        return low + (high - low) * 0.5 * (jnp.tanh(x) + 1) if squash else jnp.clip(x, low, high)

    def entropy(params, x):
        if not squash:
            return diagonal_gaussian.entropy(params)
        mean, log_std = params
        return tanh_gaussian.entropy(params, jax.lax.stop_gradient((x - mean) * jnp.exp(-log_std)))

    return Policy(
        (size,),
        diagonal_gaussian.noise,
        diagonal_gaussian.sample,
        diagonal_gaussian.mode,
        action,
        diagonal_gaussian.log_prob,  # a tanh on top adds a term that does not depend on the parameters
        entropy,
    )


def _check_outputs(out: Any, obs: jax.Array, action_space: Space, policy: Policy, learn_value: bool) -> None:
    event = (obs.shape[0], *policy.noise_shape)
    wanted: Any = jax.ShapeDtypeStruct(event, jnp.float32)
    wanted = wanted if isinstance(action_space, Discrete) else (wanted, wanted)
    wanted = (wanted, jax.ShapeDtypeStruct(event[:1], jnp.float32)) if learn_value else wanted

    def shapes(tree):
        return jax.tree.map(lambda x: x.shape, tree)

    if shapes(out) != shapes(wanted):
        raise ValueError(
            f"reinforce: for {action_space} and baseline={'value' if learn_value else 'none or mean'} the network must give "
            f"{shapes(wanted)} for {obs.shape[0]} observations; it gave {shapes(out)}. See jaxrl.networks.policy(..., value=...)"
        )


def _returns(trajectory: Transition, discount, next_value: jax.Array) -> jax.Array:
    """Returns `[T, B]`; `next_value` `[T, B]` stands for what a truncation, or the end of the rollout, cut off."""
    discount_t = discount * (1.0 - trajectory.terminated.astype(jnp.float32))
    return returns.discounted_returns(trajectory.reward, discount_t, next_value, truncated=trajectory.truncated)


def _flatten(x: jax.Array) -> jax.Array:
    """`[T, B, ...]` to `[T * B, ...]`."""
    return x.reshape(-1, *x.shape[2:])


def _first_episodes(done: jax.Array) -> jax.Array:
    """float32 `[T, B]`: 1 on the steps of each environment's first episode, 0 after it, and 0 throughout if it never ends."""
    done = done.astype(jnp.int32)
    ended_before = jnp.cumsum(done, axis=0) - done
    return ((ended_before == 0) & jnp.any(done > 0, axis=0, keepdims=True)).astype(jnp.float32)


def _mean_of_others(target: jax.Array, weight: jax.Array) -> jax.Array:
    """For each step and environment, the mean return of the other environments still playing; 0 for the last one."""
    total = jnp.sum(weight * target, axis=1, keepdims=True)
    others = jnp.sum(weight, axis=1, keepdims=True) - weight
    return jnp.where(others > 0, (total - weight * target) / jnp.maximum(others, 1.0), 0.0)


def _normalize(advantage: jax.Array, weight: jax.Array) -> jax.Array:
    count = jnp.maximum(jnp.sum(weight), 1.0)
    centred = advantage - jnp.sum(weight * advantage) / count
    return centred / (jnp.sqrt(jnp.sum(weight * jnp.square(centred)) / count) + 1e-8)
