"""Algorithms, one per file. Each is a function that returns an `Agent`."""

from jaxrl.agents._a2c import A2CHParams, a2c
from jaxrl.agents._c51 import c51
from jaxrl.agents._dqn import DQNHParams, dqn
from jaxrl.agents._iqn import iqn
from jaxrl.agents._openai_es import OpenAIESHParams, openai_es
from jaxrl.agents._ppo import PPOHParams, ppo
from jaxrl.agents._pqn import PQNHParams, pqn
from jaxrl.agents._q_learning import QHParams
from jaxrl.agents._qr_dqn import qr_dqn
from jaxrl.agents._rainbow import rainbow
from jaxrl.agents._recurrent_ppo import recurrent_ppo
from jaxrl.agents._reinforce import ReinforceHParams, reinforce
from jaxrl.agents._sac import SACHParams, sac
from jaxrl.agents._td3 import DDPGHParams, TD3HParams, ddpg, td3

__all__ = [
    "A2CHParams", "DDPGHParams", "DQNHParams", "OpenAIESHParams", "PPOHParams", "PQNHParams", "QHParams", "ReinforceHParams",
    "SACHParams", "TD3HParams",
    "a2c", "c51", "ddpg", "dqn", "iqn", "openai_es", "ppo", "pqn", "qr_dqn", "rainbow", "recurrent_ppo", "reinforce", "sac",
    "td3",
]  # fmt: skip
