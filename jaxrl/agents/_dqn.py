"""Deep Q-learning (Mnih et al. 2015), with the target of double DQN (van Hasselt et al. 2016) as a switch."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses, replay
from jaxrl._src.checks import AT_LEAST_ZERO, FINITE, FRACTION, check_choice, check_hparams, check_size
from jaxrl.exploration import epsilon_greedy
from jaxrl.optimizers import Optimizer, adam, apply_gradients, num_updates
from jaxrl.schedules import linear_schedule
from jaxrl.types import Agent, Discrete, Metrics, Network, Noise, Space, Transition


class HParams(NamedTuple):
    """Everything tunable that is no size: may be traced, and batched by `vmap`."""

    learning_rate: float = 1e-3
    learning_rate_iterations: float = math.inf  # to decay linearly to 0 by then; inf: constant
    discount: float = 0.99
    tau: float = 1.0  # share of the online parameters at a target sync; 1 copies them
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_iterations: float = 5_000.0  # iterations, warm-up included, until epsilon_end


_RANGES = dict.fromkeys(HParams._fields, FRACTION) | {
    "learning_rate": FINITE,
    "learning_rate_iterations": AT_LEAST_ZERO,
    "epsilon_iterations": AT_LEAST_ZERO,
}


class State(NamedTuple):
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
    updates: int = 1,
    target_update_period: int = 1,
    double: bool = False,
    loss: str = "squared",
    optimizer: Optimizer = adam,
    hparams: HParams = HParams(tau=0.01),  # noqa: B008 - a NamedTuple of floats is immutable
) -> Agent:
    """Deep Q-learning on a discrete action space.

    Each iteration acts ε-greedily, stores the transitions, and takes `updates` gradient steps on batches
    drawn uniformly from the replay. Bootstrapping stops where an episode terminated, and goes on from the
    true successor where it was truncated.

    Args:
      network: `apply(params, obs[..., *obs_shape]) -> q[..., n]`, e.g. `jaxrl.networks.q_network`.
      action_space: `Discrete`.
      batch_size: transitions in a gradient step.
      capacity: transitions in the replay, a multiple of `num_envs * rollout_length`.
      warmup: iterations that only act and store, before the first update; at least 1.
      updates: gradient steps in an iteration.
      target_update_period: gradient steps between two syncs of the target network. A sync moves it by
        `hparams.tau`: period 1 and a small tau is Polyak averaging, tau 1 is the periodic copy.
      double: choose the successor's action by the online network and value it by the target network.
      loss: "squared" or "huber" (with δ = 1) of the TD error. The default is squared: where returns are
        in the hundreds, the clipped gradient of Huber loses what rare terminal errors have to teach.
      optimizer: from a learning rate to an optax transformation.
      hparams: the defaults of the run.

    Returns:
      An `Agent`. Its metrics: `loss`, `q` (mean value of the actions in the batch).

    Raises:
      ValueError, TypeError: for another action space, or sizes that are no positive ints or do not fit.
    """
    if not isinstance(action_space, Discrete):
        raise ValueError(
            f"dqn needs a Discrete action space, got {action_space}; for continuous actions use jaxrl.agents.reinforce"
        )
    sizes = {
        "batch_size": batch_size,
        "capacity": capacity,
        "warmup": warmup,
        "updates": updates,
        "target_update_period": target_update_period,
    }
    batch_size, capacity, warmup, updates, target_update_period = (check_size(name, size) for name, size in sizes.items())
    if batch_size > capacity:
        raise ValueError(f"batch_size {batch_size} is larger than the replay's capacity {capacity}")
    check_choice("loss", loss, ("squared", "huber"))
    check_hparams(hparams, HParams, _RANGES)
    num_actions = action_space.n
    penalty = optax.losses.squared_error if loss == "squared" else optax.losses.huber_loss

    def init(key, obs, hparams):
        check_hparams(hparams, HParams, _RANGES)
        params = network.init(key, obs)
        _check_output(jax.eval_shape(network.apply, params, obs), obs, num_actions)
        flag = jnp.bool_(False)
        example = Transition(obs[0], jnp.int32(0), jnp.float32(0), flag, flag, obs[0], (), ())
        opt_state = optimizer(hparams.learning_rate).init(params)
        return State(params, params, opt_state, replay.init(example, capacity))

    def noise(key, num_steps, num_envs):
        return _draw_noise(key, (num_steps, num_envs), (updates, batch_size))

    def act(state, obs, memory, noise_t, hparams, clock):
        q = network.apply(state.params, obs)
        epsilon = linear_schedule(hparams.epsilon_start, hparams.epsilon_end, hparams.epsilon_iterations, clock)
        return losses.greedy(q) if noise_t is None else epsilon_greedy(q, noise_t, epsilon), memory, ()

    def store(state, trajectory, clock):
        items = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), trajectory)
        return state._replace(replay=replay.add(state.replay, items, clock))

    def loss_of_batch(params, target_params, batch, discount):
        td_error, q = _td_error(network, params, target_params, batch, discount, double)
        loss_of_each = penalty(td_error)
        return jnp.mean(loss_of_each), {"loss": loss_of_each, "q": q}

    update = _make_update(
        loss_of_batch, optimizer, capacity=capacity, warmup=warmup, updates=updates, target_update_period=target_update_period
    )
    return Agent(hparams, init, noise, lambda num_envs: (), act, store, update, warmup)


def _draw_noise(key: jax.Array, steps: tuple[int, int], batches: tuple[int, int]) -> Noise:
    """Bits for `epsilon_greedy` and for `replay.sample`, in one call of the generator: each takes long to compile."""
    bits = jax.random.bits(key, (2 * math.prod(steps) + math.prod(batches),), jnp.uint32)
    explore, action, sample = jnp.split(bits, [math.prod(steps), 2 * math.prod(steps)])
    return Noise((explore.reshape(steps), action.reshape(steps)), sample.reshape(batches))


def _make_update(
    loss_of_batch: Callable[..., Any],
    optimizer: Optimizer,
    *,
    capacity: int,
    warmup: int,
    updates: int,
    target_update_period: int,
) -> Callable[..., tuple[State, Metrics]]:
    """`Agent.update`: gradient steps on batches from the replay, and syncs of the target network."""

    def update(state, trajectory, noise, hparams, clock):
        rows = trajectory.reward.shape[0] * trajectory.reward.shape[1]
        batches = replay.sample(state.replay, noise, replay.num_stored(clock + 1, rows, capacity))
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, clock - warmup)
        first_update = num_updates(clock, warmup, updates)
        until_sync = ((clock - warmup) % target_update_period) * updates  # stays small where the clock is huge

        def step(carry, u_and_batch):
            params, target_params, opt_state = carry
            u, batch = u_and_batch
            grads, metrics = jax.grad(loss_of_batch, has_aux=True)(params, target_params, batch, hparams.discount)
            params, opt_state = apply_gradients(optimizer(learning_rate), first_update + u, grads, opt_state, params)
            synced = optax.incremental_update(params, target_params, hparams.tau)
            sync = (until_sync + u + 1) % target_update_period == 0
            target_params = jax.tree.map(lambda new, old: jnp.where(sync, new, old), synced, target_params)
            return (params, target_params, opt_state), metrics

        carry = (state.params, state.target_params, state.opt_state)
        carry, metrics = jax.lax.scan(step, carry, (jnp.arange(updates, dtype=jnp.int32), batches))
        return State(*carry, state.replay), metrics

    return update


def _td_error(network: Network, params, target_params, batch: Transition, discount, double: bool) -> tuple[jax.Array, jax.Array]:
    """TD errors of a batch and the values of its actions, each `[N]`; differentiable in `params`."""
    q_tm1 = network.apply(params, batch.obs)
    q_t = network.apply(target_params, batch.next_obs)
    discount_t = discount * (1.0 - batch.terminated.astype(jnp.float32))
    if double:
        q_t_selector = network.apply(params, batch.next_obs)
        td_error = losses.double_q_learning(q_tm1, batch.action, batch.reward, discount_t, q_t, q_t_selector)
    else:
        td_error = losses.q_learning(q_tm1, batch.action, batch.reward, discount_t, q_t)
    return td_error, losses.select(q_tm1, batch.action)


def _check_output(q: Any, obs: jax.Array, num_actions: int) -> None:
    if getattr(q, "shape", None) != (obs.shape[0], num_actions):
        raise ValueError(f"dqn: network must give q[B, {num_actions}] for {num_actions} actions; for obs {obs.shape} it gave {q}")
