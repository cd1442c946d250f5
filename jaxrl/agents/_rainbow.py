"""Rainbow (Hessel et al. 2018): C51 with double Q-learning, dueling and noisy networks, n-step targets and prioritized replay."""

from jaxrl.agents._c51 import categorical_agent
from jaxrl.agents._q_learning import QHParams
from jaxrl.optimizers import Optimizer, adam
from jaxrl.types import Agent, Network, Space


def rainbow(
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
    double: bool = True,
    n_step: int = 3,
    prioritized: bool = True,
    noisy: bool = True,
    optimizer: Optimizer = adam,
    hparams: QHParams = QHParams(epsilon_start=0.0, epsilon_end=0.0, priority_exponent=0.5),
) -> Agent:
    """Rainbow: `c51` with all its improvements switched on, and a dueling network. Each can be switched off, for ablations.

    Args:
      network: as for `c51`, noisy and dueling: `jaxrl.networks.distributional_q_network(..., dueling=True, noisy=True)`.
      action_space: `Discrete`.
      v_min, v_max: as for `c51`.
      batch_size, capacity, warmup, updates_per_iteration, target_update_period: as for `dqn`.
      double: as for `dqn`.
      n_step: as for `dqn`.
      prioritized: as for `c51`.
      noisy: explore with a noisy network (Fortunato et al. 2018). Every environment has its own noise in every step, and
        evaluation has none. Without it, set epsilon_start and epsilon_end, which are 0 by default.
      optimizer: function from a learning rate to an optax transformation.
      hparams: the default hyperparameters. They explore by the noise of the network alone, unlike those of `QHParams()`; change
        some of them by `agent.hparams._replace`.

    Returns:
      An `Agent`. Its metrics are those of `c51`.

    Raises:
      ValueError, TypeError: as for `c51`.
    """
    return categorical_agent(
        "rainbow", network, action_space, v_min=v_min, v_max=v_max, double=double, noisy=noisy, batch_size=batch_size,
        capacity=capacity, warmup=warmup, updates_per_iteration=updates_per_iteration,
        target_update_period=target_update_period, n_step=n_step, prioritized=prioritized, optimizer=optimizer, hparams=hparams,
    )  # fmt: skip
