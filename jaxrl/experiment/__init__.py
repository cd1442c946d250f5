"""Experiments: run folders with configuration, metrics, learning curve and policies; and training on the host."""

from jaxrl.experiment.config import Config
from jaxrl.experiment.folder import load_policies
from jaxrl.experiment.halving import successive_halving
from jaxrl.experiment.host import evaluate_on_host, train_on_host
from jaxrl.experiment.hosts import initialize
from jaxrl.experiment.loggers import Logger
from jaxrl.experiment.optuna_batches import optuna_search
from jaxrl.experiment.parts import merge
from jaxrl.experiment.policies import evaluate_policies
from jaxrl.experiment.population_training import population_based_training
from jaxrl.experiment.sampling import Range, draw_samples
from jaxrl.experiment.states import load, save
from jaxrl.experiment.training import Interrupted, resume, run
from jaxrl.experiment.tuning import tune

__all__ = [
    "Config", "Interrupted", "Logger", "Range", "draw_samples", "evaluate_on_host", "evaluate_policies", "initialize", "load",
    "load_policies", "merge", "optuna_search", "population_based_training", "resume", "run", "save", "successive_halving",
    "train_on_host", "tune",
]  # fmt: skip
