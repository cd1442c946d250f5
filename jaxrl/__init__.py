"""jaxrl: reinforcement learning in which a whole training run compiles to one XLA program.

Submodules are imported on first use, so `import jaxrl.losses` imports only jax.
"""

import importlib
import re
from importlib import metadata
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_OLDEST_JAX = (0, 7, 2)  # as in pyproject.toml


def _check_jax() -> None:
    """Raise ImportError if jax is too old, which pip does not notice if it was installed later. It is not imported for that."""
    try:
        installed = metadata.version("jax")
    except metadata.PackageNotFoundError:  # importing it says so
        return
    oldest = ".".join(map(str, _OLDEST_JAX))
    if tuple(map(int, re.findall(r"\d+", installed)[:3])) < _OLDEST_JAX:
        raise ImportError(f"jaxrl needs jax {oldest} or later, and {installed} is installed: pip install -U 'jax>={oldest}'")


_check_jax()

_MODULES = (
    "agents", "algorithms", "checks", "distributions", "dynamic_programming", "envs", "experiment", "explain", "exploration",
    "losses", "minibatches", "networks", "noise", "normalization", "off_policy", "optimizers", "outputs", "policies", "presets",
    "recurrence", "rendering", "replay", "returns", "running_statistics", "schedules", "settings", "shards", "spaces",
    "training_passes", "transitions", "types", "vectorization",
)  # fmt: skip
_NAMES = {
    "make": "envs",
    "check_environment": "envs.validation.environment",
    "make_learner": "learner",
    "train": "learner",
    "advance": "learner",
    "evaluate": "rollout",
    "evaluate_over_params": "rollout",
    "enable_compilation_cache": "compilation",
    "vectorize": "vectorization",
    "load_policy": "experiment.deployment",
    "preset": "presets",
    "render": "rendering.episodes",
}

__all__ = [*_MODULES, *_NAMES]

if TYPE_CHECKING:
    from jaxrl import (
        agents,
        algorithms,
        checks,
        distributions,
        dynamic_programming,
        envs,
        experiment,
        explain,
        exploration,
        losses,
        minibatches,
        networks,
        noise,
        normalization,
        off_policy,
        optimizers,
        outputs,
        policies,
        presets,
        recurrence,
        rendering,
        replay,
        returns,
        running_statistics,
        schedules,
        settings,
        shards,
        spaces,
        training_passes,
        transitions,
        types,
        vectorization,
    )
    from jaxrl.compilation import enable_compilation_cache
    from jaxrl.envs import make
    from jaxrl.envs.validation.environment import check_environment
    from jaxrl.experiment.deployment import load_policy
    from jaxrl.learner import advance, make_learner, train
    from jaxrl.presets import preset
    from jaxrl.rendering.episodes import render
    from jaxrl.rollout import evaluate, evaluate_over_params
    from jaxrl.vectorization import vectorize


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"jaxrl.{name}")
    if name in _NAMES:
        value = getattr(importlib.import_module(f"jaxrl.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'jaxrl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
