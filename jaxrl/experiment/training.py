"""Training the runs of an experiment: batch after batch, chunk after chunk, with files and progress between chunks."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl.experiment import best_policies, checkpoints, curves, folder, logs
from jaxrl.experiment.best_policies import Evaluation, Trained, abstract_best
from jaxrl.experiment.checkpoints import Checkpoints, Part, Place, Restored
from jaxrl.experiment.config import Config, load_config
from jaxrl.experiment.csv_file import CsvFile, Position
from jaxrl.experiment.divergence import Diverged, diverged_runs, not_finite
from jaxrl.experiment.effects import check_effects
from jaxrl.experiment.evaluations import EPISODES, EVALUATION, write_evaluation
from jaxrl.experiment.host import is_on_host
from jaxrl.experiment.locks import locked
from jaxrl.experiment.loggers import Logger
from jaxrl.experiment.policies import (
    EVALUATION_STREAM,
    Evaluate,
    SavedPolicy,
    abstract_policies,
    greedy_evaluation,
    in_slices,
    slice_size,
    stream_of,
)
from jaxrl.experiment.system import write_system
from jaxrl.experiment.trainers import Chunk, Trainer, make_trainer
from jaxrl.presets import Preset

CHECKPOINT_EVERY = 300.0  # seconds
_EPISODES_ON_HOST = 8  # during training; there, a step of evaluation takes as long as one of training


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
    seconds: float  # of training, compilation and evaluations included, without interruptions
    evaluation_seconds: float = 0.0  # of these, for evaluations; since the last interruption


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
    loggers: Sequence[Logger] = (),
) -> Result:
    """Train every run of the configuration and write a run folder.

    Args:
      config: what to run.
      out: the run folder, which must be empty or not exist. It is reserved before compilation.
      report: called once before compilation, and after every chunk.
      checkpoint_every: seconds between checkpoints, from which `resume` continues if the process ends in the middle; more where
        they would take over 3 % of the time. None for no checkpoints.
      stop: called after a chunk, or after several that take less than two seconds together; if it returns a true value, a
        checkpoint is saved and Interrupted raised.
      loggers: what receives the metrics besides `metrics.csv`, in a thread of its own, such as
        `jaxrl.experiment.loggers.tensorboard(out)`. A note says if one fails or is too slow; training goes on.

    Raises:
      ValueError, TypeError: for an invalid configuration, a hyperparameter without an effect, a folder that cannot be used,
        or too little memory for a single run. All are raised before the first step, and leave no files behind. ValueError
        also if the results cannot be written.
      Interrupted: see `stop`.
    """
    folder.check_unused(out)
    preset = config.preset()
    check_effects(config, preset)
    with folder.created(out, config.save):
        session = _session(config, preset, out, report, stop, loggers, 0.0)
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
    loggers: Sequence[Logger] = (),
) -> Result:
    """Finish a run that was interrupted: from its last checkpoint, or from the beginning if there is none.

    Parameters, metrics and returns have the same bits as those of a run that was not interrupted. In environments on the host
    (Gymnasium), whose state is in Python, seeds that are finished are kept and the seed that was interrupted begins again.

    Args:
      out: a run folder.
      report, checkpoint_every, stop, loggers: as for `run`.
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
            session, size = _session(config, preset, out, report, stop, loggers, seconds), slice_size(config, preset.learner)
            return _finish(session, size, policies, seconds)
        restored = checkpoints.restore(out, config, force=force)
        seconds = 0.0 if restored is None else restored.place.seconds
        session = _session(config, preset, out, report, stop, loggers, seconds)
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
    loggers: Sequence[Logger]
    evaluate: Callable[[int], Evaluate]  # from the number of episodes; of equal ones, there is one program
    started: float  # when training began, by the performance counter, without interruptions

    @property
    def total(self) -> int:
        return self.config.num_runs * self.preset.env_steps

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started


def _session(
    config: Config, preset: Preset, out: Path, report: Any, stop: Any, loggers: Sequence[Logger], seconds: float
) -> _Session:
    evaluate = lru_cache(lambda num_episodes: greedy_evaluation(preset.learner, num_episodes))
    return _Session(config, preset, out, report, stop, loggers, evaluate, time.perf_counter() - seconds)


