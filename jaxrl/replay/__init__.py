"""Replay buffers as pure functions. Items and sequences are drawn uniformly; `jaxrl.replay.prioritized` draws by priority."""

from jaxrl.replay import prioritized
from jaxrl.replay.sequences import NStep, n_step, sample_sequences, sequences_at, step_at
from jaxrl.replay.uniform import Replay, add, check_capacity, init, noise, num_stored, sample, take

__all__ = [
    "NStep", "Replay", "add", "check_capacity", "init", "n_step", "noise", "num_stored", "prioritized", "sample",
    "sample_sequences", "sequences_at", "step_at", "take",
]  # fmt: skip
