"""Training the runs of an experiment: batch after batch, chunk after chunk, with files and progress between chunks."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.experiment import curves, folder
from jaxrl.experiment.config import Config
from jaxrl.experiment.policies import SavedPolicy, evaluate_policies
from jaxrl.experiment.trainers import Chunk, Trainer, make_trainer

_EVALUATION_EPISODES = 32  # for each policy


class Progress(NamedTuple):
    """The state of training after a chunk."""

    env_steps: int  # so far, of all runs together
    total_env_steps: int
    seconds: float  # since compilation began
    episode_return: float  # mean over the runs' latest returns; NaN before the first episode has finished


class Result(NamedTuple):
    config: Config
    policies: SavedPolicy  # after training, leaves [num_runs, ...]
    training_returns: np.ndarray  # [num_runs], the latest
    evaluation_returns: np.ndarray  # [num_runs, episodes], greedy
    env_steps: int  # environment steps per run
    seconds: float


def run(config: Config, out: Path, *, report: Callable[[Progress], None] = lambda progress: None) -> Result:
    """Train every run of the configuration and write a run folder.

    Args:
      config: what to run.
      out: the run folder, which must be empty or not exist. It is reserved before compilation.
      report: called once before compilation, and after every chunk.

    Raises:
      ValueError, TypeError: for an invalid configuration, a folder that cannot be used, or too little memory for a single run.
        All are raised before the first step, and leave no files behind.
    """
    folder.check_unused(out)
    preset = config.preset()
    out = folder.create(out, config.save)
    total = config.num_runs * preset.env_steps
    report(Progress(0, total, 0.0, float("nan")))
    started = time.perf_counter()
    try:
        trainer = make_trainer(config, preset)
    except BaseException:
        (out / folder.CONFIG).unlink()
        raise
    parts, latest = [], np.full(config.num_runs, np.nan)
    with folder.MetricsFile(out / folder.METRICS) as metrics:
        for runs in _batches(config, trainer):
            with closing(trainer.chunks(runs)) as chunks:
                for chunk in chunks:
                    # Everything that happens between the chunks is here: the program never waits for the host.
                    seconds = time.perf_counter() - started
                    latest[runs] = _latest(latest[runs], chunk)
                    metrics.write(_rows(config, chunk, seconds))
                    env_steps = runs.start * preset.env_steps + chunk.env_steps * (runs.stop - runs.start)
                    report(Progress(env_steps, total, seconds, _mean(latest[runs])))
            parts.append(trainer.policies(chunk))
    seconds = time.perf_counter() - started
    policies = jax.tree.map(lambda *parts: np.concatenate(parts), *parts)
    folder.save_policies(out, policies)
    curves.plot(curves.read_curves(out), out / folder.CURVE)
    returns = evaluate_policies(config, policies, num_episodes=_EVALUATION_EPISODES)
    return Result(config, policies, latest, returns, preset.env_steps, seconds)


def _batches(config: Config, trainer: Trainer) -> Iterator[slice]:
    for first in range(0, config.num_runs, trainer.batch_size):
        yield slice(first, min(first + trainer.batch_size, config.num_runs))


def _latest(latest: np.ndarray, chunk: Chunk) -> np.ndarray:
    """The latest return of each run of the chunk: that of the chunk if an episode has finished in it."""
    returns = chunk.metrics["episode_return"]
    return np.where(np.isnan(returns), latest, returns)


def _rows(config: Config, chunk: Chunk, seconds: float) -> Iterable[dict[str, Any]]:
    """The rows of metrics.csv, one for each run of the chunk."""
    for i, identifier in enumerate(config.identifiers()[chunk.runs]):
        metrics = {name: values[i] for name, values in chunk.metrics.items()}
        yield identifier | {"env_steps": chunk.env_steps, "wall_seconds": round(seconds, 3)} | metrics


def _mean(latest: np.ndarray) -> float:
    known = latest[~np.isnan(latest)]
    return float(np.mean(known)) if len(known) else float("nan")
