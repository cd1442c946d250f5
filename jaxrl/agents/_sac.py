"""Soft actor-critic (Haarnoja et al. 2018b), with an ensemble of critics and a learned temperature."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import losses, replay, transitions
from jaxrl.checks import AT_LEAST_ZERO, FINITE, FRACTION, check_hparams, check_replay_sizes
from jaxrl.off_policy import init_actor_critic, sample, store
from jaxrl.optimizers import Optimizer, adam, num_updates, optimizer_step, polyak_update
from jaxrl.policies import PolicyHead, policy_head
from jaxrl.schedules import linear_schedule
from jaxrl.types import ActorCritic, Agent, Box, Noise, Space, UpdateFn

_HINT = "Build both networks with jaxrl.networks.actor_critic"
_MIN_LOG_STD, _MAX_LOG_STD = -20.0, 2.0  # of the paper's implementation


class SACHParams(NamedTuple):
    """Hyperparameters of `sac`; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate: learning rate of actor, critics and temperature at the first update.
      learning_rate_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      discount: discount factor γ.
      tau: fraction of the critics' parameters in each update of the target critics.
      initial_temperature: weight of the entropy before the first update.
      target_entropy: target for the entropy of the policy, in nats per action dimension, for actions scaled to [-1, 1].
    """

    learning_rate: float = 3e-4
    learning_rate_iterations: float = math.inf
    discount: float = 0.99
    tau: float = 0.005
    initial_temperature: float = 1.0
    target_entropy: float = -1.0


_RANGES = dict.fromkeys(SACHParams._fields, FRACTION) | {
    "learning_rate": FINITE,
    "learning_rate_iterations": AT_LEAST_ZERO,
    "initial_temperature": FINITE,
    "target_entropy": (-math.inf, math.inf),
}


class SACParams(NamedTuple):
    actor: Any
    critic: Any  # leaves [K, ...]
    log_temperature: jax.Array  # float32 scalar; the logarithm is optimised, as in the paper's implementation


class SACState(NamedTuple):
    params: SACParams
    target_critic: Any
    opt_state: Any
    replay: replay.Replay


def sac(
    network: ActorCritic,
    action_space: Space,
    *,
    batch_size: int = 256,
    capacity: int = 100_000,
    warmup: int = 1_000,
    updates_per_iteration: int = 1,
    optimizer: Optimizer = adam,
    hparams: SACHParams = SACHParams(),
) -> Agent:
    """Soft actor-critic for continuous actions.

    Each iteration acts with the stochastic policy, stores the transitions, and takes gradient steps on batches drawn uniformly
    from the replay. A step updates actor, critics and temperature together, on the same batch. Bootstrapping stops where an
    episode terminated, and continues from the true successor where it was truncated.

    Args:
      network: an `ActorCritic`: `actor.apply(params, obs) -> (mean, log_std)`, each `[..., m]`, and
        `critic.apply(params, obs, action) -> q[K, ...]`, the values of K critics; e.g. from `jaxrl.networks.actor_critic`.
      action_space: a `Box` of floats with finite bounds.
      batch_size: transitions per gradient step.
      capacity: transitions in the replay, a multiple of `num_envs * rollout_length`.
      warmup: iterations that act and store before the first update; at least 1.
      updates_per_iteration: gradient steps per iteration.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss` (the sum of the losses of actor, critics and temperature), `critic_loss`, `actor_loss`,
      `temperature`, `entropy` (estimate, for actions scaled to [-1, 1]), `q` (mean value of the actions in the batch).

    Raises:
      ValueError, TypeError: for another action space, or sizes that are not positive ints or do not fit each other.
    """
    if not isinstance(action_space, Box) or not action_space.bounded:
        raise ValueError(f"sac needs a Box with finite bounds as its action space, got {action_space}")
    batch_size, capacity, warmup, updates_per_iteration = check_replay_sizes(batch_size, capacity, warmup, updates_per_iteration)
    check_hparams(hparams, SACHParams, _RANGES)
    actor, critic = network
    head = policy_head(action_space, squash=True)

    def policy_of(actor_params, obs):
        mean, log_std = actor.apply(actor_params, obs)
        return mean, jnp.clip(log_std, _MIN_LOG_STD, _MAX_LOG_STD)

    def init(key, obs, hparams):
        check_hparams(hparams, SACHParams, _RANGES)
        policy_spec = head.params_spec((jax.tree.leaves(obs)[0].shape[0],))
        actor_params, critic_params = init_actor_critic("sac", network, action_space, policy_spec, key, obs, hint=_HINT)
        params = SACParams(actor_params, critic_params, jnp.log(jnp.float32(hparams.initial_temperature)))
        example = transitions.example_transition(obs, action_space)
        return SACState(params, critic_params, optimizer(hparams.learning_rate).init(params), replay.init(example, capacity))

    def noise(key, num_steps, num_envs):
        act_key, sample_key, actor_key, successor_key = jax.random.split(key, 4)
        shape = updates_per_iteration, batch_size
        update = replay.noise(sample_key, shape), head.noise(actor_key, shape), head.noise(successor_key, shape)
        return Noise(act=head.noise(act_key, (num_steps, num_envs)), update=update)

    def explore(actor_params, obs, carry, noise_t, hparams, iteration):
        return head.to_action(head.sample(policy_of(actor_params, obs), noise_t)), carry, ()

    def exploit(actor_params, obs, carry, key):
        return head.to_action(head.mode(policy_of(actor_params, obs))), carry

    loss = _make_loss(policy_of, critic, head, math.prod(action_space.shape))

    update = _make_update(loss, optimizer, warmup, updates_per_iteration)
    policy = lambda state: state.params.actor
    return Agent(
        hparams=hparams, init=init, noise=noise, policy=policy, explore=explore, exploit=exploit, store=store, update=update,
        warmup=warmup,
    )  # fmt: skip


def _make_loss(policy_of: Callable[..., Any], critic: Any, head: PolicyHead, size: int) -> Callable[..., Any]:
    """Return the loss: the sum of those of critics, actor and temperature, each differentiated in its own parameters only.

    `policy_of(actor_params, obs)` returns the policy's parameters; `size` is the number of action dimensions.
    """

    def act(actor_params, obs, noise):
        """Reparameterised actions and their log-probabilities."""
        policy = policy_of(actor_params, obs)
        raw_action = head.sample(policy, noise)
        return head.to_action(raw_action), head.log_prob(policy, raw_action)

    def loss(params, target_critic, batch, actor_noise, successor_noise, hparams):
        fixed, temperature = jax.lax.stop_gradient((params, jnp.exp(params.log_temperature)))
        next_action, next_log_prob = act(fixed.actor, batch.next_obs, successor_noise)
        next_q = critic.apply(target_critic, batch.next_obs, next_action)
        q = critic.apply(params.critic, batch.obs, batch.action)
        td_error = losses.soft_td_error(
            q.T, batch.reward, transitions.discounts(batch, hparams.discount), next_q.T, next_log_prob, temperature
        )
        critic_loss = 0.5 * jnp.mean(jnp.sum(jnp.square(td_error), axis=-1))
        action, log_prob = act(params.actor, batch.obs, actor_noise)
        actor_loss = jnp.mean(losses.sac_actor(log_prob, critic.apply(fixed.critic, batch.obs, action).T, temperature))
        target_entropy = size * hparams.target_entropy
        temperature_loss = jnp.mean(losses.sac_temperature(log_prob, params.log_temperature, target_entropy))
        total = critic_loss + actor_loss + temperature_loss
        metrics = {"critic_loss": critic_loss, "actor_loss": actor_loss, "temperature": temperature}
        return total, metrics | {"loss": total, "entropy": -log_prob, "q": q}

    return loss


def _make_update(loss: Callable[..., Any], optimizer: Optimizer, warmup: int, updates_per_iteration: int) -> UpdateFn:
    """Gradient steps on batches from the replay, each followed by an update of the target critics."""

    def update(state, rollout, noise, hparams, iteration):
        sample_noise, *action_noise = noise
        batches = sample(state.replay, sample_noise, rollout, iteration)
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration - warmup)
        done = num_updates(iteration, warmup, updates_per_iteration)

        def step(carry, inputs):
            params, target_critic, opt_state = carry
            index, batch, actor_noise, successor_noise = inputs
            grads, metrics = jax.grad(loss, has_aux=True)(params, target_critic, batch, actor_noise, successor_noise, hparams)
            params, opt_state, _ = optimizer_step(optimizer, learning_rate, done + index, grads, opt_state, params)
            return (params, polyak_update(params.critic, target_critic, hparams.tau), opt_state), metrics

        carry = state.params, state.target_critic, state.opt_state
        steps = jnp.arange(updates_per_iteration, dtype=jnp.int32)
        carry, metrics = jax.lax.scan(step, carry, (steps, batches, *action_noise))
        return SACState(*carry, state.replay), metrics

    return update
