"""Algorithms, one per file. Each is a function that returns an `Agent`."""

from jaxrl.agents._dqn import DQNHParams, dqn
from jaxrl.agents._ppo import PPOHParams, ppo
from jaxrl.agents._q_learning import QHParams
from jaxrl.agents._reinforce import ReinforceHParams, reinforce
from jaxrl.agents._sac import SACHParams, sac

__all__ = ["DQNHParams", "PPOHParams", "QHParams", "ReinforceHParams", "SACHParams", "dqn", "ppo", "reinforce", "sac"]
