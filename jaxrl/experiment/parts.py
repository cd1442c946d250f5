"""An experiment in parts, each trained by a process of its own into a run folder of its own, and joined afterwards.

The parts need no communication: they only write into one folder. `RUN/parts/3-of-8` is an ordinary run folder, and
`RUN/parts/whole.json` the configuration of all of them.
"""

import dataclasses
import functools
import operator
import re
import secrets
import shutil
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxrl._src.paths import quoted
from jaxrl.experiment import curves, folder, storage
from jaxrl.experiment.checkpoints import changed_fields
from jaxrl.experiment.config import Config, load_config
from jaxrl.experiment.csv_file import Position
from jaxrl.experiment.evaluations import EVALUATION
from jaxrl.experiment.folder import PARTS
from jaxrl.experiment.locks import locked
from jaxrl.experiment.policies import abstract_policies
from jaxrl.experiment.system import SYSTEM, read_system

WHOLE = "whole.json"


def part_folder(out: Path, index: int, num_parts: int) -> Path:
    """The run folder of part `index` of a run folder."""
    return out / PARTS / f"{index}-of-{num_parts}"


def is_finished(out: Path, config: Config) -> bool:
    """Whether a folder has all runs of a configuration, joined. Raises ValueError if it has other runs, all finished."""
    if not folder.is_finished(out):
        return False
    if changed := changed_fields(load_config(out).resolved(), config.resolved()):
        raise ValueError(f"{out} holds other runs: {'; '.join(changed.values())}. Choose another folder with --out")
    return True


def begin(out: Path, config: Config, num_parts: int) -> int:
    """Prepare a folder for the parts of a configuration, or check that its parts are those.

    Args:
      out: the run folder, which may hold parts already.
      config: all runs.
      num_parts: into how many parts they are to be divided, if none has begun.

    Returns:
      The number of parts.

    Raises:
      ValueError: if the configuration cannot be divided, or `out` holds another one or has been joined, or cannot be written.
    """
    if (out / folder.CONFIG).exists():
        raise ValueError(f"{out} has a {folder.CONFIG} already: choose another folder with --out")
    num_parts = division(out) or num_parts
    config.part(1, num_parts)
    path = out / PARTS / WHOLE
    try:
        if not path.exists() or (division(out) is None and Config.load(path) != config):
            path.parent.mkdir(parents=True, exist_ok=True)
            new = path.with_name(f"{WHOLE}.{secrets.token_hex(8)}")  # in containers, processes of several hosts have one number
            config.save(new)
            new.replace(path)
    except OSError as error:
        raise ValueError(f"cannot write to {out} ({error.strerror}); choose another folder with --out") from error
    if changed := changed_fields(Config.load(path).resolved(), config.resolved()):
        raise ValueError(f"{out} holds parts of other runs: {'; '.join(changed.values())}. Choose another folder with --out")
    return num_parts


def whole_config(out: Path) -> Config | None:
    """The configuration of all runs of a folder whose parts are not joined; None for any other folder."""
    path = out / PARTS / WHOLE
    return Config.load(path) if path.is_file() and not (out / folder.CONFIG).exists() else None


def merge(out: Path) -> Config:
    """Join the finished parts in `out/parts` to one run folder, `out`, as if one process had trained all of them.

    The rows of `metrics.csv` are in the order of one process that trains all runs at once; `wall_seconds` are those of each part.

    Returns:
      The configuration of all runs.

    Raises:
      ValueError: if there are no parts, one is missing, damaged or not finished, they do not belong together, or `out` has a run
        already.
    """
    paths = _parts(out)
    configs = [load_config(path) for path in paths]
    whole = _joined(out, configs)
    with locked(out):
        if (out / folder.CONFIG).exists():
            raise ValueError(f"{out} has a {folder.CONFIG} already: its parts are joined")
        try:
            _join(out, out / PARTS / "joined", paths, configs, whole)
        except OSError as error:
            raise ValueError(
                f"cannot join the parts in {out} ({storage.reason(error)}): make room and call `jaxrl merge {quoted(out)}` again"
            ) from error
    return whole


