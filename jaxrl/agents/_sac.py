"""Soft actor-critic (Haarnoja et al. 2018b) for continuous and discrete actions, with an ensemble of critics and a learned
temperature. Networks with dropout or batch renormalisation make it DroQ or CrossQ."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import losses, replay, transitions
from jaxrl.checks import AT_LEAST_ZERO, FINITE, FRACTION, check_hparams, check_optimizer, check_replay_sizes
from jaxrl.noise import held
from jaxrl.off_policy import check_actor_critic, init_actor_critic, sample, store
from jaxrl.optimizers import Optimizer, adam, num_updates, optimizer_step, polyak_update
from jaxrl.policies import PolicyHead, policy_head
from jaxrl.schedules import linear_schedule
from jaxrl.shards import shard_size
from jaxrl.training_passes import apply_training, training_keys, weights, with_statistics, with_weights
from jaxrl.types import ActorCritic, Agent, Box, Discrete, Noise, Space, UpdateFn

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
      target_entropy: for a Box, the target for the entropy of the policy, in nats per action dimension, for actions scaled to
        [-1, 1].
      relative_target_entropy: for Discrete, the target for the entropy of the policy, relative to that of the uniform policy
        over the legal actions, log n.
    """

    learning_rate: float = 3e-4
    learning_rate_iterations: float = math.inf
    discount: float = 0.99
    tau: float = 0.005
    initial_temperature: float = 1.0
    target_entropy: float = -1.0
    relative_target_entropy: float = 0.5


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
    target_critic: Any  # None without a target network
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
    target_network: bool = True,
    noise_period: int = 1,
    optimizer: Optimizer = adam,
    hparams: SACHParams = SACHParams(),
) -> Agent:
    """Soft actor-critic.

    Each iteration acts with the stochastic policy, stores the transitions, and takes gradient steps on batches drawn uniformly
    from the replay. A step updates actor, critics and temperature together, on the same batch. Bootstrapping stops where an
    episode terminated, and continues from the true successor where it was truncated.

    For Discrete actions, expectations over the actions are exact sums (Christodoulou 2019), and a logit of −inf marks an illegal
    action. With dropout in the critics and several updates per iteration it is DroQ (Hiraoka et al. 2022); with batch
    renormalisation and without a target network, CrossQ (Bhatt et al. 2024). Dropout and statistics of the batch are in the
    passes that compute TD errors, and for the actor in that of its loss, not in the critics that the actor climbs.

    Args:
      network: an `ActorCritic`, e.g. from `jaxrl.networks.actor_critic`.
        For a Box, `actor.apply(params, obs) -> (mean, log_std)`, each `[..., m]`, and
        `critic.apply(params, obs, action) -> q[K, ...]`, the values of K critics.
        For Discrete(n), `actor.apply(params, obs) -> logits[..., n]` and `critic.apply(params, obs) -> q[K, ..., n]`.
      action_space: a `Box` of floats with finite bounds, or `Discrete`.
      batch_size: transitions per gradient step.
      capacity: transitions in the replay, a multiple of `num_envs * rollout_length`.
      warmup: iterations that act and store before the first update; at least 1.
      updates_per_iteration: gradient steps per iteration.
      target_network: bootstrap from a slowly moving copy of the critics. Without it, they bootstrap from themselves, in one pass
        over the batch and its successors.
      noise_period: steps for which each environment keeps the noise of its policy; it divides `rollout_length`. More than 1
        explores further where single steps average out.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss` (the sum of the losses of actor, critics and temperature), `critic_loss`, `actor_loss`,
      `temperature`, `entropy` (for a Box an estimate, for actions scaled to [-1, 1]), `q` (mean value of the actions in the
      batch).

    Raises:
      ValueError, TypeError: for another action space, or sizes that are not positive ints or do not fit each other.
    """
    if not (isinstance(action_space, Discrete) or (isinstance(action_space, Box) and action_space.bounded)):
        raise ValueError(f"sac needs a Discrete action space or a Box with finite bounds, got {action_space}")
    batch_size, capacity, warmup, updates_per_iteration = check_replay_sizes(batch_size, capacity, warmup, updates_per_iteration)
    check_actor_critic("sac", network, "actor_critic")
    check_optimizer(optimizer)
    check_hparams(hparams, SACHParams, _RANGES)
    discrete = isinstance(action_space, Discrete)
    head = policy_head(action_space, squash=not discrete)
    actor, critic = network

    def init(key, obs, hparams):
        check_hparams(hparams, SACHParams, _RANGES)
        policy_spec = head.params_spec((jax.tree.leaves(obs)[0].shape[0],))
        actor_params, critic_params = init_actor_critic("sac", network, action_space, policy_spec, key, obs, hint=_HINT)
        params = SACParams(actor_params, critic_params, jnp.log(jnp.float32(hparams.initial_temperature)))
        opt_state = optimizer(hparams.learning_rate).init(weights(params))
        example = transitions.example_transition(obs, action_space)
        stored = replay.init(example, shard_size("capacity", capacity))
        return SACState(params, critic_params if target_network else None, opt_state, stored)

    def noise(key, num_steps, num_envs):
        act_key, sample_key, actor_key, successor_key, network_key = jax.random.split(key, 5)
        shape = updates_per_iteration, shard_size("batch_size", batch_size)
        no_noise = lambda key, shape: None  # of actions, whose expectations are exact
        draw = no_noise if discrete else head.noise
        update = _UpdateNoise(
            replay.noise(sample_key, shape), draw(actor_key, shape), draw(successor_key, shape),
            *training_keys(network_key, shape[:1], actor, critic, critic if target_network else None),
        )  # fmt: skip
        return Noise(act=head.noise(act_key, (num_steps, num_envs)), update=update)

    def explore(actor_params, obs, carry, noise_t, hparams, iteration):
        return head.to_action(head.sample(_bounded(actor.apply(actor_params, obs)), noise_t)), carry, ()

    def exploit(actor_params, obs, carry, key):
        return head.to_action(head.mode(_bounded(actor.apply(actor_params, obs)))), carry

    terms = _discrete_terms(network) if discrete else _box_terms(network, head, math.prod(action_space.shape))
    update = _make_update(_make_loss(terms), optimizer, warmup, updates_per_iteration)
    policy = lambda state: state.params.actor
    return Agent(
        hparams=hparams, init=init, noise=held(noise, noise_period), policy=policy, explore=explore, exploit=exploit, store=store,
        update=update, warmup=warmup,
    )  # fmt: skip


