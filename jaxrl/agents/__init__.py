"""Algorithms, one per file. Each is a function that returns an `Agent`."""

from jaxrl.agents._dqn import DQNHParams, dqn
from jaxrl.agents._ppo import PPOHParams, ppo
from jaxrl.agents._reinforce import ReinforceHParams, reinforce
from jaxrl.agents._sac import SACHParams, sac
from jaxrl.agents._td3 import DDPGHParams, TD3HParams, ddpg, td3

__all__ = [
    "DDPGHParams", "DQNHParams", "PPOHParams", "ReinforceHParams", "SACHParams", "TD3HParams", "ddpg", "dqn", "ppo",
    "reinforce", "sac", "td3",
]  # fmt: skip
