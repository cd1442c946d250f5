"""Training the runs of an experiment: batch after batch, chunk after chunk, with files and progress between chunks."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.experiment import checkpoints, curves, folder
from jaxrl.experiment.checkpoints import Checkpoints, Part, Place, Restored
from jaxrl.experiment.config import Config, load_config
from jaxrl.experiment.csv_file import CsvFile, Position
from jaxrl.experiment.divergence import Diverged, diverged_runs, not_finite
from jaxrl.experiment.evaluations import EVALUATION, write_results
from jaxrl.experiment.locks import locked
from jaxrl.experiment.policies import SavedPolicy, abstract_policies, evaluate_policies
from jaxrl.experiment.trainers import Chunk, Trainer, make_trainer
from jaxrl.presets import Preset

CHECKPOINT_EVERY = 300.0  # seconds
_EVALUATION_EPISODES = 32  # for each policy


class Progress(NamedTuple):
    """The state of training after a chunk."""

    env_steps: int  # so far, of all runs together
    total_env_steps: int
    seconds: float  # since compilation began
    episode_return: float  # mean over the runs' latest returns, without NaN; NaN before the first episode has finished
    num_diverged: int = 0  # number of runs in training whose metrics are not finite


class Result(NamedTuple):
    config: Config
    policies: SavedPolicy  # after training, leaves [num_runs, ...]
    evaluation_returns: np.ndarray  # [num_runs, episodes], greedy
    diverged: list[Diverged]  # the runs whose metrics became NaN or infinite, and when
    env_steps: int  # environment steps per run
    seconds: float  # of training, compilation included, without interruptions


class Interrupted(Exception):
    """`stop` asked to end before the run was finished; `resume` finishes it."""

    def __init__(self, *, saved: bool):
        super().__init__("a checkpoint is saved" if saved else "no checkpoint is saved, so that the run will begin again")
        self.saved = saved


def run(
    config: Config,
    out: Path,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
    checkpoint_every: float | None = CHECKPOINT_EVERY,
    stop: Callable[[], Any] = lambda: False,
) -> Result:
    """Train every run of the configuration and write a run folder.

    Args:
      config: what to run.
      out: the run folder, which must be empty or not exist. It is reserved before compilation.
      report: called once before compilation, and after every chunk.
      checkpoint_every: seconds between checkpoints, from which `resume` continues if the process ends in the middle; more where
        they would take over 3 % of the time. None for no checkpoints.
      stop: called between chunks; if it returns a true value, a checkpoint is saved and Interrupted raised.

    Raises:
      ValueError, TypeError: for an invalid configuration, a folder that cannot be used, or too little memory for a single run.
        All are raised before the first step, and leave no files behind. ValueError also if the results cannot be written.
      Interrupted: see `stop`.
    """
    folder.check_unused(out)
    preset = config.preset()
    out = folder.create(out, config.save)
    with locked(out):
        session = _Session(config, preset, out, report, stop, time.perf_counter())
        report(Progress(0, session.total, 0.0, float("nan")))
        try:
            trainer = make_trainer(config, preset)
        except Exception:
            (out / folder.CONFIG).unlink()
            raise
        return _train_and_finish(session, trainer, checkpoint_every, None)


def resume(
    out: Path,
    *,
    report: Callable[[Progress], None] = lambda progress: None,
    checkpoint_every: float | None = CHECKPOINT_EVERY,
    stop: Callable[[], Any] = lambda: False,
    force: bool = False,
) -> Result:
    """Finish a run that was interrupted: from its last checkpoint, or from the beginning if there is none.

    Parameters, metrics and returns have the same bits as those of a run that was not interrupted. In environments on the host
    (Gymnasium), whose state is in Python, seeds that are finished are kept and the seed that was interrupted begins again.

    Args:
      out: a run folder.
      report, checkpoint_every, stop: as for `run`.
      force: continue although the versions, the kind of the device or the configuration have changed since. The results may
        then differ from those of a run that was not interrupted.

    Raises:
      ValueError, TypeError: for a folder that is not a run folder, is in use by another process, or lacks files, and if anything
        has changed, unless `force`.
      Interrupted: as `run`.
    """
    config = load_config(out)
    if (out / folder.SEARCH).exists():
        raise ValueError(f"{out} is a search, which cannot be resumed: start it again in another folder")
    with locked(out):
        preset = config.preset()
        if (out / folder.POLICIES).exists():
            policies = folder.load_policies(out, abstract_policies(config, preset))
            seconds = float(folder.read_metrics(out)["wall_seconds"].max())
            return _finish(_Session(config, preset, out, report, stop, time.perf_counter() - seconds), policies, seconds)
        restored = checkpoints.restore(out, config, force=force)
        seconds = 0.0 if restored is None else restored.place.seconds
        session = _Session(config, preset, out, report, stop, time.perf_counter() - seconds)
        report(Progress(0, session.total, seconds, float("nan")))
        trainer = make_trainer(config, preset, batch=None if restored is None else restored.batch)
        return _train_and_finish(session, trainer, checkpoint_every, restored)


class _Session(NamedTuple):
    """What every part of training needs to know."""

    config: Config
    preset: Preset
    out: Path
    report: Callable[[Progress], None]
    stop: Callable[[], Any]
    started: float  # when training began, by the performance counter, without interruptions

    @property
    def total(self) -> int:
        return self.config.num_runs * self.preset.env_steps

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started


def _train_and_finish(session: _Session, trainer: Trainer, checkpoint_every: float | None, restored: Restored | None) -> Result:
    saving = Checkpoints(session.out, session.config, trainer.batch_size, trainer.num_devices, checkpoint_every, restored)
    parts = _train(session, trainer, saving, restored)
    policies = jax.tree.map(lambda *parts: np.concatenate(parts), *(part for _, part in parts))
    folder.save_policies(session.out, policies)
    return _finish(session, policies, session.seconds)


def _train(session: _Session, trainer: Trainer, saving: Checkpoints, restored: Restored | None) -> list[Part]:
    """Train all runs, or those that a checkpoint has left, and return the policies of all."""
    config, preset = session.config, session.preset
    place, parts, states = Place(0, 0, 0.0, {}), [], None
    if restored is not None:
        place, parts = restored.place, restored.parts(abstract_policies(config, preset))
        states = restored.states(trainer.abstract_states) if place.done else None
    with CsvFile(session.out / folder.METRICS, place.files.get(folder.METRICS)) as metrics:
        files = {folder.METRICS: metrics}
        if session.stop():
            raise Interrupted(saved=restored is not None)
        for runs in _batches(config, trainer, place.first):
            begun = {name: file.end for name, file in files.items()}
            latest = np.full(runs.stop - runs.start, np.nan)
            with closing(trainer.chunks(runs, place.done if runs.start == place.first else 0, states)) as chunks:
                states = None  # the first chunk takes their memory
                for chunk in chunks:
                    # All that happens between the chunks is here: the program never waits for the host.
                    latest = _latest(latest, chunk)
                    metrics.write(_rows(config, chunk, session.seconds))
                    finished = chunk.done == preset.num_iterations
                    if finished:
                        parts.append((runs, trainer.policies(chunk)))
                    stop, last = session.stop(), finished and runs.stop == config.num_runs
                    if (stop or saving.due()) and not last:
                        place_now = partial(_place, session, trainer, chunk, files, begun)
                        saved = saving.save(place_now, parts, chunk.states)
                        if stop:
                            raise Interrupted(saved=saved)
                    session.report(_progress(session, chunk, latest))
    return parts


def _place(session: _Session, trainer: Trainer, chunk: Chunk, files: dict[str, CsvFile], begun: dict[str, Position]) -> Place:
    """Where the run continues after the chunk; `begun` are the positions of the files before its batch."""
    positions = {name: file.flush() for name, file in files.items()}
    if chunk.done == session.preset.num_iterations:
        return Place(chunk.runs.stop, 0, session.seconds, positions)
    if trainer.abstract_states is None:  # the batch cannot go on from its states: it begins again
        return Place(chunk.runs.start, 0, session.seconds, begun)
    return Place(chunk.runs.start, chunk.done, session.seconds, positions)


def _progress(session: _Session, chunk: Chunk, latest: np.ndarray) -> Progress:
    env_steps = chunk.runs.start * session.preset.env_steps + chunk.env_steps * len(latest)
    known = latest[~np.isnan(latest)]
    mean = float(np.mean(known)) if len(known) else float("nan")
    return Progress(env_steps, session.total, session.seconds, mean, int(np.sum(not_finite(chunk.metrics))))


def _finish(session: _Session, policies: SavedPolicy, seconds: float) -> Result:
    """Evaluate and draw what is trained. The picture comes last: a folder that has it is finished."""
    checkpoints.remove(session.out)
    if session.stop():
        raise Interrupted(saved=True)
    returns = evaluate_policies(session.config, policies, num_episodes=_EVALUATION_EPISODES)
    (session.out / EVALUATION).unlink(missing_ok=True)  # of a process that was killed here
    write_results(session.out, session.config, session.preset.env_steps, returns)
    if session.stop():
        raise Interrupted(saved=True)
    unfinished = curves.plot(curves.read_curves(session.out), session.out / f"unfinished-{folder.CURVE}")
    unfinished.replace(session.out / folder.CURVE)
    diverged = diverged_runs(session.config, folder.read_metrics(session.out))
    return Result(session.config, policies, returns, diverged, session.preset.env_steps, seconds)


def _batches(config: Config, trainer: Trainer, first: int) -> Iterator[slice]:
    for start in range(first, config.num_runs, trainer.batch_size):
        yield slice(start, min(start + trainer.batch_size, config.num_runs))


def _latest(latest: np.ndarray, chunk: Chunk) -> np.ndarray:
    """The latest return of each run of the chunk: that of the chunk if an episode has finished in it."""
    return np.where(chunk.metrics["episodes"] > 0, chunk.metrics["episode_return"], latest)


def _rows(config: Config, chunk: Chunk, seconds: float) -> Iterable[dict[str, Any]]:
    """The rows of metrics.csv, one for each run of the chunk."""
    for i, identifier in enumerate(config.identifiers()[chunk.runs]):
        metrics = {name: values[i] for name, values in chunk.metrics.items()}
        yield identifier | {"env_steps": chunk.env_steps, "wall_seconds": round(seconds, 3)} | metrics
