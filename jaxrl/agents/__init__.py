"""Algorithms, one per file. Each is a function that returns an `Agent`."""

from jaxrl.agents._a2c import A2CHParams, a2c
from jaxrl.agents._dqn import DQNHParams, dqn
from jaxrl.agents._ppo import PPOHParams, ppo
from jaxrl.agents._pqn import PQNHParams, pqn
from jaxrl.agents._q_learning import QHParams
from jaxrl.agents._recurrent_ppo import recurrent_ppo
from jaxrl.agents._reinforce import ReinforceHParams, reinforce
from jaxrl.agents._sac import SACHParams, sac

__all__ = [
    "A2CHParams", "DQNHParams", "PPOHParams", "PQNHParams", "QHParams", "ReinforceHParams", "SACHParams",
    "a2c", "dqn", "ppo", "pqn", "recurrent_ppo", "reinforce", "sac",
]  # fmt: skip
