"""Replay buffers as pure functions. The functions here draw uniformly; `jaxrl.replay.prioritized` draws by priority."""

from jaxrl.replay import prioritized
from jaxrl.replay.uniform import Replay, add, check_capacity, init, noise, num_stored, sample

__all__ = ["Replay", "add", "check_capacity", "init", "noise", "num_stored", "prioritized", "sample"]
