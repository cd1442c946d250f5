"""Run folders: `config.json`, `metrics.csv`, `curve.png`, `policies/`. They hold JSON, text and arrays; loading runs no code."""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl._src.paths import as_utf8

CONFIG, METRICS, CURVE, POLICIES = "config.json", "metrics.csv", "curve.png", "policies"


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


def _cannot_write(path: Path, error: OSError) -> ValueError:
    return ValueError(f"cannot write to {path} ({error.strerror}); choose another folder with --out")


class MetricsFile:
    """A CSV file to which rows are appended; the first row determines the header."""

    def __init__(self, path: Path):
        self._file = path.open("w", newline="")
        self._writer: csv.DictWriter | None = None

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            if self._writer is None:
                self._writer = csv.DictWriter(self._file, list(row))
                self._writer.writeheader()
            self._writer.writerow(row)
        self._file.flush()

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(self, *exc) -> None:
        self._file.close()


def read_metrics(run: Path) -> dict[str, np.ndarray]:
    """The columns of a run's metrics, as floats."""
    if not (run / METRICS).is_file():
        raise ValueError(f"{run} is not a run folder: it has no {METRICS}")
    return read_table(run / METRICS)


def read_table(path: Path) -> dict[str, np.ndarray]:
    """The columns of a CSV file of numbers, as floats. Raises ValueError if it is damaged or has no rows."""
    try:
        with path.open(newline="") as file:
            header = file.readline().strip().split(",")
            start = file.tell()
            empty = not file.readline()
            file.seek(start)
            rows = np.empty((0, len(header))) if empty else np.loadtxt(file, delimiter=",", ndmin=2)
        if rows.shape[1] != len(header):
            raise ValueError(f"{len(header)} columns in the header, and {rows.shape[1]} in the rows")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if not len(rows):
        raise ValueError(f"{path} holds no rows yet")
    return dict(zip(header, rows.T, strict=True))


def save_policies(run: Path, params: Any) -> None:
    """Write the network parameters of every run, leaves `[num_runs, ...]`."""
    from orbax.checkpoint import v1 as ocp  # 0.7 s to import

    with as_utf8(run) as path:
        ocp.save(path / POLICIES, params)


def load_policies(run: Path, abstract: Any) -> Any:
    """Read what `save_policies` wrote.

    Args:
      run: the run folder.
      abstract: a pytree of NumPy arrays with the shapes and dtypes that were saved; their values are not read.

    Raises:
      ValueError: if there are no policies, or they are damaged or have other shapes.
    """
    from orbax.checkpoint import v1 as ocp

    path = run / POLICIES
    if not path.is_dir():
        raise ValueError(f"{run} holds no policies: the run did not finish")
    try:
        with as_utf8(run) as absolute:
            params = ocp.load(absolute / POLICIES, abstract)
    except Exception as error:  # orbax raises what its parts do: JSON's, tensorstore's, its own
        raise ValueError(f"{path} is damaged, or of another configuration ({str(error).splitlines()[0]})") from error
    shapes = [[np.shape(x) for x in jax.tree.leaves(tree)] for tree in (params, abstract)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{path} and {run / CONFIG} do not belong together: the policies have shapes {shapes[0]}, not {shapes[1]}"
        )
    return params
