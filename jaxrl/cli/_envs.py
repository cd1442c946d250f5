"""`jaxrl envs`"""

import json

from jaxrl.cli._parsing import Parser
from jaxrl.cli._set_up import check_devices


def main(argv: list[str]) -> int:
    parser = Parser("envs", "List the environments, their spaces, and the algorithms with tuned settings for them.")
    parser.add_argument("--json", action="store_true", help="print a JSON list, with the bounds of the spaces")
    options = parser.parse(argv)
    check_devices()
    from jaxrl import envs, presets
    from jaxrl._src.space_json import space_to_json

    made = [(name, envs.make(name)) for name in envs.names()]
    tuned = {name: [algorithm for algorithm, tuned_env in presets.PRESETS if tuned_env == name] for name, _ in made}
    if options.json:
        rows = [
            {
                "env": name,
                "observation_space": space_to_json(env.observation_space),
                "action_space": space_to_json(env.action_space),
            }
            | {"presets": tuned[name]}
            for name, env in made
        ]
        print(json.dumps(rows, indent=2))
        return 0
    from rich.console import Console
    from rich.table import Table

    from jaxrl._src.tables import print_table

    table = Table()
    table.add_column("environment", no_wrap=True)
    for column in ("observations", "actions", "presets"):
        table.add_column(column)
    for name, env in made:
        table.add_row(name, str(env.observation_space), str(env.action_space), ", ".join(tuned[name]))
    console = Console()
    print_table(table, console)
    suites = ", ".join(f"{name}/…" for name in envs.SUITES)
    console.print(f"With their extras, by prefix: {suites}; see docs/suites.md", highlight=False)
    return 0