class _UpdateNoise(NamedTuple):
    """What is random in the gradient steps of an iteration, leaves `[updates, ...]`; None for what is not."""

    sample: jax.Array | None
    action: jax.Array | None  # of the actor's loss
    next_action: jax.Array | None
    actor_key: jax.Array | None
    critic_key: jax.Array | None
    target_key: jax.Array | None


def _bounded(policy: Any) -> Any:
    """The output of an actor with the bounds on log_std; logits unchanged."""
    if not isinstance(policy, tuple):
        return policy
    mean, log_std = policy
    return mean, jnp.clip(log_std, _MIN_LOG_STD, _MAX_LOG_STD)


# --- the losses of a batch of N transitions


class _Terms(NamedTuple):
    """The parts of the loss that depend on the action space.

    Attributes:
      critic: `(params, fixed, target_critic, temperature, batch, noise, discount)` to TD errors `[N, K]`, the values of the
        actions in the batch `[K, N]`, and the critics' statistics.
      actor: `(params, fixed, temperature, batch, noise, hparams)` to the actor's loss, the log-probability of its action or its
        mean, and the target for the entropy, each `[N]` or a scalar, and the actor's statistics.
    """

    critic: Callable[..., tuple[jax.Array, jax.Array, Any]]
    actor: Callable[..., tuple[jax.Array, jax.Array, Any, Any]]


def _box_terms(network: ActorCritic, head: PolicyHead, size: int) -> _Terms:
    """Actions are samples, reparameterised. `size` is the number of action dimensions."""
    actor, critic = network

    def act(policy, noise):
        policy = _bounded(policy)
        raw_action = head.sample(policy, noise)
        return head.to_action(raw_action), head.log_prob(policy, raw_action)

    def critic_terms(params, fixed, target_critic, temperature, batch, noise, discount):
        next_action, next_log_prob = act(actor.apply(fixed.actor, batch.next_obs), noise.next_action)
        inputs, next_inputs = (batch.obs, batch.action), (batch.next_obs, next_action)
        q, next_q, statistics = _values(critic, params.critic, target_critic, noise, inputs, next_inputs)
        discount_t = transitions.discounts(batch, discount)
        return losses.soft_td_error(q.T, batch.reward, discount_t, next_q.T, next_log_prob, temperature), q, statistics

    def actor_terms(params, fixed, temperature, batch, noise, hparams):
        policy, statistics = apply_training(actor, params.actor, noise.actor_key, batch.obs)
        action, log_prob = act(policy, noise.action)
        loss = losses.sac_actor(log_prob, critic.apply(fixed.critic, batch.obs, action).T, temperature)
        return loss, log_prob, size * hparams.target_entropy, statistics

    return _Terms(critic_terms, actor_terms)


