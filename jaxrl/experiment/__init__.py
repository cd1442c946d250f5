"""What a person runs: a run folder with its configuration, metrics, curve and policies."""

from jaxrl.experiment.config import Config
from jaxrl.experiment.folder import load_policies
from jaxrl.experiment.run import evaluate_policies, run

__all__ = ["Config", "evaluate_policies", "load_policies", "run"]
