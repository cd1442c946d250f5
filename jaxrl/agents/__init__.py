"""One file, one algorithm: each is a function that returns an `Agent`."""

from jaxrl.agents.dqn import dqn
from jaxrl.agents.reinforce import reinforce

__all__ = ["dqn", "reinforce"]
