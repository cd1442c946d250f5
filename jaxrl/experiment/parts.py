"""An experiment in parts, each trained by a process of its own into a run folder of its own, and joined afterwards.

The parts need no communication: they only write into one folder. `RUN/parts/3-of-8` is an ordinary run folder.
"""

import csv
import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrl.experiment import curves, folder
from jaxrl.experiment.config import Config, load_config
from jaxrl.experiment.policies import abstract_policies

PARTS = "parts"


def part_folder(out: Path, index: int, num_parts: int) -> Path:
    """The run folder of part `index` of a run folder."""
    return out / PARTS / f"{index}-of-{num_parts}"


def merge(out: Path) -> Config:
    """Join the finished parts in `out/parts` to one run folder, `out`, as if one process had trained all of them.

    The rows of `metrics.csv` are in the order of one process that trains all runs at once; `wall_seconds` are those of each part.

    Returns:
      The configuration of all runs.

    Raises:
      ValueError: if there are no parts, one is missing or not finished, they do not belong together, or `out` has a run already.
    """
    paths = _parts(out)
    configs = [load_config(path) for path in paths]
    whole = _joined(out, configs)
    wanted = whole.identifiers()
    owner = {_name(run): (part, i) for part, config in enumerate(configs) for i, run in enumerate(config.identifiers())}
    if (out / folder.CONFIG).exists():
        raise ValueError(f"{out} has a {folder.CONFIG} already: its parts are joined")
    policies = [folder.load_policies(path, abstract_policies(config)) for path, config in zip(paths, configs, strict=True)]
    places = [owner[_name(run)] for run in wanted]
    joined = jax.tree.map(lambda *leaves: np.stack([leaves[part][i] for part, i in places]), *policies)
    _join_metrics(out, paths, whole)
    folder.save_policies(out, joined)
    whole.save(out / folder.CONFIG)
    curves.plot(curves.read_curves(out), out / folder.CURVE)
    return whole


def division(out: Path) -> int | None:
    """The number of parts of which `out` has some; None if it has none. Raises ValueError if they are of different divisions."""
    names = [path.name for path in (out / PARTS).glob("*-of-*")]
    counts = {int(match[1]) for name in names if (match := re.fullmatch(r"\d+-of-(\d+)", name))}
    if len(counts) > 1:
        raise ValueError(f"{out / PARTS} holds parts of different divisions: {', '.join(sorted(names))}")
    return counts.pop() if counts else None


def _parts(out: Path) -> list[Path]:
    """The folders of all parts, in order."""
    num = division(out)
    if num is None:
        raise ValueError(f"{out} has no parts to join: `jaxrl train --part 1/2 --out {out}` trains one")
    found = {(i, num): part_folder(out, i, num) for i in range(1, num + 1)}
    missing = [f"{i}/{num}" for i in range(1, num + 1) if not (found[i, num] / folder.POLICIES).is_dir()]
    if missing:
        raise ValueError(f"{out} is not complete: not finished are the parts {', '.join(missing)}")
    return [found[i, num] for i in range(1, num + 1)]


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


def _join_metrics(out: Path, paths: Iterable[Path], whole: Config) -> None:
    order = {_name(run): i for i, run in enumerate(whole.identifiers())}
    names = ["seed", *whole.sweep]
    rows = []
    for path in paths:
        with (path / folder.METRICS).open(newline="") as file:
            rows += list(csv.DictReader(file))
    rows.sort(key=lambda row: (int(row["env_steps"]), order[_name({name: row[name] for name in names})]))
    with (out / folder.METRICS).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _name(identifier: dict[str, Any]) -> tuple[float, ...]:
    """What identifies a run, from numbers or from their text in a file."""
    return tuple(float(identifier[name]) for name in sorted(identifier))
