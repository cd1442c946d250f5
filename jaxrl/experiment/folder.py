"""Run folders: `config.json`, `metrics.csv`, `curve.png`, `policies/`. They hold JSON, text and arrays; loading runs no code.

While a run trains, its folder also has `checkpoints/` and a `lock`.
"""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import jaxrl
from jaxrl.experiment import storage
from jaxrl.experiment.notes import Note

CONFIG, METRICS, CURVE, POLICIES, CHECKPOINTS = "config.json", "metrics.csv", "curve.png", "policies", "checkpoints"
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


def create(path: Path, save_config: Callable[[Path], None]) -> Path:
    """Make a run folder with its configuration, which reserves it for one run.

    Args:
      path: a folder that does not exist, or is empty.
      save_config: writes a new file, and raises FileExistsError if there is one, such as `Config.save`.

    Raises:
      ValueError: if the folder is not empty or cannot be written, or another run reserved it at the same time.
    """
    check_unused(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        save_config(path / CONFIG)
    except FileExistsError as error:
        raise ValueError(f"{path} is in use by another run; choose another with --out") from error
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def is_finished(run: Path) -> bool:
    """Whether everything in a run folder is written."""
    return (run / POLICIES).is_dir() and (run / CURVE).is_file()


def _cannot_write(path: Path, error: OSError) -> ValueError:
    return ValueError(f"cannot write to {path} ({error.strerror}); choose another folder with --out")


def read_metrics(run: Path) -> dict[str, np.ndarray]:
    """The columns of a run's metrics, as floats. Raises ValueError as `read_table`."""
    if not (run / METRICS).is_file():
        raise ValueError(f"{run} is not a run folder: it has no {METRICS}")
    return read_table(run / METRICS)


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


def save_policies(run: Path, policies: Any) -> None:
    """Write the policies of every run, leaves `[num_runs, ...]`. Raises ValueError if they cannot be written."""
    try:
        storage.write(run / POLICIES, policies, {"jaxrl": jaxrl.__version__})
    except OSError as error:
        raise ValueError(
            f"cannot write {run / POLICIES} ({storage.reason(error)}): make room and continue with `jaxrl resume {run}`"
        ) from error


def load_policies(run: Path, abstract: Any) -> Any:
    """Read what `save_policies` wrote.

    Args:
      run: the run folder.
      abstract: a pytree of NumPy arrays with the shapes and dtypes that were saved; their values are not read.

    Raises:
      ValueError: if there are no policies, or they are damaged or have other shapes.
    """
    path = run / POLICIES
    if not path.is_dir():
        raise ValueError(f"{run} holds no policies: the run did not finish; continue with `jaxrl resume {run}`")
    storage.read_record(path)
    try:
        return storage.read_arrays(path, abstract)
    except storage.Other as error:
        raise ValueError(f"{path} and {run / CONFIG} do not belong together: {error}") from error
