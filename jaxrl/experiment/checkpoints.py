"""Checkpoints of a run folder: everything that is needed to go on with a run where it was, bit for bit.

`checkpoints/` holds the last two checkpoints, `000001/`, `000002/`, …, and the policies of the batches of runs that are finished,
`policies-FIRST-STOP/`. A checkpoint holds the learner states of the batch in progress and a record of where everything stands.
"""

import re
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jaxlib
import numpy as np

import jaxrl
from jaxrl._src.keys import unwrap_keys, wrap_keys
from jaxrl.experiment import storage
from jaxrl.experiment.best_policies import Best, Trained
from jaxrl.experiment.config import Config
from jaxrl.experiment.csv_file import Position, check_position
from jaxrl.experiment.folder import CHECKPOINTS
from jaxrl.experiment.notes import Note

_KEPT = 2
_COST = 0.03  # of the time, at most
_ALWAYS_FIXED = (
    "num_shards", "seeds", "seed", "sweep", "samples", "eval_every",
    "settings.steps", "settings.num_envs", "settings.rollout_length",
)  # fmt: skip


class Place(NamedTuple):
    """Where a run folder stands."""

    first: int  # the first run of the batch in progress; those before are finished
    done: int  # iterations of the batch in progress, without the warm-up; 0 if it has not begun
    seconds: float  # since compilation began, without interruptions
    files: dict[str, Position]  # of the CSV files


Part = tuple[slice, Trained]  # finished runs and what is kept of them, as NumPy arrays


class Restored(NamedTuple):
    """What a checkpoint gives back."""

    place: Place
    batch: tuple[int, int]  # the size of a batch, and the largest number of devices for it
    part_folders: list[tuple[slice, Path]]  # the finished runs, and where their policies are
    path: Path
    evaluated: bool  # whether the batch in progress has best policies

    def states(self, abstract: Any, best: Any) -> tuple[Any, Any]:
        """The learner states of the batch in progress, and its best policies so far.

        Args:
          abstract: has the shapes of the states, with typed keys, and their shardings.
          best: the best policies as NumPy arrays, or () if there were no evaluations.
        """
        unwrapped = jax.eval_shape(unwrap_keys, abstract)
        placed = jax.tree.map(lambda x, y: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=y.sharding), unwrapped, abstract)
        arrays = storage.read_arrays(self.path, {"states": placed, "best": best})
        return wrap_keys(arrays["states"], abstract), arrays["best"]

    def parts(self, abstract: Trained) -> list[Part]:
        """The finished runs; `abstract` is for all runs, as NumPy arrays."""
        return [
            (runs, storage.read_arrays(path, jax.tree.map(lambda x, runs=runs: x[runs], abstract)))
            for runs, path in self.part_folders
        ]


class Checkpoints:
    """Writes the checkpoints of a run folder.

    Args:
      run: the run folder.
      config: its configuration.
      batch_size, num_devices: of the trainer.
      every: seconds between checkpoints, or more if they would take over 3 % of the time; None for no checkpoints.
      restored: what the run continues from, if it does.
    """

    def __init__(
        self, run: Path, config: Config, batch_size: int, num_devices: int, every: float | None, restored: Restored | None
    ):
        self._folder, self._every = run / CHECKPOINTS, every
        self._record = {"batch_size": batch_size, "num_devices": num_devices} | _circumstances(config)
        self._parts = [] if restored is None else [runs for runs, _ in restored.part_folders]
        self._saved_at, self._cost = time.perf_counter(), 0.0
        existing = _checkpoints(self._folder)
        self._number = 1 + (int(existing[0].name) if existing else 0)

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        if self._every is None:
            return False
        return time.perf_counter() - self._saved_at >= max(self._every, self._cost / _COST)

    def save(self, place: Callable[[], Place], parts: list[Part], states: Any, best: Best | None) -> bool:
        """Write a checkpoint, unless there are to be none, and remove the oldest ones.

        Args:
          place: called to bring the CSV files to the disk and tell where they are.
          parts: all finished runs.
          states: the learner states of the batch in progress, which are written if it goes on from them.
          best: its best policies so far, if there was an evaluation.

        Returns:
          Whether it was written. If not, a note says why: the run goes on.
        """
        if self._every is None:
            return False
        begun = time.perf_counter()
        try:
            try:
                self._write(place(), parts, states, best)
            except OSError:
                for path in _checkpoints(self._folder)[1:]:  # make room, and try again
                    shutil.rmtree(path, ignore_errors=True)
                self._write(place(), parts, states, best)
        except OSError as error:
            text = f"cannot save a checkpoint in {self._folder} ({storage.reason(error)})"
            warnings.warn(f"{text}; it is tried again later", Note, stacklevel=2)
            return False
        finally:
            self._saved_at = time.perf_counter()
            self._cost = self._saved_at - begun
        for path in _checkpoints(self._folder)[_KEPT:]:
            shutil.rmtree(path, ignore_errors=True)
        return True

    def _write(self, place: Place, parts: list[Part], states: Any, best: Best | None) -> None:
        self._folder.mkdir(exist_ok=True)
        stored = self._parts[-1].stop if self._parts else 0
        new = [(runs, policies) for runs, policies in parts if runs.start >= stored]
        if new:
            runs = slice(new[0][0].start, new[-1][0].stop)
            path = _part(self._folder, runs)
            shutil.rmtree(path, ignore_errors=True)  # of a checkpoint that could not be written or is damaged
            storage.write(path, jax.tree.map(lambda *x: np.concatenate(x), *(trained for _, trained in new)), {})
            self._parts.append(runs)
        where = {
            "first": place.first,
            "done": place.done,
            "seconds": place.seconds,
            "files": {name: position._asdict() for name, position in place.files.items()},
            "parts": [[runs.start, runs.stop] for runs in self._parts],
            "evaluated": best is not None,
        }
        arrays = {"states": unwrap_keys(states), "best": () if best is None else best} if place.done else ()
        storage.write(self._folder / f"{self._number:06d}", arrays, self._record | where)
        self._number += 1


