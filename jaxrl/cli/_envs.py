"""`jaxrl envs`"""

from jaxrl.cli._parsing import Parser
from jaxrl.cli._set_up import check_devices


def main(argv: list[str]) -> int:
    Parser("envs", "List the environments, their spaces, and the algorithms with tuned settings for them.").parse(argv)
    check_devices()
    from rich.console import Console
    from rich.table import Table

    from jaxrl import envs, presets

    table = Table()
    table.add_column("environment", no_wrap=True)
    for column in ("observations", "actions", "presets"):
        table.add_column(column)
    for name in envs.names():
        env = envs.make(name)
        tuned = ", ".join(algorithm for algorithm, tuned_env in presets.PRESETS if tuned_env == name)
        table.add_row(name, str(env.observation_space), str(env.action_space), tuned)
    console = Console()
    console.print(table)
    suites = ", ".join(f"{name}/…" for name in envs.SUITES)
    console.print(f"With their extras, by prefix: {suites}; see docs/suites.md", highlight=False)
    return 0
