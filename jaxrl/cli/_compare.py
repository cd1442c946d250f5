"""`jaxrl compare`"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.cli._parsing import Parser, UsageError, show, user_errors
from jaxrl.cli._set_up import set_up_jax

_MAX_COLUMNS = 8  # settings across the page
_NUMBERS = ("seeds", "IQM", "95 % interval", "median", "worst", "gap")  # columns that are never folded


def parser() -> Parser:
    parser = Parser("compare", "Compare the final policies of run folders: returns, options, and noise.", positional="RUN ...")
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="run folders")
    add_reference(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def main(argv: list[str]) -> int:
    options = parser().parse(argv)
    if not options.runs:
        raise UsageError("name at least one run folder")
    references = parse_references(options.reference)
    set_up_jax()
    from jaxrl.experiment import comparison

    with user_errors():
        found = comparison.compare(options.runs, references)
    if options.json:
        print(json.dumps(_plain(_record(found)), indent=2, allow_nan=False))
    else:
        _print(found)
    return 0


def add_reference(parser: argparse.ArgumentParser) -> None:
    """The option that `compare` and `report` share."""
    parser.add_argument(
        "--reference", nargs=3, action="append", default=[], metavar=("ENV", "LOW", "HIGH"),
        help="returns that become 0 and 1 in scores over several environments, such as those of random actions and the best "
        "known; repeatable (a few environments have defaults)",
    )  # fmt: skip


def parse_references(words: list[list[str]]) -> dict[str, tuple[float, float]]:
    """The references by the name of the environment. Raises UsageError unless they are finite numbers with low < high."""
    references = {}
    for env, *bounds in words:
        try:
            low, high = map(float, bounds)
        except ValueError:
            low = high = math.nan
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise UsageError(f"--reference takes an environment and two numbers, LOW < HIGH; got {' '.join([env, *bounds])}")
        references[env] = low, high
    return references


def _print(found: Any) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from jaxrl._src.tables import print_table
    from jaxrl.experiment.comparison import ADJUSTED, are_adjusted, estimate, sentence

    console = Console()

    def table(title: str, columns: Mapping[str, str], rows: list[list[str]]) -> None:
        shown = Table(title=escape(title), title_justify="left")
        for column, justify in columns.items():
            shown.add_column(escape(column), justify=justify, no_wrap=column in _NUMBERS)  # type: ignore[arg-type]
        for row in rows:
            shown.add_row(*map(escape, row))
        print_table(shown, console)

    for env in dict.fromkeys(entry.config.env_title for entry in found.entries):
        entries = [entry for entry in found.entries if entry.config.env_title == env]
        gap = {"gap": "right"} if all(entry.reference for entry in entries) else {}
        columns = {"run": "left", **dict.fromkeys(_NUMBERS[:-1], "right"), **gap}
        title = f"{env}: return of the final policies" + (", and optimality gap" if gap else "")
        table(title, columns, [_row(entry, bool(gap)) for entry in entries])
    if found.overall:
        titles = ("IQM", "median", "mean", "optimality gap")
        columns = {"algorithm": "left", "seeds": "right", **dict.fromkeys(titles, "right")}
        rows = [[m.method, str(len(m.scores)), *(estimate(x, 2) for x in m[2:])] for m in found.overall]
        table(f"normalised scores over {', '.join(found.envs)} (95 % intervals)", columns, rows)
    _print_differences(found, table)
    for pair in found.pairs:
        console.print(f"• {sentence(pair)}", highlight=False, markup=False)
    if are_adjusted(found.pairs):
        console.print(ADJUSTED, highlight=False)
    for note in found.notes:
        console.print(f"Note: {note}", highlight=False, markup=False)


def _row(entry: Any, gap: bool) -> list[str]:
    found = entry.summary
    interval = "–" if math.isnan(found.low) else f"{found.low:z.2f} … {found.high:z.2f}"
    values = [f"{found.iqm:z.2f}", interval, f"{found.median:z.2f}", f"{found.worst:z.2f}"]
    gaps = [f"{found.optimality_gap:.3f}"] if gap else []
    return [entry.label, str(len(entry.seeds)), *values, *gaps]


def _print_differences(found: Any, table: Any) -> None:
    """The options that all entries have in one table, with the options down and the entries across."""
    from jaxrl.experiment.comparison import MISSING

    if len(found.entries) < 2:
        return
    shared = {name: values for name, values in found.differences.items() if MISSING not in values}
    if shared and len(found.entries) > _MAX_COLUMNS:
        values = {name: list(dict.fromkeys(map(show, row))) for name, row in shared.items()}
        rows = [[name, str(len(row)), ", ".join(row[:20]) + (" …" if len(row) > 20 else "")] for name, row in values.items()]
        table("what differs", {"option": "left", "number": "right", "values": "left"}, rows)
    elif shared:
        columns = {"option": "left", **{entry.label: "right" for entry in found.entries}}
        table("what differs", columns, [[name, *map(show, values)] for name, values in shared.items()])
    elif not found.differences:
        print("The configurations do not differ.")
    if others := len(found.differences) - len(shared):
        print(f"{others} more options exist for some of these algorithms only; --json and `jaxrl report` list them.")


def _record(found: Any) -> dict[str, Any]:
    from jaxrl.experiment.comparison import sentence

    return {
        "entries": [
            {
                "label": entry.label,
                "run": str(entry.run),
                "algorithm": entry.config.settings.algorithm,
                "env": entry.config.env_title,
                "sweep": entry.combination,
                "env_steps": entry.env_steps,
                "source": entry.source,
                **entry.summary._asdict(),
                "seeds": entry.seeds,
                "returns": entry.returns,
            }
            for entry in found.entries
        ],
        "overall": {"envs": found.envs, "methods": [method._asdict() for method in found.overall]},
        "differences": found.differences,
        "pairs": [
            {**pair._asdict(), "improvement": pair.improvement._asdict(), "sentence": sentence(pair)} for pair in found.pairs
        ],
        "notes": found.notes,
    }


def _plain(value: Any) -> Any:
    """JSON values: arrays become lists, NaN null and infinity a string."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
