"""Run folders: `config.json`, `metrics.csv`, `evaluation.csv`, `curve.png`, `policies/`, `best_policies/`.

They hold JSON, text and arrays; loading them runs no code. While a run trains, its folder also has `checkpoints/` and a `lock`.
"""

import contextlib
import io
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

import jaxrl
from jaxrl._src.checks import check_choice
from jaxrl._src.paths import quoted
from jaxrl.experiment import storage
from jaxrl.experiment.locks import locked
from jaxrl.experiment.notes import Note

CONFIG, METRICS, CURVE, CHECKPOINTS = "config.json", "metrics.csv", "curve.png", "checkpoints"
EVALUATION_CURVE = "evaluation.png"
POLICIES, BEST_POLICIES = "policies", "best_policies"
SEARCH = "search.json"  # of a search in place of a run
PARTS = "parts"  # of runs that several processes train; jaxrl.experiment.parts


def check_unused(path: Path) -> None:
    """Raise ValueError if `path` exists and is not an empty folder."""
    try:
        used = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise _cannot_write(path, error) from error
    if used:
        raise ValueError(f"{path} exists and is not an empty folder; choose another with --out, or remove it")


@contextlib.contextmanager
def created(path: Path, save_config: Callable[[Path], None]) -> Iterator[None]:
    """Make a run folder with its configuration, which reserves it for one run, and hold its lock.

    Args:
      path: a folder that does not exist, or is empty.
      save_config: writes a new file, and raises FileExistsError if there is one, such as `Config.save`.

    Raises:
      ValueError: if the folder is not empty or cannot be written, or another run reserved it at the same time.
    """
    check_unused(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    with locked(path):
        try:
            save_config(path / CONFIG)
        except FileExistsError as error:
            raise ValueError(f"{path} is in use by another run; choose another with --out") from error
        except OSError as error:
            raise _cannot_write(path, error) from error
        yield


def is_finished(run: Path) -> bool:
    """Whether everything in a run folder is written."""
    return (run / CONFIG).is_file() and (run / POLICIES).is_dir() and (run / CURVE).is_file()


def _cannot_write(path: Path, error: OSError) -> ValueError:
    return ValueError(f"cannot write to {path} ({error.strerror}); choose another folder with --out")


def titles(runs: Sequence[Path]) -> list[str]:
    """What to call each of several run folders: its name, or its path where others have the same name."""
    names = [run.resolve().name for run in runs]
    return [name if names.count(name) == 1 else str(run) for name, run in zip(names, runs, strict=True)]


def read_metrics(run: Path) -> dict[str, np.ndarray]:
    """The columns of a run's metrics, as floats. Raises ValueError as `read_table`."""
    if not (run / METRICS).is_file():
        if (run / SEARCH).exists():
            unfinished = "" if (run / POLICIES).is_dir() else f", and it did not finish: {_how_to_continue(run)}"
            raise ValueError(f"{run} is a search, which has no {METRICS}{unfinished}")
        raise ValueError(not_a_run(run, METRICS))
    return read_table(run / METRICS)


def not_a_run(run: Path, file: str) -> str:
    """Why a folder without this file is not a run folder."""
    if (run / PARTS).is_dir():
        return f"{run} has parts that are not joined: `jaxrl resume {quoted(run)}` finishes and joins them"
    return f"{run} is not a run folder: it has no {file}"


def has_rows(path: Path) -> bool:
    """Whether a CSV file has a whole row below its header. What is not text has some, so that it is read and found damaged."""
    with path.open("rb") as file:
        first = list(itertools.islice(file, 2))
    return sum(line.endswith(b"\n") for line in first) == 2 or not all(line.isascii() for line in first)


def read_table(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file of numbers, as floats.

    A last row without its end, which a process leaves that is killed while it writes, is left out with a note.

    Raises:
      ValueError: if it is damaged or has no rows.
    """
    try:
        text = path.read_bytes().decode()
        whole = text[: text.rfind("\n") + 1]
        header, _, rest = whole.partition("\n")
        names = header.strip().split(",")
        rows = np.loadtxt(io.StringIO(rest), delimiter=",", ndmin=2) if rest else np.empty((0, len(names)))
        if rows.shape[1] != len(names):
            raise ValueError(f"{len(names)} columns in the header, and {rows.shape[1]} in the rows")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if not len(rows):
        raise ValueError(f"{path} holds no rows yet")
    if whole != text:
        warnings.warn(f"{path} ends in the middle of a row, which is left out", Note, stacklevel=2)
    return dict(zip(names, rows.T, strict=True))


def save_policies(run: Path, policies: Any, record: Mapping[str, Any] = MappingProxyType({}), *, name: str = POLICIES) -> None:
    """Write the policies of every run, leaves `[num_runs, ...]`, with a record of JSON values.

    Raises:
      ValueError: if they cannot be written.
    """
    try:
        storage.write(run / name, policies, {"jaxrl": jaxrl.__version__, **record})
    except OSError as error:
        raise ValueError(f"cannot write {run / name} ({storage.reason(error)}): make room and {_how_to_continue(run)}") from error


def load_policies(run: Path, abstract: Any, which: str = "last") -> Any:
    """Read what `save_policies` wrote.

    Args:
      run: the run folder.
      abstract: a pytree of NumPy arrays with the shapes and dtypes that were saved; their values are not read.
      which: "last" for the policies after training, or "best" for those with the highest returns in the evaluations during it.

    Raises:
      ValueError: if there are no such policies, or they are damaged or have other shapes.
    """
    path = policies_folder(run, which)
    storage.read_record(path)
    try:
        return storage.read_arrays(path, abstract)
    except storage.Other as error:
        raise ValueError(f"{path} and {run / CONFIG} do not belong together: {error}") from error


def read_record(run: Path, which: str = "last") -> dict[str, Any]:
    """The record of `save_policies`, after a check of all its files. Raises ValueError as `load_policies`."""
    return storage.read_record(policies_folder(run, which))


def policies_folder(run: Path, which: str = "last") -> Path:
    """Where the policies are. Raises ValueError if there are none."""
    check_choice("which", which, ("last", "best"))
    if not (run / POLICIES).is_dir():
        raise ValueError(f"{run} holds no policies: the run did not finish; {_how_to_continue(run)}")
    path = run / (POLICIES if which == "last" else BEST_POLICIES)
    if not path.is_dir():
        raise ValueError(f"{run} holds no best policies: it was trained without evaluations; take the last ones")
    return path


def _how_to_continue(run: Path) -> str:
    return "search again in another folder" if (run / SEARCH).exists() else f"continue with `jaxrl resume {quoted(run)}`"