def division(out: Path) -> int | None:
    """The number of parts of which `out` has some; None if it has none. Raises ValueError if they are of different divisions."""
    names = [path.parent.name for path in (out / PARTS).glob(f"*-of-*/{folder.CONFIG}")]
    counts = {int(match[1]) for name in names if (match := re.fullmatch(r"\d+-of-(\d+)", name))}
    if len(counts) > 1:
        raise ValueError(f"{out / PARTS} holds parts of different divisions: {', '.join(sorted(names))}")
    return counts.pop() if counts else None


def _parts(out: Path) -> list[Path]:
    """The folders of all parts, in order."""
    num = division(out)
    if num is None:
        raise ValueError(f"{out} has no parts to join: `jaxrl train ALGORITHM --part 1/2 --out {quoted(out)}` trains one")
    found = {i: part_folder(out, i, num) for i in range(1, num + 1)}
    if missing := [f"{i}/{num}" for i, path in found.items() if not folder.is_finished(path)]:
        raise ValueError(
            f"{out} is not complete: not finished are the parts {', '.join(missing)}; `jaxrl resume {quoted(out)}` finishes them"
        )
    return list(found.values())


def _join(out: Path, joined: Path, paths: list[Path], configs: list[Config], whole: Config) -> None:
    """Write the joined run folder to `joined`, then move what is in it to `out`."""
    shutil.rmtree(joined, ignore_errors=True)  # of a process that was killed
    joined.mkdir()
    whole.save(joined / folder.CONFIG)
    _join_table(joined / folder.METRICS, [path / folder.METRICS for path in paths], configs, whole)
    during_training = _join_table(joined / EVALUATION, [path / EVALUATION for path in paths], configs, whole)
    _join_policies(joined, paths, configs, whole, {"evaluation": during_training._asdict()})
    storage.write_json(joined / SYSTEM, _join_systems([read_system(path) for path in paths]))
    curves.draw_run(joined)
    # The configuration comes last: a folder that has it is joined.
    for path in sorted(joined.iterdir(), key=lambda path: path.name == folder.CONFIG):
        if path.is_dir():
            shutil.rmtree(out / path.name, ignore_errors=True)
        path.replace(out / path.name)
    joined.rmdir()


def _joined(out: Path, configs: list[Config]) -> Config:
    """The configuration whose parts these are."""
    first = configs[0]
    sweep = {
        name: list(dict.fromkeys(value for config in configs for value in config.sweep.get(name, ()))) for name in first.sweep
    }
    seeds = sorted({seed for config in configs for seed in range(config.seed, config.seed + config.seeds)})
    whole = dataclasses.replace(first, seed=seeds[0], seeds=len(seeds), sweep=sweep)
    try:
        belong = [whole.part(i, len(configs)) for i in range(1, len(configs) + 1)] == configs
    except ValueError:
        belong = False
    if not belong:
        raise ValueError(f"the parts in {out / PARTS} are of different experiments: their {folder.CONFIG} do not fit together")
    return whole


def _join_policies(out: Path, paths: list[Path], configs: list[Config], whole: Config, of_last: dict[str, Any]) -> None:
    """Write every folder of policies of the parts, in the order of all runs, and so the lists with a value for each run.

    `of_last` is what the record of the last policies says of all runs.
    """
    owner = {_name(run): (part, i) for part, config in enumerate(configs) for i, run in enumerate(config.identifiers())}
    places = [owner[_name(run)] for run in whole.identifiers()]
    for name in sorted({record.parent.name for path in paths for record in path.glob(f"*/{storage.RECORD}")}):
        records = [storage.read_record(path / name) for path in paths]
        policies = [
            storage.read_arrays(path / name, abstract_policies(config)) for path, config in zip(paths, configs, strict=True)
        ]
        record = {key: value for key, value in records[0].items() if key != "arrays"}
        for key, value in record.items():
            if isinstance(value, list):
                record[key] = [records[part][key][i] for part, i in places]
        joined = jax.tree.map(lambda *leaves: np.stack([leaves[part][i] for part, i in places]), *policies)
        storage.write(out / name, joined, record | (of_last if name == folder.POLICIES else {}))


