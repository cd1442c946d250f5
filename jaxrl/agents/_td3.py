"""Twin delayed deterministic policy gradients (TD3, Fujimoto et al. 2018), and DDPG (Lillicrap et al. 2016), its special case."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import losses, off_policy, replay, transitions
from jaxrl.checks import (
    AT_LEAST_ZERO,
    FINITE,
    FRACTION,
    check_hparams,
    check_optimizer,
    check_replay_sizes,
    check_size,
)
from jaxrl.optimizers import Optimizer, adam, num_updates, optimizer_step, polyak_update
from jaxrl.policies import DeterministicHead, deterministic_head
from jaxrl.schedules import linear_schedule
from jaxrl.shards import shard_size
from jaxrl.types import ActorCritic, Agent, Box, Noise, Space, UpdateFn

_HINT = "Build both networks with jaxrl.networks.deterministic_actor_critic"


class TD3HParams(NamedTuple):
    """Hyperparameters of `td3`; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate: learning rate of actor and critics at the first update.
      learning_rate_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      discount: discount factor γ.
      tau: fraction of the parameters of actor and critics in each update of their targets.
      exploration_noise: standard deviation of the noise added to actions, where [-1, 1] stands for the bounds of the action.
      noise_correlation: correlation of that noise between two steps of an episode, below 1; 0 draws it independently.
      target_noise: standard deviation of the noise added to the target policy's actions, in the units of exploration_noise.
      target_noise_clip: bound on the absolute value of that noise.
    """

    learning_rate: float = 3e-4
    learning_rate_iterations: float = math.inf
    discount: float = 0.99
    tau: float = 0.005
    exploration_noise: float = 0.1
    noise_correlation: float = 0.0
    target_noise: float = 0.2
    target_noise_clip: float = 0.5


class DDPGHParams(NamedTuple):
    """Hyperparameters of `ddpg`; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate: learning rate of actor and critic at the first update.
      learning_rate_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      discount: discount factor γ.
      tau: fraction of the parameters of actor and critic in each update of their targets.
      exploration_noise: standard deviation of the noise added to actions, where [-1, 1] stands for the bounds of the action.
      noise_correlation: correlation of that noise between two steps of an episode, below 1; 0 draws it independently.
    """

    learning_rate: float = 3e-4
    learning_rate_iterations: float = math.inf
    discount: float = 0.99
    tau: float = 0.005
    exploration_noise: float = 0.1
    noise_correlation: float = 0.0


_RANGES = {
    "learning_rate": FINITE,
    "learning_rate_iterations": AT_LEAST_ZERO,
    "discount": FRACTION,
    "tau": FRACTION,
    "exploration_noise": FINITE,
    "noise_correlation": (0.0, 0.9999),  # at 1 the noise would stay 0
    "target_noise": FINITE,
    "target_noise_clip": AT_LEAST_ZERO,
}


class TD3Params(NamedTuple):
    """A value for the actor and one for the critics: parameters, targets, or states of the optimizer."""

    actor: Any
    critic: Any  # parameters of K critics, leaves [K, ...]


class TD3State(NamedTuple):
    params: TD3Params
    target_params: TD3Params
    opt_state: TD3Params
    replay: replay.Replay


def td3(
    network: ActorCritic,
    action_space: Space,
    *,
    batch_size: int = 256,
    capacity: int = 100_000,
    warmup: int = 1_000,
    updates_per_iteration: int = 2,
    policy_delay: int = 2,
    optimizer: Optimizer = adam,
    hparams: TD3HParams = TD3HParams(),
) -> Agent:
    """TD3 for continuous actions: deterministic policy gradients with a delayed actor and the minimum of several critics.

    Each iteration acts with the policy plus noise, stores the transitions, and takes gradient steps on batches drawn uniformly
    from the replay. Every `policy_delay` steps of the critics are followed by one step of the actor, on the last of their
    batches, and by an update of all targets. The actor ascends the first critic. The critics' targets use the minimum of the
    target critics at the target policy's action plus clipped noise. Bootstrapping stops where an episode terminated, and
    continues from the true successor where it was truncated.

    The exploration noise is an autoregressive process ε ← c ε + √(1 − c²) z with z ~ N(0, I), which starts at 0 in every
    episode; c is `noise_correlation`. For c = 0 it is the white noise of the paper. In the warm-up, actions do not depend on
    the policy: for c = 0 they are uniform between finite bounds and standard normal in dimensions without two bounds; for
    larger c they are correlated in the same way, and begin in the middle.

    Args:
      network: an `ActorCritic`: `actor.apply(params, obs) -> [..., m]`, before the tanh of `deterministic_head`, and
        `critic.apply(params, obs, action) -> q[K, ...]`, the values of K critics; e.g. from
        `jaxrl.networks.deterministic_actor_critic`.
      action_space: a `Box` of floats.
      batch_size: transitions per gradient step.
      capacity: transitions in the replay, a multiple of `num_envs * rollout_length`.
      warmup: iterations that act at random and store before the first update; at least 1.
      updates_per_iteration: gradient steps of the critics per iteration, a multiple of `policy_delay`.
      policy_delay: gradient steps of the critics for each gradient step of the actor.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss` (the sum of the next two), `critic_loss`, `actor_loss` (minus the mean value of the
      policy's actions), `q` (mean value of the actions in the batch).

    Raises:
      ValueError, TypeError: for another action space, or sizes that are not positive ints or do not fit each other.
    """
    sizes = check_replay_sizes(batch_size, capacity, warmup, updates_per_iteration)
    _check_delay(sizes[-1], check_size("policy_delay", policy_delay))
    return _make_agent("td3", network, action_space, sizes, policy_delay, optimizer, hparams, TD3HParams)


def ddpg(
    network: ActorCritic,
    action_space: Space,
    *,
    batch_size: int = 256,
    capacity: int = 100_000,
    warmup: int = 1_000,
    updates_per_iteration: int = 1,
    optimizer: Optimizer = adam,
    hparams: DDPGHParams = DDPGHParams(),
) -> Agent:
    """DDPG for continuous actions: TD3 with one critic, an actor step after every critic step, and no target noise.

    Acting, the exploration noise and the warm-up are those of `td3`. The paper's Ornstein-Uhlenbeck noise (θ = 0.15, σ = 0.2)
    is `noise_correlation=0.85` with `exploration_noise=0.38`.

    Args:
      network: an `ActorCritic` with one critic, as for `td3`; e.g. from `jaxrl.networks.deterministic_actor_critic` with
        `num_critics=1`.
      action_space: a `Box` of floats.
      batch_size: transitions per gradient step.
      capacity: transitions in the replay, a multiple of `num_envs * rollout_length`.
      warmup: iterations that act at random and store before the first update; at least 1.
      updates_per_iteration: gradient steps of critic and actor per iteration.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`, with the metrics of `td3`.

    Raises:
      ValueError, TypeError: for another action space, or sizes that are not positive ints or do not fit each other.
    """
    sizes = check_replay_sizes(batch_size, capacity, warmup, updates_per_iteration)
    return _make_agent("ddpg", network, action_space, sizes, 1, optimizer, hparams, DDPGHParams)


def _check_delay(updates_per_iteration: int, policy_delay: int) -> None:
    if updates_per_iteration % policy_delay:
        nearest = max(1, round(updates_per_iteration / policy_delay)) * policy_delay
        raise ValueError(
            f"updates_per_iteration={updates_per_iteration} must be a multiple of policy_delay={policy_delay}, so that every "
            f"iteration ends with a step of the actor; the nearest is {nearest}"
        )


def _make_agent(
    name: str,
    network: ActorCritic,
    action_space: Space,
    sizes: tuple[int, int, int, int],
    policy_delay: int,
    optimizer: Optimizer,
    hparams: Any,
    kind: type,
) -> Agent:
    """The agent of `td3` or, if `kind` is `DDPGHParams`, of `ddpg`: one critic and no noise on target actions.

    `sizes` are batch_size, capacity, warmup and updates_per_iteration.
    """
    if not isinstance(action_space, Box) or not jnp.issubdtype(action_space.dtype, jnp.floating):
        raise ValueError(f"{name} needs a Box of floats as its action space, got {action_space}")
    off_policy.check_actor_critic(name, network, "deterministic_actor_critic")
    check_optimizer(optimizer)
    check_hparams(hparams, kind, _RANGES)
    batch_size, capacity, warmup, updates_per_iteration = sizes
    head, smooth = deterministic_head(action_space), kind is TD3HParams
    num_blocks = updates_per_iteration // policy_delay
    num_critics = None if smooth else 1

    def init(key, obs, hparams):
        check_hparams(hparams, kind, _RANGES)
        policy_spec = head.params_spec((jax.tree.leaves(obs)[0].shape[0],))
        params = TD3Params(
            *off_policy.init_actor_critic(name, network, action_space, policy_spec, key, obs, num_critics=num_critics, hint=_HINT)
        )
        opt_state = TD3Params(*map(optimizer(hparams.learning_rate).init, params))
        stored = replay.init(transitions.example_transition(obs, action_space), shard_size("capacity", capacity))
        return TD3State(params, params, opt_state, stored)

    def noise(key, num_steps, num_envs):
        act_key, sample_key, target_key = jax.random.split(key, 3)
        shape = num_blocks, policy_delay, shard_size("batch_size", batch_size)
        target = head.noise(target_key, shape) if smooth else ()
        return Noise(act=head.noise(act_key, (num_steps, num_envs)), update=(replay.noise(sample_key, shape), target))

    def initial_carry(num_envs):
        return jnp.zeros(head.params_spec((num_envs,)).shape, jnp.float32)

    def explore(actor_params, obs, carry, noise_t, hparams, iteration):
        correlation = hparams.noise_correlation
        carry = correlation * carry + jnp.sqrt(1.0 - jnp.square(correlation)) * noise_t
        raw_action = head.perturb(head.mode(network.actor.apply(actor_params, obs)), hparams.exploration_noise * carry)
        raw_action = jnp.where(iteration < warmup, head.random(carry), raw_action)
        return head.to_action(raw_action), carry, ()

    def exploit(actor_params, obs, carry, key):
        return head.to_action(head.mode(network.actor.apply(actor_params, obs))), carry

    def store(state, rollout, iteration):
        return off_policy.store(state, rollout._replace(carry=()), iteration)  # noise, which no update reads

    critic_loss, actor_loss = partial(_critic_loss, network, head, smooth), partial(_actor_loss, network, head)
    update = _make_update(critic_loss, actor_loss, optimizer, warmup, (num_blocks, policy_delay))
    return Agent(
        hparams=hparams, init=init, noise=noise, policy=lambda state: state.params.actor, explore=explore, exploit=exploit,
        store=store, update=update, initial_carry=initial_carry, warmup=warmup,
    )  # fmt: skip


def _critic_loss(network, head: DeterministicHead, smooth: bool, critic_params, target_params, batch, noise, hparams):
    """Half the squared TD errors of a batch, summed over the critics (Fujimoto et al. 2018, eq. 10, 14); noise `[N, m]`."""
    raw_action = head.mode(network.actor.apply(target_params.actor, batch.next_obs))
    if smooth:
        noise = jnp.clip(hparams.target_noise * noise, -hparams.target_noise_clip, hparams.target_noise_clip)
        raw_action = head.perturb(raw_action, noise)
    next_q = network.critic.apply(target_params.critic, batch.next_obs, head.to_action(raw_action))
    q = network.critic.apply(critic_params, batch.obs, batch.action)
    discount = transitions.discounts(batch, hparams.discount)
    td_error = losses.soft_td_error(q.T, batch.reward, discount, next_q.T, jnp.zeros_like(batch.reward), 0.0)
    loss = 0.5 * jnp.mean(jnp.sum(jnp.square(td_error), axis=-1))
    return loss, {"critic_loss": loss, "q": q}


def _actor_loss(network, head: DeterministicHead, actor_params, critic_params, obs):
    """Minus the mean value of the policy's actions, by the first critic."""
    action = head.to_action(head.mode(network.actor.apply(actor_params, obs)))
    loss = -jnp.mean(network.critic.apply(critic_params, obs, action)[0])
    return loss, loss


