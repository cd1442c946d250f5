"""Experiments: run folders with configuration, metrics, learning curve and policies; and training on the host."""

from jaxrl.experiment.config import Config
from jaxrl.experiment.folder import load_policies
from jaxrl.experiment.host import evaluate_on_host, train_on_host
from jaxrl.experiment.policies import evaluate_policies
from jaxrl.experiment.states import load, save
from jaxrl.experiment.training import Interrupted, resume, run

__all__ = [
    "Config", "Interrupted", "evaluate_on_host", "evaluate_policies", "load", "load_policies", "resume", "run", "save",
    "train_on_host",
]  # fmt: skip
