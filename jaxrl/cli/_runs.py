"""`jaxrl runs`: only the standard library, so that thousands of folders take seconds."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxrl._src.latest_returns import latest_returns
from jaxrl.cli._parsing import Parser, UsageError

_MAX_DEPTH = 4  # of run folders below the folder that is listed
_MAX_BYTES = 2**22  # of the end of a file of metrics
_FINISHED = {"run": ("policies", "curve.png"), "search": ("policies", "search.png")}  # what is there at the end
_WHOLE = Path("parts", "whole.json")  # the configuration of a run whose parts are not joined


def parser() -> Parser:
    parser = Parser("runs", "List run folders, the latest last.", positional="[FOLDER ...]")
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="where run folders are (default: runs)")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse(argv)
    for folder in options.folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
    runs = [describe(run) for folder in options.folders or [Path("runs")] for run in run_folders(folder)]
    runs.sort(key=lambda run: run["changed"])
    if options.json:
        print(json.dumps(runs, indent=2, allow_nan=False))
    elif not runs:
        print(f"no run folders in {', '.join(map(str, options.folders)) or 'runs'}")
    else:
        _print_table(runs)
    return 0


def run_folders(folder: Path, depth: int = 0) -> Iterator[Path]:
    """The run folders in a folder, those in its folders included; the folder itself if it is one."""
    if (folder / "config.json").is_file() or (folder / _WHOLE).is_file():
        yield folder
    elif depth < _MAX_DEPTH:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:  # a folder that cannot be read is not listed
            for name in sorted(entry.name for entry in entries if entry.is_dir()):
                yield from run_folders(folder / name, depth + 1)


def describe(run: Path) -> dict[str, Any]:
    """What the list says about a run folder, as JSON values; the state is "damaged" where its files cannot be read."""
    row: dict[str, Any] = dict.fromkeys(("algorithm", "env", "wrappers", "runs", "steps", "env_steps", "iqm", "returns"))
    row = {"run": str(run), "kind": "run", **row, "state": "damaged", "changed": 0.0}
    joined = (run / "config.json").is_file()
    parts = [run] if joined else sorted(path.parent for path in run.glob("parts/*-of-*/config.json"))
    with contextlib.suppress(OSError):
        row["changed"] = max(path.stat().st_mtime for path in (*parts, run / ("config.json" if joined else _WHOLE)))
    for part in parts:
        with contextlib.suppress(OSError):
            row["changed"] = max(row["changed"], (part / "metrics.csv").stat().st_mtime)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        columns, swept = _columns(json.loads((run / ("config.json" if joined else _WHOLE)).read_bytes()))
        row |= columns
        num_runs = columns["runs"]
        if (run / "search.json").is_file():
            row["kind"] = "search"
        latest = [latest_returns(part, ["seed", *swept], num_runs, max_bytes=_MAX_BYTES) for part in parts]
        row["env_steps"] = min((part.env_steps for part in latest), default=0)
        row["iqm"] = _iqm([value for part in latest for value in part.returns.values()])
        row["returns"] = None if row["iqm"] is None else "greedy" if all(part.greedy for part in latest) else "training"
        row["state"] = _state(run, row["kind"]) if joined else _state_of_parts(parts)
    return row


def _columns(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The columns of the list that a configuration holds, and the names that are swept. Raises an error for a wrong entry."""
    samples, sweep = config.get("samples") or [], config["sweep"]
    columns = {
        "algorithm": _of_type(str, config["settings"]["algorithm"]),
        "steps": _of_type(int, config["settings"]["steps"]),
        "env": _of_type(str, config["env"]),
        "wrappers": [_of_type(str, wrapper) for wrapper in _of_type(list, config["wrappers"])],
        "runs": _of_type(int, config["seeds"]) * math.prod(map(len, sweep.values())) * (len(samples) or 1),
    }
    return columns, [*sweep, *(samples[0] if samples else ())]


def _of_type(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"{value!r} is not of the type {kind.__name__}")
    return value


def _state(run: Path, kind: str = "run") -> str:
    """Finished, running (a process holds the lock), or interrupted."""
    if _is_locked(run / "lock"):
        return "running"
    return "finished" if all((run / part).exists() for part in _FINISHED[kind]) else "interrupted"


def _state_of_parts(parts: Sequence[Path]) -> str:
    """That of a run in parts: running if one of them is, and not joined if all are finished."""
    states = {_state(part) for part in parts}
    complete = {f"{i}-of-{len(parts)}" for i in range(1, len(parts) + 1)} == {part.name for part in parts}
    if "running" in states:
        return "running"
    return "not joined" if complete and states == {"finished"} else "interrupted"


def _is_locked(path: Path) -> bool:
    """Whether a process holds a lock on the file; the system releases that of a dead process."""
    try:
        import fcntl
    except ImportError:  # not on Windows, where folders are not locked
        return False
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _iqm(values: Sequence[float]) -> float | None:
    """The interquartile mean, as `jaxrl.experiment.statistics.iqm`; None without values."""
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    return math.fsum(middle) / len(middle) if middle and math.isfinite(math.fsum(middle)) else None


def _print_table(runs: list[dict[str, Any]]) -> None:
    """Plain columns, one line for each run: a drawn table of thousands takes longer than reading them."""
    number = lambda value, text: "" if value is None else format(value, text)
    rows = [("RUN", "ALGORITHM", "ENVIRONMENT", "RUNS", "STEPS", "IQM", "STATE", "CHANGED")]
    for run in runs:
        wrappers = f" ({', '.join(run['wrappers'])})" if run["wrappers"] else ""
        kind = " (search)" if run["kind"] == "search" else ""
        mark = "*" if run["returns"] == "training" else " "
        changed = time.strftime("%Y-%m-%d %H:%M", time.localtime(run["changed"]))
        rows.append(
            (
                run["run"], f"{run['algorithm'] or ''}{kind}", f"{run['env'] or ''}{wrappers}", number(run["runs"], ""),
                number(run["steps"], ","), number(run["iqm"], "z.2f") + mark, run["state"], changed,
            )
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = range(3, 6)
    for row in rows:
        cells = [
            text.rjust(width) if i in numbers else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
    if any(run["returns"] == "training" for run in runs):
        print("* return in training, where greedy returns are missing")
