"""A run folder: `config.json`, `metrics.csv`, `curve.png`, `policies/`. JSON, text and arrays: loading runs no code."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

CONFIG, METRICS, CURVE, POLICIES = "config.json", "metrics.csv", "curve.png", "policies"


def create(path: Path) -> Path:
    """Make the folder. Raises ValueError where it holds something already or cannot be written."""
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"{path} exists and is not an empty folder; choose another with --out, or remove it")
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"cannot write to {path} ({error.strerror}); choose another folder with --out") from error
    return path


class MetricsFile:
    """Rows appended to a CSV file as they come, the header with the first."""

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
    path = run / METRICS
    if not path.is_file():
        raise ValueError(f"{run} is no run folder: it has no {METRICS}")
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: np.array([float(row[name]) for row in rows]) for name in (rows[0] if rows else ())}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if not rows:
        raise ValueError(f"{path} holds no rows yet")
    return columns


def save_policies(run: Path, params: Any) -> None:
    """Write the network parameters of every run, leaves `[num_runs, ...]`."""
    from orbax.checkpoint import v1 as ocp  # 0.7 s to import

    ocp.save((run / POLICIES).absolute(), params)


def load_policies(run: Path, abstract: Any) -> Any:
    """Read them back; `abstract` is a pytree of NumPy arrays of the shapes and dtypes that were saved.

    Raises:
      ValueError: where there are none, or they have other shapes.
    """
    from orbax.checkpoint import v1 as ocp

    path = (run / POLICIES).absolute()
    if not path.is_dir():
        raise ValueError(f"{run} holds no policies: the run did not finish")
    try:
        params = ocp.load(path, abstract)
    except Exception as error:  # orbax raises what its parts do: JSON's, tensorstore's, its own
        raise ValueError(f"{path} is damaged, or of another configuration ({str(error).splitlines()[0]})") from error
    shapes = [[np.shape(x) for x in jax.tree.leaves(tree)] for tree in (params, abstract)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{path} and {run / CONFIG} do not belong together: the policies have shapes {shapes[0]}, not {shapes[1]}"
        )
    return params
