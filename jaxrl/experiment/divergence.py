"""Runs whose numbers are no longer finite: which, and since when."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxrl._src.numbers import shown
from jaxrl.experiment.config import Config

_OF_EPISODES = ("episode_return", "episode_length")  # NaN if no episode has finished


class Diverged(NamedTuple):
    run: dict[str, Any]  # the seed and the swept values
    env_steps: int  # of the first row that is not finite
    metric: str  # the first one there


def not_finite(metrics: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether any metric of a row is NaN or infinite, bool `[N]`; a return without a finished episode is not counted."""
    return np.any([_bad(metrics, name) for name in metrics], axis=0)


def metrics_of(config: Config, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The metrics among the columns of a run's table: seeds and swept values, which may be infinite, are none."""
    return {name: values for name, values in columns.items() if name not in ("seed", *config.swept)}


def diverged_runs(config: Config, columns: Mapping[str, np.ndarray]) -> list[Diverged]:
    """The runs that have rows that are not finite, each with the first of them; `columns` are those of `read_metrics`."""
    metrics = metrics_of(config, columns)
    rows = np.flatnonzero(not_finite(metrics))
    first: dict[tuple[float, ...], Diverged] = {}
    for row in rows[np.argsort(columns["env_steps"][rows], kind="stable")]:
        run = {"seed": int(columns["seed"][row])} | {name: float(columns[name][row]) for name in config.swept}
        metric = next(name for name in metrics if _bad(metrics, name)[row])
        first.setdefault(tuple(run.values()), Diverged(run, int(columns["env_steps"][row]), metric))
    return list(first.values())


def describe(diverged: list[Diverged], most: int = 8) -> str:
    """A line such as "NaN in 2 runs: seed 3 since step 12,800 (loss), seed 5 since step 25,600 (loss)"."""
    names = [
        f"{' '.join(f'{name} {shown(value)}' for name, value in run.items())} since step {steps:,} ({metric})"
        for run, steps, metric in diverged
    ]
    more = [f"and {len(names) - most} more"] if len(names) > most else []
    return f"NaN in {len(names)} run{'s' * (len(names) > 1)}: {', '.join(names[:most] + more)}"


def _bad(metrics: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    bad = ~np.isfinite(metrics[name])
    return bad & (metrics.get("episodes", np.zeros(len(bad))) > 0) if name in _OF_EPISODES else bad
