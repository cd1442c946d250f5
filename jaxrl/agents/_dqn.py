"""Deep Q-learning (Mnih et al. 2015), with double, dueling, n-step, prioritized, noisy and Munchausen DQN as options."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxrl import losses
from jaxrl.agents._q_learning import RANGES, Batch, Method, acting_noise, check_discrete, loss_noise, replay_agent
from jaxrl.checks import FRACTION, check_choice, check_network, check_network_output
from jaxrl.optimizers import Optimizer, adam
from jaxrl.types import Agent, Network, Space


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
      priority_exponent: exponent α of the priorities; 0 draws uniformly. Only with prioritized replay.
      importance_exponent: exponent β of the importance weights at the first iteration; 0 does not correct for the draw, 1
        corrects completely. Only with prioritized replay.
      importance_exponent_iterations: iterations, warm-up included, over which it rises linearly to 1; inf keeps it constant.
        Only with prioritized replay.
      munchausen_scale: weight α of the log-policy in the reward. Only with munchausen.
      munchausen_temperature: temperature τ > 0 of the policy, in units of the action values. Only with munchausen.
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
    munchausen_scale: float = 0.9
    munchausen_temperature: float = 0.03


_RANGES = RANGES | {"munchausen_scale": FRACTION, "munchausen_temperature": (1e-6, math.inf)}


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
    n_step: int = 1,
    prioritized: bool = False,
    munchausen: bool = False,
    noisy: bool = False,
    optimizer: Optimizer = adam,
    hparams: DQNHParams = DQNHParams(),
) -> Agent:
    """Deep Q-learning for discrete actions.

    Each iteration acts ε-greedily, stores the transitions, and takes gradient steps on batches drawn from the replay.
    Bootstrapping stops where an episode terminated, and continues from the true successor where it was truncated. Actions
    whose value is −inf are illegal: they are neither taken nor bootstrapped from. The network learns which these are from the
    action mask of a `Dict` observation. If observations are arrays, exploration treats all actions as legal.

    Args:
      network: `apply(params, obs[..., *obs_shape]) -> q[..., n]`, e.g. from `jaxrl.networks.q_network`. If `noisy`, also
        `noise(key, shape)` and `apply(params, obs, noise)`.
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
      n_step: number of rewards in a target before it bootstraps. A target is shorter where its episode ends, or at the
        newest step in the replay.
      prioritized: draw transitions in proportion to their last TD error, and weight their losses by importance (Schaul et
        al. 2016). Otherwise they are drawn uniformly.
      munchausen: soft Q-learning with the scaled log-policy added to the reward (Vieillard et al. 2020). Not with `double`.
      noisy: explore with a noisy network (Fortunato et al. 2018); set epsilon_start and epsilon_end to 0. Every environment
        has its own noise in every step, and evaluation has none.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss` (with the weights of prioritized replay), `q` (mean value of the actions in the batch).

    Raises:
      ValueError, TypeError: for another action space, or sizes that are not positive ints or do not fit each other.
    """
    check_network("dqn", network, "q_network")
    actions = check_discrete("dqn", action_space)
    check_choice("loss", loss, ("squared", "huber"))
    if double and munchausen:
        raise ValueError(
            "dqn: double and munchausen exclude each other: the Munchausen target is an expectation under a softmax policy and "
            "has no maximum whose bias double Q-learning would correct; set double=False"
        )
    penalty = optax.losses.squared_error if loss == "squared" else optax.losses.huber_loss

    def init(key, obs):
        params = network.init(key, obs)
        needed = jax.ShapeDtypeStruct((jax.tree.leaves(obs)[0].shape[0], actions.n), jnp.float32)
        q, hint = jax.eval_shape(network.apply, params, obs), "Build it with jaxrl.networks.q_network"
        check_network_output("dqn", q, needed, hint)
        return params

    def q_values(params, obs, noise):
        return network.apply(params, obs, *noise)

    def loss_of_batch(params, target_params, batch, noise, hparams):
        online, target, selector = noise or ((), (), ())
        q_tm1 = q_values(params, batch.obs, online)
        q_t = q_values(target_params, batch.next_obs, target)
        q_tm1_target = q_values(target_params, batch.obs, target) if munchausen else None
        q_t_selector = q_values(params, batch.next_obs, selector) if double else None
        td_error = _td_error(batch, q_tm1, q_t, q_t_selector, q_tm1_target, hparams)
        return penalty(td_error), jnp.abs(td_error), losses.select(q_tm1, batch.action)

    method = Method(init, q_values, loss_of_batch)
    if noisy:
        method = method._replace(acting_noise=acting_noise(network), loss_noise=loss_noise(network))
    return replay_agent(
        method, actions, batch_size=batch_size, capacity=capacity, warmup=warmup,
        updates_per_iteration=updates_per_iteration, target_update_period=target_update_period, n_step=n_step,
        prioritized=prioritized, optimizer=optimizer, hparams=hparams, record=DQNHParams, ranges=_RANGES,
    )  # fmt: skip


def _td_error(
    batch: Batch,
    q_tm1: jax.Array,
    q_t: jax.Array,
    q_t_selector: jax.Array | None,
    q_tm1_target: jax.Array | None,
    hparams: DQNHParams,
) -> jax.Array:
    """TD errors `[N]` from action values `[N, A]`: double if there are values to select by, Munchausen if `q_tm1_target`."""
    transition = batch.action, batch.reward, batch.discount
    if q_t_selector is not None:
        return losses.double_q_learning(q_tm1, *transition, q_t, q_t_selector)
    if q_tm1_target is not None:
        return losses.munchausen_q_learning(
            q_tm1, *transition, q_t, q_tm1_target,
            temperature=hparams.munchausen_temperature, munchausen_scale=hparams.munchausen_scale,
        )  # fmt: skip
    return losses.q_learning(q_tm1, *transition, q_t)
