"""Deep Q-learning (Mnih et al. 2015), with the target of double DQN (van Hasselt et al. 2016) as a switch."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, replay, transitions
from jaxrl._src.checks import AT_LEAST_ZERO, FINITE, FRACTION, check_choice, check_hparams, check_network_output, check_size
from jaxrl._src.random_bits import random_bits
from jaxrl.exploration import epsilon_greedy
from jaxrl.optimizers import Optimizer, adam, num_updates, optimizer_step, update_target
from jaxrl.schedules import linear_schedule
from jaxrl.types import Agent, Discrete, Network, Noise, Space


class DQNHParams(NamedTuple):
    """Hyperparameters of `dqn`; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate: of the optimizer, at the first update.
      learning_rate_iterations: iterations over which it decays linearly to 0; inf keeps it constant.
      discount: discount factor γ.
      tau: share of the online parameters in a target update; 1 copies them.
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
    hparams: DQNHParams = DQNHParams(tau=0.01),  # noqa: B008 - a NamedTuple of floats is immutable
) -> Agent:
    """Deep Q-learning for discrete actions.

    Each iteration acts ε-greedily, stores the transitions, and takes gradient steps on batches drawn uniformly from the
    replay. Bootstrapping stops where an episode terminated, and continues from the true successor where it was truncated.
    Actions whose value is −inf are illegal: they are neither taken nor bootstrapped from. The mask that tells the network is
    an entry of a `Dict` observation; where observations are arrays, all actions count as legal in exploration.

    Args:
      network: `apply(params, obs[..., *obs_shape]) -> q[..., n]`, e.g. from `jaxrl.networks.q_network`.
      action_space: `Discrete`.
      batch_size: transitions in a gradient step.
      capacity: transitions in the replay, a multiple of `num_envs * rollout_length`.
      warmup: iterations that act and store before the first update; at least 1.
      updates_per_iteration: gradient steps in an iteration.
      target_update_period: gradient steps between two updates of the target network. An update moves it by `hparams.tau`:
        period 1 and a small tau are Polyak averaging, tau 1 is the periodic copy.
      double: choose the successor's action by the online network and value it by the target network.
      loss: "squared" or "huber" (with δ = 1) of the TD error. The default is squared: where returns are in the hundreds,
        the clipped gradient of Huber loses what rare terminal errors have to teach.
      optimizer: from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss`, `q` (mean value of the actions in the batch).

    Raises:
      ValueError, TypeError: for another action space, or sizes that are not positive ints or do not fit each other.
    """
    if not isinstance(action_space, Discrete):
        raise ValueError(
            f"dqn needs a Discrete action space, got {action_space}; for other actions use jaxrl.agents.reinforce, or wrap the "
            "environment in jaxrl.envs.wrappers.discretize_actions"
        )
    batch_size = check_size("batch_size", batch_size)
    capacity = check_size("capacity", capacity)
    warmup = check_size("warmup", warmup)
    updates_per_iteration = check_size("updates_per_iteration", updates_per_iteration)
    target_update_period = check_size("target_update_period", target_update_period)
    if batch_size > capacity:
        raise ValueError(f"batch_size {batch_size} is larger than the replay's capacity {capacity}")
    check_choice("loss", loss, ("squared", "huber"))
    check_hparams(hparams, DQNHParams, _RANGES)
    penalty = optax.losses.squared_error if loss == "squared" else optax.losses.huber_loss

    def init(key, obs, hparams):
        check_hparams(hparams, DQNHParams, _RANGES)
        params = network.init(key, obs)
        q = jax.eval_shape(network.apply, params, obs)
        q_spec = jax.ShapeDtypeStruct((jax.tree.leaves(obs)[0].shape[0], action_space.n), jnp.float32)
        check_network_output("dqn", q, q_spec, "Build it with jaxrl.networks.q_network")
        example = transitions.example_transition(obs, action_space)
        return DQNState(params, params, optimizer(hparams.learning_rate).init(params), replay.init(example, capacity))

    def noise(key, num_steps, num_envs):
        steps = num_steps, num_envs
        explore, action, sample = random_bits(key, steps, steps, (updates_per_iteration, batch_size))
        return Noise(act=(explore, action), update=sample)

    def explore(params, obs, carry, noise_t, hparams, iteration):
        epsilon = linear_schedule(hparams.epsilon_start, hparams.epsilon_end, hparams.epsilon_iterations, iteration)
        all_legal = not isinstance(obs, Mapping)  # a mask is an entry of a Dict observation
        return epsilon_greedy(network.apply(params, obs), noise_t, epsilon, all_legal=all_legal), carry, ()

    def exploit(params, obs, carry, key):
        return losses.greedy(network.apply(params, obs)), carry

    def store(state, rollout, iteration):
        return state._replace(replay=replay.add(state.replay, transitions.flatten(rollout), iteration))

    def mean_loss(params, target_params, batch, discount):
        q_tm1 = network.apply(params, batch.obs)
        q_t = network.apply(target_params, batch.next_obs)
        discount_t = transitions.discounts(batch, discount)
        if double:
            q_t_selector = network.apply(params, batch.next_obs)
            td_error = losses.double_q_learning(q_tm1, batch.action, batch.reward, discount_t, q_t, q_t_selector)
        else:
            td_error = losses.q_learning(q_tm1, batch.action, batch.reward, discount_t, q_t)
        loss_of_each = penalty(td_error)
        return jnp.mean(loss_of_each), {"loss": loss_of_each, "q": losses.select(q_tm1, batch.action)}

    def update(state, rollout, noise, hparams, iteration):
        rows_per_add = rollout.reward.size
        batches = replay.sample(state.replay, noise, replay.num_stored(iteration + 1, rows_per_add, capacity))
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration - warmup)

        done = num_updates(iteration, warmup, updates_per_iteration, period=target_update_period)

        def step(carry, index_and_batch):
            params, target_params, opt_state = carry
            index, batch = index_and_batch
            grads, metrics = jax.grad(mean_loss, has_aux=True)(params, target_params, batch, hparams.discount)
            params, opt_state, _ = optimizer_step(optimizer, learning_rate, done + index, grads, opt_state, params)
            target_params = update_target(params, target_params, hparams.tau, done + index, target_update_period)
            return (params, target_params, opt_state), metrics

        carry = (state.params, state.target_params, state.opt_state)
        carry, metrics = jax.lax.scan(step, carry, (jnp.arange(updates_per_iteration, dtype=jnp.int32), batches))
        return DQNState(*carry, state.replay), metrics

    return Agent(
        hparams=hparams,
        init=init,
        noise=noise,
        policy=lambda state: state.params,
        explore=explore,
        exploit=exploit,
        store=store,
        update=update,
        warmup=warmup,
    )