def _train_and_finish(session: _Session, trainer: Trainer, checkpoint_every: float | None, restored: Restored | None) -> Result:
    saving = Checkpoints(session.out, session.config, trainer.batch_size, trainer.num_devices, checkpoint_every, restored)
    parts, end, evaluation_seconds = _train(session, trainer, saving, restored)
    trained = jax.tree.map(lambda *parts: np.concatenate(parts), *(part for _, part in parts))
    best_policies.save(session.out, trained, {"evaluation": end._asdict()})
    return _finish(session, trainer.batch_size, trained.policies, session.seconds, evaluation_seconds)


def _train(
    session: _Session, trainer: Trainer, saving: Checkpoints, restored: Restored | None
) -> tuple[list[Part], Position, float]:
    """Train all runs, or those that a checkpoint has left.

    Returns:
      The policies of all runs, the position in `evaluation.csv`, and the seconds that evaluations took.
    """
    config, preset = session.config, session.preset
    place, parts, states, best = _beginning(session, trainer, restored)
    with ExitStack() as stack:
        open_file = lambda name: stack.enter_context(CsvFile(session.out / name, place.files.get(name)))
        files = {name: open_file(name) for name in (folder.METRICS, EVALUATION)}
        log = stack.enter_context(logs.logging(session.loggers, config, session.out))
        evaluate = in_slices(_training_evaluation(session), trainer.batch_size)
        evaluation = Evaluation(config, preset, evaluate, files[EVALUATION])
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
                    files[folder.METRICS].write(_rows(config, chunk, session.seconds))
                    finished, due = chunk.done == preset.num_iterations, evaluation.due(chunk)
                    policies: Any = trainer.policies(chunk) if finished or due else None
                    means = None
                    if due:
                        best, means = evaluation(chunk, policies, best)
                    progress = _progress(session, chunk, latest)
                    log(progress.env_steps, progress.seconds, chunk, means)
                    if finished:
                        parts.append((runs, Trained(policies, best or ())))
                    last = finished and runs.stop == config.num_runs
                    if chunk.states is not None and not last and ((stop := session.stop()) or saving.due()):
                        place_now = partial(_place, session, trainer, chunk, files, begun)
                        saved = saving.save(place_now, parts, chunk.states, best)
                        if stop:
                            raise Interrupted(saved=saved)
                    session.report(progress)
            best = None
        with suppress(OSError):  # closing the files reports it
            for file in files.values():
                file.flush()
    return parts, files[EVALUATION].end, evaluation.seconds


def _beginning(session: _Session, trainer: Trainer, restored: Restored | None) -> tuple[Place, list[Part], Any, Any]:
    """The place, the finished runs, and the states and the best policies of the batch in progress."""
    if restored is None:
        return Place(0, 0, 0.0, {}), [], None, None
    policies = abstract_policies(session.config, session.preset)
    place, parts = restored.place, restored.parts(Trained(policies, abstract_best(session.config, policies)))
    if not place.done:
        return place, parts, None, None
    runs = slice(place.first, min(place.first + trainer.batch_size, session.config.num_runs))
    shapes = abstract_best(session.config, jax.tree.map(lambda x: x[runs], policies)) if restored.evaluated else ()
    states, best = restored.states(trainer.abstract_states, shapes)
    return place, parts, states, best or None


def _training_evaluation(session: _Session) -> Evaluate:
    return session.evaluate(_EPISODES_ON_HOST if is_on_host(session.preset.learner) else EPISODES)


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


def _finish(session: _Session, size: int, policies: SavedPolicy, seconds: float, evaluation_seconds: float = 0.0) -> Result:
    """Evaluate `size` policies at once, and draw what is trained. The picture comes last: a folder that has it is finished."""
    config, out, env_steps = session.config, session.out, session.preset.env_steps
    checkpoints.remove(out)
    if session.stop():
        raise Interrupted(saved=True)
    keys = stream_of(config.runs(session.preset)[0], EVALUATION_STREAM)
    returns = in_slices(session.evaluate(EPISODES), size)(keys, policies)
    # What follows the evaluations during training is of a process that was killed here.
    write_evaluation(
        out, config, env_steps, returns, Position(**folder.read_record(out).get("evaluation", {"size": 0, "crc32": 0}))
    )
    write_system(out)
    if session.stop():
        raise Interrupted(saved=True)
    curves.draw_run(out)
    return Result(
        config, policies, returns, diverged_runs(config, folder.read_metrics(out)), env_steps, seconds, evaluation_seconds
    )


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