def _discrete_terms(network: ActorCritic) -> _Terms:
    """The critics return the values of all actions, and expectations over them are exact."""
    actor, critic = network

    def critic_terms(params, fixed, target_critic, temperature, batch, noise, discount):
        next_logits = actor.apply(fixed.actor, batch.next_obs)
        each_q, next_q, statistics = _values(critic, params.critic, target_critic, noise, (batch.obs,), (batch.next_obs,))
        next_value = losses.soft_value(next_logits, jnp.moveaxis(next_q, 0, -1), temperature)
        q = jax.vmap(losses.select, (0, None))(each_q, batch.action)
        discount_t = transitions.discounts(batch, discount)
        td_error = jax.vmap(losses.td_learning, (0, None, None, None))(q, batch.reward, discount_t, next_value)
        return td_error.T, q, statistics

    def actor_terms(params, fixed, temperature, batch, noise, hparams):
        logits, statistics = apply_training(actor, params.actor, noise.actor_key, batch.obs)
        loss = -losses.soft_value(logits, jnp.moveaxis(critic.apply(fixed.critic, batch.obs), 0, -1), temperature)
        num_legal = jnp.sum((logits > -jnp.inf).astype(jnp.float32), axis=-1)
        return loss, -losses.entropy(logits), hparams.relative_target_entropy * jnp.log(num_legal), statistics

    return _Terms(critic_terms, actor_terms)


def _values(
    critic: Any, params: Any, target_params: Any, noise: _UpdateNoise, inputs: Any, next_inputs: Any
) -> tuple[jax.Array, jax.Array, Any]:
    """The values of `inputs` and, by the target network, of `next_inputs`, each `[K, N, ...]`, and the critics' statistics."""
    if target_params is None:  # one pass over both: statistics of the batch are those of their mixture (Bhatt et al. 2024)
        both = jax.tree.map(lambda x, y: jnp.concatenate([x, y]), inputs, next_inputs)
        q, statistics = apply_training(critic, params, noise.critic_key, *both)
        return *jnp.split(q, 2, axis=1), statistics
    next_q, _ = apply_training(critic, target_params, noise.target_key, *next_inputs)
    q, statistics = apply_training(critic, params, noise.critic_key, *inputs)
    return q, next_q, statistics


def _make_loss(terms: _Terms) -> Callable[..., Any]:
    """Return the loss: the sum of those of critics, actor and temperature, each differentiated in its own parameters only."""

    def loss(params, target_critic, batch, noise, hparams):
        fixed, temperature = jax.lax.stop_gradient((params, jnp.exp(params.log_temperature)))
        td_error, q, critic_statistics = terms.critic(params, fixed, target_critic, temperature, batch, noise, hparams.discount)
        critic_loss = 0.5 * jnp.mean(jnp.sum(jnp.square(td_error), axis=-1))
        each_loss, log_prob, target_entropy, actor_statistics = terms.actor(params, fixed, temperature, batch, noise, hparams)
        actor_loss = jnp.mean(each_loss)
        temperature_loss = jnp.mean(losses.sac_temperature(log_prob, params.log_temperature, target_entropy))
        total = critic_loss + actor_loss + temperature_loss
        metrics = {"critic_loss": critic_loss, "actor_loss": actor_loss, "temperature": temperature}
        return total, (metrics | {"loss": total, "entropy": -log_prob, "q": q}, actor_statistics, critic_statistics)

    return loss


def _make_update(loss: Callable[..., Any], optimizer: Optimizer, warmup: int, updates_per_iteration: int) -> UpdateFn:
    """Gradient steps on batches from the replay, each followed by an update of the target critics."""

    def update(state, rollout, noise, hparams, iteration):
        batches = sample(state.replay, noise.sample, rollout, iteration)
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration - warmup)
        done = num_updates(iteration, warmup, updates_per_iteration)

        def step(carry, inputs):
            params, target_critic, opt_state = carry
            index, batch, noise_i = inputs
            loss_of = lambda new: loss(with_weights(params, new), target_critic, batch, noise_i, hparams)
            old = weights(params)
            grads, (metrics, actor_statistics, critic_statistics) = jax.grad(loss_of, has_aux=True)(old)
            new, opt_state, _ = optimizer_step(optimizer, learning_rate, done + index, grads, opt_state, old)
            actor, critic, log_temperature = with_weights(params, new)
            actor, critic = with_statistics(actor, actor_statistics), with_statistics(critic, critic_statistics)
            target_critic = None if target_critic is None else polyak_update(critic, target_critic, hparams.tau)
            return (SACParams(actor, critic, log_temperature), target_critic, opt_state), metrics

        carry = state.params, state.target_critic, state.opt_state
        steps = jnp.arange(updates_per_iteration, dtype=jnp.int32)
        carry, metrics = jax.lax.scan(step, carry, (steps, batches, noise._replace(sample=None)))
        return SACState(*carry, state.replay), metrics

    return update
