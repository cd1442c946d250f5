"""Algorithms. Each file holds one, and one function that returns an `Agent`."""

from jaxrl.agents._dqn import DQNHParams, dqn
from jaxrl.agents._ppo import PPOHParams, ppo
from jaxrl.agents._reinforce import ReinforceHParams, reinforce

__all__ = ["DQNHParams", "PPOHParams", "ReinforceHParams", "dqn", "ppo", "reinforce"]
