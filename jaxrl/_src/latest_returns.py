"""The latest return of each run in a run folder, read from the ends of its files; imports nothing but the standard library."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_GREEDY, _TRAINING = ("evaluation.csv", "return"), ("metrics.csv", "episode_return")
_BLOCK = 2**14  # bytes read at first; a file that needs more is read in blocks that grow


class LatestReturns(NamedTuple):
    returns: dict[tuple[float, ...], float]  # from the values of the identifying columns
    env_steps: int  # of the last row; 0 without rows
    greedy: bool  # whether they are means of greedy episodes rather than of training


def latest_returns(run: Path, names: Sequence[str], num_runs: int, *, max_bytes: int | None = None) -> LatestReturns:
    """The greedy return of each run after its training, or else its latest return in training.

    Args:
      run: a run folder.
      names: the columns that identify a run: "seed" and the swept hyperparameters.
      num_runs: the number of runs of the folder.
      max_bytes: read no more of the end of a file, so that some of the runs may be missing.

    Raises:
      ValueError: if a file has no such columns, or they are not numbers.
    """
    returns, env_steps = _last_means(run / _GREEDY[0], [*names, "env_steps", _GREEDY[1]], num_runs, max_bytes)
    if returns:
        return LatestReturns(returns, env_steps, True)
    return LatestReturns(*_last_known(run / _TRAINING[0], [*names, "env_steps", _TRAINING[1]], num_runs, max_bytes), False)


def _last_means(
    path: Path, columns: Sequence[str], num_runs: int, max_bytes: int | None
) -> tuple[dict[tuple[float, ...], float], int]:
    """The mean for each run over its rows with the largest number of steps. Runs of a batch may be further than others."""
    values: dict[tuple[float, ...], list[float]] = {}
    last: dict[tuple[float, ...], float] = {}
    complete = set()
    for *identifier, steps, value in _backwards(path, columns, max_bytes):
        run = tuple(identifier)
        if steps != last.setdefault(run, steps):
            complete.add(run)
            if len(complete) == num_runs:
                break
        elif not math.isnan(value):
            values.setdefault(run, []).append(value)
    return {run: math.fsum(x) / len(x) for run, x in values.items()}, int(max(last.values(), default=0))


def _last_known(
    path: Path, columns: Sequence[str], num_runs: int, max_bytes: int | None
) -> tuple[dict[tuple[float, ...], float], int]:
    """The last value for each run that is not NaN."""
    returns: dict[tuple[float, ...], float] = {}
    last = 0
    for *identifier, steps, value in _backwards(path, columns, max_bytes):
        last = max(last, int(steps))
        if not math.isnan(value):
            returns.setdefault(tuple(identifier), value)
            if len(returns) == num_runs:
                break
    return returns, last


def _backwards(path: Path, columns: Sequence[str], max_bytes: int | None) -> Iterator[list[float]]:
    """These columns of the rows of a CSV file, from the last to the first. A last row without its end is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        names = file.readline().decode(errors="replace").strip().split(",")
        start = file.tell()
        if names == [""]:
            return
        if missing := [column for column in columns if column not in names]:
            raise ValueError(f"{path} is damaged (it has no column {missing[0]})")
        indices = [names.index(column) for column in columns]
        for row in _lines_backwards(file, start, max_bytes):
            cells = row.split(b",")
            try:
                yield [float(cells[i]) for i in indices]
            except (ValueError, IndexError) as error:
                raise ValueError(f"{path} is damaged ({error})") from error


def _lines_backwards(file, start: int, max_bytes: int | None) -> Iterator[bytes]:
    end = file.seek(0, 2)
    floor = start if max_bytes is None else max(start, end - max_bytes)
    rest, size, complete = b"", _BLOCK, False
    while end > floor:
        begin = max(floor, end - size)
        file.seek(begin)
        lines = (file.read(end - begin) + rest).split(b"\n")
        rest = lines.pop(0)  # its beginning is in the next block
        if not complete and lines:
            lines.pop()  # empty, or without its end
            complete = True
        yield from reversed(lines)
        end, size = begin, 4 * size
    if rest and floor == start and complete:
        yield rest
