"""Argument checks for agents. They run before anything is compiled, and their errors say what was expected.

Traced hyperparameters have no value yet and are not checked.
"""

from jaxrl._src.checks import (
    AT_LEAST_ZERO,
    FINITE,
    FRACTION,
    check_choice,
    check_hparams,
    check_network,
    check_network_output,
    check_optimizer,
    check_replay_sizes,
    check_size,
)

__all__ = [
    "AT_LEAST_ZERO", "FINITE", "FRACTION", "check_choice", "check_hparams", "check_network",
    "check_network_output", "check_optimizer", "check_replay_sizes", "check_size",
]  # fmt: skip