def _make_update(
    critic_loss: Callable[..., Any],
    actor_loss: Callable[..., Any],
    optimizer: Optimizer,
    warmup: int,
    shape: tuple[int, int],
) -> UpdateFn:
    """Blocks of critic steps, each followed by a step of the actor and an update of the targets; `shape`: blocks, steps of each.

    Actor and critics have optimizers of their own, whose steps are counted separately. Short blocks are unrolled, which saves a
    fifth of the kernels on a GPU.
    """
    num_blocks, policy_delay = shape

    def update(state, rollout, noise, hparams, iteration):
        sample_noise, target_noise = noise
        batches = off_policy.sample(state.replay, sample_noise, rollout, iteration)
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration - warmup)
        step = partial(optimizer_step, optimizer, learning_rate)
        critic_steps = num_updates(iteration, warmup, num_blocks * policy_delay)
        actor_steps = num_updates(iteration, warmup, num_blocks)

        def block(carry, inputs):
            params, target_params, opt_state = carry
            index, batches, target_noise = inputs

            def critic_step(carry, inputs):
                critic_params, opt_state = carry
                i, batch, noise = inputs
                grads, metrics = jax.grad(critic_loss, has_aux=True)(critic_params, target_params, batch, noise, hparams)
                done = critic_steps + index * policy_delay + i
                return step(done, grads, opt_state, critic_params)[:2], metrics

            inputs = jnp.arange(policy_delay, dtype=jnp.int32), batches, target_noise
            (critic, critic_opt), metrics = jax.lax.scan(
                critic_step, (params.critic, opt_state.critic), inputs, unroll=min(policy_delay, 4)
            )
            obs = jax.tree.map(lambda x: x[-1], batches.obs)
            grads, loss = jax.grad(actor_loss, has_aux=True)(params.actor, critic, obs)
            actor, actor_opt, _ = step(actor_steps + index, grads, opt_state.actor, params.actor)
            params = TD3Params(actor, critic)
            metrics |= {"actor_loss": loss, "loss": metrics["critic_loss"] + loss}
            return (params, polyak_update(params, target_params, hparams.tau), TD3Params(actor_opt, critic_opt)), metrics

        carry = state.params, state.target_params, state.opt_state
        carry, metrics = jax.lax.scan(block, carry, (jnp.arange(num_blocks, dtype=jnp.int32), batches, target_noise))
        return TD3State(*carry, state.replay), metrics

    return update
