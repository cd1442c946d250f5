"""QR-DQN (Dabney et al. 2018a): Q-learning of the quantiles of the return."""

import math

import jax.numpy as jnp

from jaxrl import losses
from jaxrl.agents._distributional import distributional_method
from jaxrl.agents._q_learning import QHParams, check_discrete, replay_agent
from jaxrl.optimizers import Optimizer, adam
from jaxrl.types import Agent, Network, Space


def qr_dqn(
    network: Network,
    action_space: Space,
    *,
    kappa: float = 1.0,
    batch_size: int = 128,
    capacity: int = 10_000,
    warmup: int = 100,
    updates_per_iteration: int = 1,
    target_update_period: int = 1,
    double: bool = False,
    n_step: int = 1,
    prioritized: bool = False,
    noisy: bool = False,
    optimizer: Optimizer = adam,
    hparams: QHParams = QHParams(),
) -> Agent:
    """Quantile regression Q-learning for discrete actions.

    The network predicts K quantiles of the return, those of the levels (i + ½) / K. An update moves them towards the quantiles of
    the reward plus the discounted return of the successor. The greedy action is that with the largest mean. Everything else is
    as in `dqn`. Unlike C51, it needs no bounds of the returns.

    Args:
      network: `apply(params, obs[..., *obs_shape]) -> quantiles[..., n, K]`, e.g. from `jaxrl.networks.distributional_q_network`.
        If `noisy`, also `noise(key, shape)` and `apply(params, obs, noise)` (`jaxrl.types.NoisyNetwork`).
      action_space: `Discrete`.
      kappa: half the width of the quadratic part of the quantile Huber loss, in units of returns; 0 is the plain quantile loss.
      batch_size, capacity, warmup, updates_per_iteration, target_update_period: as for `dqn`.
      double: as for `dqn`.
      n_step: as for `dqn`.
      prioritized: draw transitions in proportion to their last loss, and weight their losses by importance. Otherwise they are
        drawn uniformly.
      noisy: as for `dqn`.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss` (with the weights of prioritized replay), `q` (mean value of the actions in the batch).

    Raises:
      ValueError, TypeError: as for `dqn`, and for a `kappa` that is negative or infinite.
    """
    check_kappa("qr_dqn", kappa)

    def loss(q_tm1, action, reward, discount, q_t, q_t_selector):
        return losses.quantile_q_learning(q_tm1, action, reward, discount, q_t, q_quantiles_t_selector=q_t_selector, kappa=kappa)

    actions = check_discrete("qr_dqn", action_space)
    mean = lambda quantiles: jnp.mean(quantiles, axis=-1)
    method = distributional_method("qr_dqn", network, actions, mean=mean, loss=loss, double=double, noisy=noisy)
    return replay_agent(
        method, actions, batch_size=batch_size, capacity=capacity, warmup=warmup,
        updates_per_iteration=updates_per_iteration, target_update_period=target_update_period, n_step=n_step,
        prioritized=prioritized, optimizer=optimizer, hparams=hparams,
    )  # fmt: skip


def check_kappa(name: str, kappa: float) -> None:
    """Raise ValueError if κ is negative, or infinite, which would make the loss 0."""
    if not 0 <= kappa < math.inf:
        raise ValueError(f"{name}: kappa must be finite and at least 0, got {kappa}")