def remove(run: Path) -> None:
    """Remove the checkpoints of a run that is finished."""
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)


def restore(run: Path, config: Config, *, force: bool = False) -> Restored | None:
    """The newest checkpoint of a run folder that is whole; None if there is none. A note says which are damaged.

    Raises:
      ValueError: if the versions, the device kind, the configuration or the files have changed since, unless `force`.
    """
    paths = _checkpoints(run / CHECKPOINTS)
    for i, path in enumerate(paths):
        try:
            record = storage.read_record(path)
            parts = [slice(*part) for part in record["parts"]]
            for part in parts:
                storage.read_record(_part(path.parent, part))
        except (storage.Damaged, KeyError, TypeError) as error:
            before = paths[i + 1 :]
            instead = f"continuing from the one before, {before[0].name}" if before else "the run begins again"
            warnings.warn(f"{error}; {instead}", Note, stacklevel=2)
            shutil.rmtree(path, ignore_errors=True)  # else it would count as one of those that are kept
            continue
        _check_circumstances(run, record, config, force)
        files = {name: Position(**position) for name, position in record["files"].items()}
        _check_files(run, files)
        place = Place(record["first"], record["done"], record["seconds"], files)
        available = len(jax.local_devices())
        num_devices = record["num_devices"] if record["available_devices"] == available else available
        folders = [(part, _part(path.parent, part)) for part in parts]
        return Restored(place, (record["batch_size"], num_devices), folders, path, record["evaluated"])
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if re.fullmatch(r"\d{6,}", path.name)), key=lambda p: -int(p.name))


def _part(folder: Path, runs: slice) -> Path:
    return folder / f"policies-{runs.start:06d}-{runs.stop:06d}"


def _circumstances(config: Config) -> dict[str, Any]:
    """What must not change during a run, if its bits are not to."""
    return {
        "versions": {"jaxrl": jaxrl.__version__, "jax": jax.__version__, "jaxlib": jaxlib.__version__},
        "device": jax.local_devices()[0].device_kind,
        "available_devices": len(jax.local_devices()),
        "config": config.resolved(),
    }


def _check_circumstances(run: Path, record: dict[str, Any], config: Config, force: bool) -> None:
    now = _circumstances(config)
    differences = [
        f"{name} was {before} and is {after}"
        for name, before, after in [
            *((name, record["versions"].get(name), version) for name, version in now["versions"].items()),
            ("the device", record["device"], now["device"]),
        ]
        if before != after
    ]
    changed = changed_fields(record["config"], now["config"])
    fixed = [name for name in changed if name.startswith(_ALWAYS_FIXED)]
    if fixed:
        raise ValueError(f"{run / 'config.json'} was edited: {changed[fixed[0]]}; a run cannot go on with that, start another")
    differences += changed.values()
    if differences and not force:
        raise ValueError(f"{run} was trained otherwise: {'; '.join(differences)}. Continue in spite of it with --force")
    if differences:
        warnings.warn(f"{run} was trained otherwise: {'; '.join(differences)}", Note, stacklevel=3)
    if record["available_devices"] != now["available_devices"]:
        text = f"{run} continues on {now['available_devices']} devices in place of {record['available_devices']}"
        warnings.warn(f"{text}: the results are equal up to float rounding, not bit for bit", Note, stacklevel=3)


def _check_files(run: Path, files: dict[str, Position]) -> None:
    for name, position in files.items():
        try:
            check_position(run / name, position)
        except ValueError as error:
            raise ValueError(
                f"{error} since the last checkpoint: put it back, or begin the run again in another folder"
            ) from None


def changed_fields(before: Any, after: Any, name: str = "") -> dict[str, str]:
    """The differences between two configurations, by name."""
    if isinstance(before, dict) and isinstance(after, dict):
        differences: dict[str, str] = {}
        for key in {**before, **after}:
            differences |= changed_fields(before.get(key), after.get(key), f"{name}.{key}" if name else key)
        return differences
    return {} if before == after else {name: f"{name} was {before} and is {after}"}