def _join_table(out: Path, paths: Sequence[Path], configs: Sequence[Config], whole: Config) -> Position:
    """Write the rows of CSV files by time, and at a time in the order of the runs; the rows themselves are not changed.

    Returns:
      The position before the rows of the last time.

    Raises:
      ValueError: if a file is not what its part has written.
    """
    order = {_name(run): i for i, run in enumerate(whole.identifiers())}
    tables = [_read_table(path, config) for path, config in zip(paths, configs, strict=True)]
    times = functools.reduce(operator.or_, (table.times for table in tables))
    for path, table in zip(paths, tables, strict=True):
        if table.header != tables[0].header:
            raise _damaged(path, f"it has other columns than {paths[0]}")
        if missing := times - table.times:
            raise _damaged(path, f"it lacks rows at {min(missing):,} environment steps")
    rows = sorted((row for table in tables for row in table.rows), key=lambda row: (row.env_steps, order[row.run]))
    header = tables[0].header  # sorting is stable: episodes stay in their order
    before = b"".join(row.line for row in rows if row.env_steps < rows[-1].env_steps)
    out.write_bytes(header + before + b"".join(row.line for row in rows if row.env_steps == rows[-1].env_steps))
    return Position(len(header + before), zlib.crc32(header + before)) if before else Position(0, 0)


class _Row(NamedTuple):
    env_steps: int
    run: tuple[float, ...]  # from `_name`
    line: bytes


class _Table(NamedTuple):
    header: bytes
    rows: list[_Row]
    times: Counter[int]  # how many rows a run has at each time


def _read_table(path: Path, config: Config) -> _Table:
    """The rows of a CSV file of a part, which must be whole and have each run at each time. Raises ValueError otherwise."""
    if not path.is_file():
        raise _damaged(path, "it is not there")
    header, *lines = path.read_bytes().splitlines(keepends=True) or [b""]
    columns = header.decode(errors="replace").strip().split(",")
    names, rows = config.identifiers()[0], []
    for number, line in enumerate(lines, 2):
        values = dict(zip(columns, line.decode(errors="replace").strip().split(","), strict=False))
        try:
            rows.append(_Row(int(values["env_steps"]), _name({name: values[name] for name in names}), line))
        except (KeyError, ValueError) as error:
            raise _damaged(path, f"line {number} has no run or time") from error
        if line.count(b",") != header.count(b",") or not line.endswith(b"\n"):
            raise _damaged(path, f"line {number} is not whole")
    times: dict[tuple[float, ...], Counter[int]] = {_name(run): Counter() for run in config.identifiers()}
    for row in rows:
        times.setdefault(row.run, Counter())[row.env_steps] += 1
    of_first = next(iter(times.values()))
    if len(times) > config.num_runs or not rows or any(of_run != of_first for of_run in times.values()):
        raise _damaged(path, "it does not have the same rows for each run of the part")
    return _Table(header, rows, of_first)


def _damaged(path: Path, why: str) -> storage.Damaged:
    return storage.Damaged(f"{path} is damaged ({why}); remove the folder of its part and train it again")


def _join_systems(systems: list[dict[str, str]]) -> dict[str, str]:
    """Every value that some part has, in the order of the parts."""
    values: dict[str, dict[str, None]] = {}
    for system in systems:
        for name, value in system.items():
            values.setdefault(name, {})[value] = None
    joined = {name: "; ".join(found) for name, found in values.items()}
    return joined | {"parts": f"{len(systems)}, each trained by a process of its own"}


def _name(identifier: dict[str, Any]) -> tuple[float, ...]:
    """What identifies a run, from numbers or from their text in a file."""
    return tuple(float(identifier[name]) for name in sorted(identifier))
