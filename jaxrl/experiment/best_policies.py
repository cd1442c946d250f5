"""Evaluation between the chunks of training, and the best policy of each run by it."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.experiment import folder
from jaxrl.experiment.config import Config
from jaxrl.experiment.csv_file import CsvFile
from jaxrl.experiment.evaluations import evaluation_due, evaluation_rows, mean_of_ended
from jaxrl.experiment.policies import SELECTION_STREAM, Evaluate, SavedPolicy, stream_of
from jaxrl.experiment.trainers import Chunk
from jaxrl.presets import Preset


class Best(NamedTuple):
    """For each run the policy with the highest mean return over the evaluations so far; of equal ones, the last."""

    returns: np.ndarray  # float32 [N]; −inf where no episode has ended yet
    env_steps: np.ndarray  # int64 [N], after which the policy was evaluated
    policies: SavedPolicy  # leaves [N, ...]


class Trained(NamedTuple):
    """What is kept of runs that are finished."""

    policies: SavedPolicy  # the last ones, leaves [N, ...]
    best: Any  # Best, or () without evaluations


def abstract_best(config: Config, policies: SavedPolicy) -> Any:
    """Uninitialised arrays with the shapes and dtypes of `Best`, for these policies; () without evaluations."""
    if config.eval_every == "none":
        return ()
    num = len(jax.tree.leaves(policies)[0])
    return Best(np.empty(num, np.float32), np.empty(num, np.int64), policies)


def better(best: Best | None, policies: SavedPolicy, env_steps: int, means: np.ndarray) -> Best:
    """The best policies after one more evaluation, with mean returns `[N]`, NaN where no episode ended."""
    returns = np.nan_to_num(means, nan=-np.inf, posinf=np.inf, neginf=-np.inf).astype(np.float32)
    if best is None:
        return Best(returns, np.full(len(returns), env_steps, np.int64), policies)
    improved = returns >= best.returns
    choose = lambda new, old: np.where(improved.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    return jax.tree.map(choose, Best(returns, np.full(len(returns), env_steps, np.int64), policies), best)


class Evaluation:
    """Evaluates the policies of a batch of runs when it is due, and keeps the best ones.

    Args:
      config, preset: the runs.
      evaluate: from `in_slices`.
      file: where the returns are written, but for those after the end of a run: these are written for all runs together.
    """

    def __init__(self, config: Config, preset: Preset, evaluate: Evaluate, file: CsvFile):
        self.seconds = 0.0
        self._config, self._env_steps, self._file = config, preset.env_steps, file
        self._evaluate = evaluate
        self._keys: Any = () if config.eval_every == "none" else stream_of(config.runs(preset)[0], SELECTION_STREAM)

    def due(self, chunk: Chunk) -> bool:
        return evaluation_due(self._config, self._env_steps, chunk.env_steps_before, chunk.env_steps)

    def __call__(self, chunk: Chunk, policies: SavedPolicy, best: Best | None) -> tuple[Best, np.ndarray]:
        """The best policies, and the mean return of each run, `[N]`."""
        begun = time.perf_counter()
        returns = self._evaluate(self._keys[chunk.runs], policies)
        if chunk.env_steps < self._env_steps:
            self._file.write(evaluation_rows(self._config, chunk.runs, chunk.env_steps, returns))
        means = mean_of_ended(returns)
        self.seconds += time.perf_counter() - begun
        return better(best, policies, chunk.env_steps, means), means


def save(run: Path, trained: Trained, record: dict[str, Any]) -> None:
    """Write the best policies of all runs, and then the last ones with a record, with which a run counts as trained.

    Raises:
      ValueError: if they cannot be written.
    """
    if trained.best and not (run / folder.BEST_POLICIES).is_dir():
        judged = {"returns": trained.best.returns.tolist(), "env_steps": trained.best.env_steps.tolist()}
        folder.save_policies(run, trained.best.policies, judged, name=folder.BEST_POLICIES)
    folder.save_policies(run, trained.policies, record)
