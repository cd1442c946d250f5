"""Deep Q-learning (Mnih et al. 2015), optionally with the target of double DQN (van Hasselt et al. 2016)."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, replay, transitions
from jaxrl.checks import (
    AT_LEAST_ZERO,
    FINITE,
    FRACTION,
    check_choice,
    check_hparams,
    check_network_output,
    check_replay_sizes,
    check_size,
)
from jaxrl.exploration import epsilon_greedy
from jaxrl.noise import random_bits
from jaxrl.optimizers import Optimizer, adam, num_updates, optimizer_step, update_target
from jaxrl.schedules import linear_schedule
from jaxrl.types import Agent, Discrete, InitFn, Network, Noise, Space, Transition, UpdateFn


class DQNHParams(NamedTuple):
    """Hyperparameters of `dqn`; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate: learning rate at the first update.
      learning_rate_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      discount: discount factor γ.
      tau: fraction of the online parameters in a target update; 1 copies them.
      epsilon_start: probability of a random action at the first iteration.
      epsilon_end: probability of a random action after epsilon_iterations.
      epsilon_iterations: iterations, warm-up included, over which epsilon decays linearly.
    """

    learning_rate: float = 1e-3
    learning_rate_iterations: float = math.inf
    discount: float = 0.99
    tau: float = 1.0
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_iterations: float = 5_000.0


_RANGES = dict.fromkeys(DQNHParams._fields, FRACTION) | {
    "learning_rate": FINITE,
    "learning_rate_iterations": AT_LEAST_ZERO,
    "epsilon_iterations": AT_LEAST_ZERO,
}


class DQNState(NamedTuple):
    params: Any
    target_params: Any
    opt_state: Any
    replay: replay.Replay


def dqn(
    network: Network,
    action_space: Space,
    *,
    batch_size: int = 128,
    capacity: int = 10_000,
    warmup: int = 100,
    updates_per_iteration: int = 1,
    target_update_period: int = 1,
    double: bool = False,
    loss: str = "squared",
    optimizer: Optimizer = adam,
    hparams: DQNHParams = DQNHParams(tau=0.01),
) -> Agent:
    """Deep Q-learning for discrete actions.

    Each iteration acts ε-greedily, stores the transitions, and takes gradient steps on batches drawn uniformly from the
    replay. Bootstrapping stops where an episode terminated, and continues from the true successor where it was truncated.
    Actions whose value is −inf are illegal: they are neither taken nor bootstrapped from. The network learns which these are
    from the action mask of a `Dict` observation. If observations are arrays, exploration treats all actions as legal.

    Args:
      network: `apply(params, obs[..., *obs_shape]) -> q[..., n]`, e.g. from `jaxrl.networks.q_network`.
      action_space: `Discrete`.
      batch_size: transitions per gradient step.
      capacity: transitions in the replay, a multiple of `num_envs * rollout_length`.
      warmup: iterations that act and store before the first update; at least 1.
      updates_per_iteration: gradient steps per iteration.
      target_update_period: gradient steps between two updates of the target network. An update moves it by `hparams.tau`:
        period 1 with a small tau is Polyak averaging, tau 1 is the periodic copy.
      double: choose the successor's action with the online network and evaluate it with the target network.
      loss: "squared" or "huber" (with δ = 1), applied to the TD error. Squared is the default: when returns are in the
        hundreds, the clipped gradient of the Huber loss learns too little from rare, large errors at terminations.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss`, `q` (mean value of the actions in the batch).

    Raises:
      ValueError, TypeError: for another action space, or sizes that are not positive ints or do not fit each other.
    """
    if not isinstance(action_space, Discrete):
        raise ValueError(
            f"dqn needs a Discrete action space, got {action_space}; for others use jaxrl.agents.ppo, reinforce or sac, or "
            "wrap the environment in jaxrl.envs.wrappers.discretize_actions"
        )
    batch_size, capacity, warmup, updates_per_iteration = check_replay_sizes(batch_size, capacity, warmup, updates_per_iteration)
    target_update_period = check_size("target_update_period", target_update_period)
    check_choice("loss", loss, ("squared", "huber"))
    check_hparams(hparams, DQNHParams, _RANGES)
    penalty = optax.losses.squared_error if loss == "squared" else optax.losses.huber_loss

    init = _make_init(network, action_space, optimizer, capacity)

    def noise(key, num_steps, num_envs):
        steps = num_steps, num_envs
        explore, action, sample = random_bits(key, steps, steps, (updates_per_iteration, batch_size))
        return Noise(act=(explore, action), update=sample)

    def explore(params, obs, carry, noise_t, hparams, iteration):
        epsilon = linear_schedule(hparams.epsilon_start, hparams.epsilon_end, hparams.epsilon_iterations, iteration)
        all_legal = not isinstance(obs, Mapping)  # only a Dict observation can have a mask
        return epsilon_greedy(network.apply(params, obs), noise_t, epsilon, all_legal=all_legal), carry, ()

    def exploit(params, obs, carry, key):
        return losses.greedy(network.apply(params, obs)), carry

    def store(state, rollout, iteration):
        return state._replace(replay=replay.add(state.replay, transitions.flatten(rollout), iteration))

    def loss_of_batch(params, target_params, batch, discount):
        td_error, q = _td_error(network, params, target_params, batch, discount, double)
        each = penalty(td_error)
        return jnp.mean(each), {"loss": each, "q": q}

    update = _make_update(loss_of_batch, optimizer, capacity, warmup, updates_per_iteration, target_update_period)
    policy = lambda state: state.params
    return Agent(
        hparams=hparams, init=init, noise=noise, policy=policy, explore=explore, exploit=exploit, store=store, update=update,
        warmup=warmup,
    )  # fmt: skip


def _make_init(network: Network, action_space: Discrete, optimizer: Optimizer, capacity: int) -> InitFn:
    def init(key, obs, hparams):
        check_hparams(hparams, DQNHParams, _RANGES)
        params = network.init(key, obs)
        q = jax.eval_shape(network.apply, params, obs)
        q_spec = jax.ShapeDtypeStruct((jax.tree.leaves(obs)[0].shape[0], action_space.n), jnp.float32)
        check_network_output("dqn", q, q_spec, "Build it with jaxrl.networks.q_network")
        example = transitions.example_transition(obs, action_space)
        return DQNState(params, params, optimizer(hparams.learning_rate).init(params), replay.init(example, capacity))

    return init


def _td_error(
    network: Network, params: Any, target_params: Any, batch: Transition, discount: jax.Array, double: bool
) -> tuple[jax.Array, jax.Array]:
    """TD errors of a batch and the values of its actions, each `[N]`; differentiable in `params`."""
    q_tm1 = network.apply(params, batch.obs)
    q_t = network.apply(target_params, batch.next_obs)
    discount_t = transitions.discounts(batch, discount)
    if double:
        q_t_selector = network.apply(params, batch.next_obs)
        td_error = losses.double_q_learning(q_tm1, batch.action, batch.reward, discount_t, q_t, q_t_selector)
    else:
        td_error = losses.q_learning(q_tm1, batch.action, batch.reward, discount_t, q_t)
    return td_error, losses.select(q_tm1, batch.action)


def _make_update(
    loss_of_batch: Callable[..., Any],
    optimizer: Optimizer,
    capacity: int,
    warmup: int,
    updates_per_iteration: int,
    target_update_period: int,
) -> UpdateFn:
    """Gradient steps on batches from the replay, and updates of the target network."""

    def update(state, rollout, noise, hparams, iteration):
        num_stored = replay.num_stored(iteration + 1, rollout.reward.size, capacity)
        batches = replay.sample(state.replay, noise, num_stored)
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration - warmup)
        first = num_updates(iteration, warmup, updates_per_iteration, period=target_update_period)

        def step(carry, index_and_batch):
            params, target_params, opt_state = carry
            index, batch = index_and_batch
            grads, metrics = jax.grad(loss_of_batch, has_aux=True)(params, target_params, batch, hparams.discount)
            params, opt_state, _ = optimizer_step(optimizer, learning_rate, first + index, grads, opt_state, params)
            target_params = update_target(params, target_params, hparams.tau, first + index, target_update_period)
            return (params, target_params, opt_state), metrics

        carry = state.params, state.target_params, state.opt_state
        carry, metrics = jax.lax.scan(step, carry, (jnp.arange(updates_per_iteration, dtype=jnp.int32), batches))
        return DQNState(*carry, state.replay), metrics

    return update
