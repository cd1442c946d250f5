"""One file, one algorithm: each is a function that returns an `Agent`."""

from jaxrl.agents._dqn import dqn
from jaxrl.agents._reinforce import reinforce

__all__ = ["dqn", "reinforce"]
