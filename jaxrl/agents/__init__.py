"""Algorithms, one per file. Each is a function that returns an `Agent`."""

from jaxrl.agents._c51 import c51
from jaxrl.agents._dqn import DQNHParams, dqn
from jaxrl.agents._iqn import iqn
from jaxrl.agents._ppo import PPOHParams, ppo
from jaxrl.agents._q_learning import QHParams
from jaxrl.agents._qr_dqn import qr_dqn
from jaxrl.agents._rainbow import rainbow
from jaxrl.agents._reinforce import ReinforceHParams, reinforce
from jaxrl.agents._sac import SACHParams, sac

__all__ = [
    "DQNHParams", "PPOHParams", "QHParams", "ReinforceHParams", "SACHParams", "c51", "dqn", "iqn", "ppo", "qr_dqn", "rainbow",
    "reinforce", "sac",
]  # fmt: skip
