"""C51 (Bellemare et al. 2017): Q-learning of the distribution of the return, on a fixed support."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl import losses
from jaxrl.agents._distributional import distributional_method
from jaxrl.agents._q_learning import QHParams, check_discrete, replay_agent
from jaxrl.optimizers import Optimizer, adam
from jaxrl.types import Agent, Network, Space


def c51(
    network: Network,
    action_space: Space,
    *,
    v_min: float = -100.0,
    v_max: float = 100.0,
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
    """Categorical Q-learning for discrete actions.

    The network predicts the probabilities of K returns, the atoms, evenly spaced from `v_min` to `v_max`. An update moves them
    towards the distribution of the reward plus the discounted return of the successor, projected onto the atoms, by the
    cross-entropy. The greedy action is that with the largest mean. Everything else is as in `dqn`.

    Args:
      network: `apply(params, obs[..., *obs_shape]) -> logits[..., n, K]`, e.g. from `jaxrl.networks.distributional_q_network`. If
        `noisy`, also `noise(key, shape)` and `apply(params, obs, noise)` (`jaxrl.types.NoisyNetwork`).
      action_space: `Discrete`.
      v_min: the smallest return. Returns beyond v_min and v_max count as these; by default, none is if rewards lie in [-1, 1] and
        the discount factor is at most 0.99.
      v_max: the largest return.
      batch_size, capacity, warmup, updates_per_iteration, target_update_period: as for `dqn`.
      double: as for `dqn`.
      n_step: as for `dqn`.
      prioritized: draw transitions in proportion to their last loss, the cross-entropy, and weight their losses by importance.
        Otherwise they are drawn uniformly.
      noisy: as for `dqn`.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters.

    Returns:
      An `Agent`. Its metrics: `loss` (with the weights of prioritized replay), `q` (mean value of the actions in the batch).

    Raises:
      ValueError, TypeError: as for `dqn`, for `v_min` that is not less than `v_max`, or a single atom.
    """
    return categorical_agent(
        "c51", network, action_space, v_min=v_min, v_max=v_max, double=double, noisy=noisy, batch_size=batch_size,
        capacity=capacity, warmup=warmup, updates_per_iteration=updates_per_iteration,
        target_update_period=target_update_period, n_step=n_step, prioritized=prioritized, optimizer=optimizer, hparams=hparams,
    )  # fmt: skip


def categorical_agent(
    name: str, network: Network, action_space: Space, *, v_min: float, v_max: float, double: bool, noisy: bool, **options: Any
) -> Agent:
    """`c51` under any name. `options` are those of `replay_agent`."""
    if not -math.inf < v_min < v_max < math.inf:
        raise ValueError(
            f"{name}: v_min must be less than v_max, both finite, got {v_min} and {v_max}; give the range of the returns"
        )

    def atoms(logits):
        num_atoms = logits.shape[-1]
        if num_atoms < 2:
            raise ValueError(
                f"{name} needs a network with at least 2 atoms, got {num_atoms}; set num_atoms, as in the paper to 51"
            )
        return jnp.asarray(np.linspace(v_min, v_max, num_atoms, dtype=np.float32))

    def mean(logits):
        return losses.categorical_mean(logits, atoms(logits))

    def loss(logits_tm1, action, reward, discount, logits_t, logits_t_selector):
        # With the target network's own logits as selector, this is `categorical_q_learning`.
        return losses.categorical_double_q_learning(
            logits_tm1, action, reward, discount, logits_t, logits_t_selector, atoms(logits_t)
        )

    actions = check_discrete(name, action_space)
    method = distributional_method(name, network, actions, mean=mean, loss=loss, double=double, noisy=noisy)
    return replay_agent(method, actions, **options)
