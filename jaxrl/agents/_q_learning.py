"""What the members of the DQN family share: ε-greedy acting, the replay, n-step targets, priorities, and target networks.

A member of the family is a `Method`: its network and its loss. `replay_agent` turns a method into an `Agent`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrl import losses, replay, transitions
from jaxrl.checks import (
    AT_LEAST_ZERO,
    FINITE,
    FRACTION,
    check_hparams,
    check_optimizer,
    check_replay_sizes,
    check_size,
)
from jaxrl.exploration import epsilon_greedy
from jaxrl.noise import random_bits
from jaxrl.optimizers import Optimizer, num_updates, optimizer_step, update_target
from jaxrl.schedules import linear_schedule
from jaxrl.shards import shard_size
from jaxrl.types import Agent, Discrete, HParams, Noise, Obs, Space, UpdateFn


class QHParams(NamedTuple):
    """Hyperparameters of the DQN family, those of `dqn` without Munchausen's; each may be traced and batched by `vmap`.

    Attributes:
      learning_rate, learning_rate_iterations, discount, tau: as for `DQNHParams`.
      epsilon_start, epsilon_end, epsilon_iterations: as for `DQNHParams`.
      priority_exponent, importance_exponent, importance_exponent_iterations: as for `DQNHParams`.
    """

    learning_rate: float = 1e-3
    learning_rate_iterations: float = math.inf
    discount: float = 0.99
    tau: float = 0.01
    epsilon_start: float = 1.0
    epsilon_end: float = 0.05
    epsilon_iterations: float = 5_000.0
    priority_exponent: float = 0.6
    importance_exponent: float = 0.4
    importance_exponent_iterations: float = math.inf


RANGES = dict.fromkeys(QHParams._fields, FRACTION) | {
    "learning_rate": FINITE,
    "learning_rate_iterations": AT_LEAST_ZERO,
    "epsilon_iterations": AT_LEAST_ZERO,
    "priority_exponent": FINITE,
    "importance_exponent_iterations": AT_LEAST_ZERO,
}


class Batch(NamedTuple):
    """A batch of transitions, leaves `[N, ...]`; with n-step targets, each spans up to n steps."""

    obs: Obs
    action: jax.Array
    reward: jax.Array  # the n-step return Σ γ^k r_k, without the bootstrapped value
    discount: jax.Array  # of the bootstrapped value: γ^n, less where the episode was truncated, 0 where it terminated
    next_obs: Obs  # the observation to bootstrap from


class Method(NamedTuple):
    """What distinguishes one member of the family.

    `noise` is a tuple of further arguments of the network: `()` for none. Evaluation always passes `()` to `q_values`, for
    example for the mean weights of a noisy network. If `acting_noise` is None, acting passes `()` too, and if `loss_noise` is
    None, so does the update to `loss`.
    """

    init: Callable[[jax.Array, Obs], Any]  # (key, obs [B, ...]) -> params; checks the network's output
    q_values: Callable[[Any, Obs, tuple], jax.Array]  # (params, obs [B, ...], noise) -> q [B, A]; −inf for illegal actions
    # (params, target_params, batch, noise, hparams) -> loss [N], priority [N], q [N]: for each transition its unweighted loss,
    # differentiated in `params`, how large its error is, at least 0, and the value of its action.
    loss: Callable[[Any, Any, Batch, tuple, HParams], tuple[jax.Array, jax.Array, jax.Array]]
    acting_noise: Callable[[jax.Array, tuple[int, int]], tuple] | None = None  # (key, (T, B)) -> noise, leaves [T, B, ...]
    # (key, (updates, N)) -> noise, leaves [updates, ...]: of `updates` batches of N transitions
    loss_noise: Callable[[jax.Array, tuple[int, int]], tuple] | None = None


# --- noisy networks: `network.noise(key, shape)` has leaves [*shape, ...], and `network.apply(params, obs, noise)` broadcasts it


def acting_noise(network: Any) -> Callable[[jax.Array, tuple[int, int]], tuple]:
    """`Method.acting_noise` of a noisy network: independent in every step and environment.

    Raises TypeError if the network has no function `noise`.
    """
    if not hasattr(network, "noise"):
        raise TypeError(
            "noisy=True needs a network with noise(key, shape) and apply(params, obs, noise), such as "
            f"jaxrl.networks.q_network(..., noisy=True); got {network!r}"
        )
    return lambda key, shape: (network.noise(key, shape),)


def loss_noise(network: Any) -> Callable[[jax.Array, tuple[int, int]], tuple]:
    """`Method.loss_noise` of a noisy network: three independent arguments, each the same for a whole batch.

    They are for the online network, for the target network, and for the online network where it selects the successor's
    action (Fortunato et al. 2018, section 3.1): `loss` receives `((noise,), (noise,), (noise,))`, leaves `[...]`.
    """

    def draw(key, shape):
        drawn = network.noise(key, (shape[0], 3))
        return tuple((jax.tree.map(lambda x, i=i: x[:, i], drawn),) for i in range(3))

    return draw


# --- the agent


class QState(NamedTuple):
    params: Any
    target_params: Any
    opt_state: Any
    replay: Any  # a Replay, or a Prioritized


def check_discrete(agent_name: str, action_space: Space) -> Discrete:
    """Return `action_space`, or raise ValueError if it is not a `Discrete`."""
    if not isinstance(action_space, Discrete):
        raise ValueError(
            f"{agent_name} needs a Discrete action space, got {action_space}; for others use jaxrl.agents.ppo, reinforce or sac, "
            "or wrap the environment in jaxrl.envs.wrappers.discretize_actions"
        )
    return action_space


def replay_agent(
    method: Method,
    action_space: Discrete,
    *,
    batch_size: int,
    capacity: int,
    warmup: int,
    updates_per_iteration: int,
    target_update_period: int,
    n_step: int,
    prioritized: bool,
    optimizer: Optimizer,
    hparams: HParams,
    record: type = QHParams,
    ranges: Mapping[str, tuple[float, float]] = RANGES,
) -> Agent:
    """An agent that acts ε-greedily and learns from a replay.

    Args:
      method: its network and its loss.
      action_space: from `check_discrete`.
      batch_size, capacity, warmup, updates_per_iteration, target_update_period, n_step, prioritized: as for `dqn`.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.
      record: their type, with at least the fields of `QHParams`.
      ranges: the inclusive interval of each.
    """
    batch_size, capacity, warmup, updates_per_iteration = check_replay_sizes(batch_size, capacity, warmup, updates_per_iteration)
    period, n_step = check_size("target_update_period", target_update_period), check_size("n_step", n_step)
    check_optimizer(optimizer)
    check_hparams(hparams, record, ranges)
    buffer = replay.prioritized if prioritized else replay

    def init(key, obs, hparams):
        check_hparams(hparams, record, ranges)
        params = method.init(key, obs)
        example = transitions.example_transition(obs, action_space)
        opt_state = optimizer(hparams.learning_rate).init(params)
        return QState(params, params, opt_state, buffer.init(example, shard_size("capacity", capacity)))

    def noise(key, num_steps, num_envs):
        steps, draws = (num_steps, num_envs), (updates_per_iteration, shard_size("batch_size", batch_size))
        acting: tuple = ()
        learning: tuple = ()
        if method.acting_noise or method.loss_noise:
            key, acting_key, loss_key = jax.random.split(key, 3)
            acting = method.acting_noise(acting_key, steps) if method.acting_noise else ()
            learning = method.loss_noise(loss_key, draws) if method.loss_noise else ()
        explore, action, sample = random_bits(key, steps, steps, draws)
        return Noise(act=((explore, action), acting), update=(sample, learning))

    def explore(params, obs, carry, noise_t, hparams, iteration):
        exploration, acting = noise_t
        epsilon = linear_schedule(hparams.epsilon_start, hparams.epsilon_end, hparams.epsilon_iterations, iteration)
        all_legal = not isinstance(obs, Mapping)  # only a Dict observation can have a mask
        return epsilon_greedy(method.q_values(params, obs, acting), exploration, epsilon, all_legal=all_legal), carry, ()

    def exploit(params, obs, carry, key):
        return losses.greedy(method.q_values(params, obs, ())), carry

    def store(state, rollout, iteration):
        return state._replace(replay=buffer.add(state.replay, transitions.flatten(rollout), iteration))

    update = _make_update(method.loss, optimizer, warmup, updates_per_iteration, period, n_step, prioritized)
    policy = lambda state: state.params
    return Agent(
        hparams=hparams, init=init, noise=noise, policy=policy, explore=explore, exploit=exploit, store=store, update=update,
        warmup=warmup,
    )  # fmt: skip


def _transitions_at(
    stored: replay.Replay, indices: jax.Array, num_adds: jax.Array, rollout_shape, n_step: int, discount
) -> Batch:
    """The transitions that start in the rows `indices` `[*shape]`, each as long as `n_step` and its episode allow."""
    if n_step == 1:
        items = replay.take(stored, indices)
        return Batch(items.obs, items.action, items.reward, transitions.discounts(items, discount), items.next_obs)
    num_steps, num_envs = rollout_shape
    steps, valid = replay.sequences_at(
        stored, indices, num_adds, length=n_step, num_envs=num_envs, rows_per_add=num_steps * num_envs
    )
    target = replay.n_step(steps.reward, steps.terminated, steps.truncated, discount, valid)
    first = jax.tree.map(lambda x: jax.lax.index_in_dim(x, 0, axis=indices.ndim, keepdims=False), steps)
    return Batch(first.obs, first.action, target.returns, target.discount, replay.step_at(steps.next_obs, target.last))


def _make_update(
    loss: Callable[..., tuple[jax.Array, jax.Array, jax.Array]],
    optimizer: Optimizer,
    warmup: int,
    updates_per_iteration: int,
    target_update_period: int,
    n_step: int,
    prioritized: bool,
) -> UpdateFn:
    """Gradient steps on batches from the replay, each followed by updates of the target network and of the priorities."""

    def objective(params, target_params, batch, weights, noise, hparams):
        each, priority, q = loss(params, target_params, batch, noise, hparams)
        each = each if weights is None else weights * each
        return jnp.mean(each), (priority, {"loss": each, "q": q})

    def update(state, rollout, noise, hparams, iteration):
        sample, loss_noise = noise
        rows, priorities = (state.replay.rows, state.replay[1:]) if prioritized else (state.replay, ())
        num_stored = replay.num_stored(iteration + 1, rollout.reward.size, rows.capacity)
        learning_rate = linear_schedule(hparams.learning_rate, 0.0, hparams.learning_rate_iterations, iteration - warmup)
        beta = linear_schedule(hparams.importance_exponent, 1.0, hparams.importance_exponent_iterations, iteration)
        first = num_updates(iteration, warmup, updates_per_iteration, period=target_update_period)

        def batch_at(indices):
            return _transitions_at(rows, indices, iteration + 1, rollout.reward.shape, n_step, hparams.discount)

        def step(carry, inputs):
            params, target_params, opt_state, priorities = carry
            index, drawn, noise = inputs
            batch, weights = drawn, None
            if prioritized:
                buffer = replay.prioritized.Prioritized(rows, *priorities)
                _, indices, weights = replay.prioritized.sample(buffer, drawn, num_stored, beta=beta)
                batch = batch_at(indices)
            grads, (priority, metrics) = jax.grad(objective, has_aux=True)(params, target_params, batch, weights, noise, hparams)
            params, opt_state, _ = optimizer_step(optimizer, learning_rate, first + index, grads, opt_state, params)
            target_params = update_target(params, target_params, hparams.tau, first + index, target_update_period)
            if prioritized:
                buffer = replay.prioritized.update(buffer, indices, priority, alpha=hparams.priority_exponent)
                priorities = buffer[1:]  # the rows stay out of the loop's carry
            return (params, target_params, opt_state, priorities), metrics

        # Priorities change with every step. Otherwise all batches are drawn at once.
        draws = _uniform(sample) if prioritized else batch_at((sample % num_stored.astype(jnp.uint32)).astype(jnp.int32))
        carry = state.params, state.target_params, state.opt_state, priorities
        steps = jnp.arange(updates_per_iteration, dtype=jnp.int32)
        (params, target_params, opt_state, priorities), metrics = jax.lax.scan(step, carry, (steps, draws, loss_noise))
        stored = replay.prioritized.Prioritized(rows, *priorities) if prioritized else rows
        return QState(params, target_params, opt_state, stored), metrics

    return update


def _uniform(bits: jax.Array) -> jax.Array:
    """float32 in [0, 1), from `uint32` bits."""
    return (bits >> 8).astype(jnp.float32) * 2.0**-24
