"""`jaxrl agents`"""

import json
import math
from collections.abc import Iterator
from typing import Any

from jaxrl.cli._parsing import Parser, plain, show


def main(argv: list[str]) -> int:
    parser = Parser("agents", "List the agents, their options and hyperparameters, with the defaults that no preset changes.")
    parser.add_argument("--json", action="store_true", help="print a JSON list; infinite defaults are strings")
    options = parser.parse(argv)
    from jaxrl.algorithms import ALGORITHMS

    if options.json:
        print(json.dumps([_as_json(algorithm) for algorithm in ALGORITHMS.values()], indent=2))
        return 0
    from rich.markup import escape
    from rich.table import Table

    from jaxrl._src.tables import print_table

    for algorithm in ALGORITHMS.values():
        table = Table(title=f"{algorithm.name}: actions {algorithm.actions}", title_justify="left")
        table.add_column("option", no_wrap=True)
        table.add_column("default")
        table.add_column("description")
        for name, default, text in _rows(algorithm):
            table.add_row(name, show(default), escape(plain(text)))
        print_table(table)
    return 0


def _as_json(algorithm: Any) -> dict[str, Any]:
    value = lambda x: str(x) if isinstance(x, float) and not math.isfinite(x) else x
    options = [{"option": name, "default": value(default), "help": plain(text)} for name, default, text in _rows(algorithm)]
    return {"algorithm": algorithm.name, "title": algorithm.title, "actions": algorithm.actions, "options": options}


def _rows(algorithm: Any) -> Iterator[tuple[str, Any, str]]:
    """Each option with its default and its description."""
    from jaxrl.presets import SIZES, default_settings, options_of_agent

    settings = default_settings(algorithm.name)
    for options, values in (
        (SIZES, vars(settings)),
        (options_of_agent(algorithm), settings.agent),
        (algorithm.network_options, settings.network),
    ):
        for option in options:
            yield f"--agent.{option.name.replace('_', '-')}", values[option.name], option.help
    for name, default in settings.hparams.items():
        yield f"--hparams.{name.replace('_', '-')}", default, algorithm.hparams_help.get(name, "")
