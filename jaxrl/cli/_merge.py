"""`jaxrl merge`"""

from pathlib import Path

from jaxrl.cli._parsing import Parser, user_errors
from jaxrl.cli._set_up import set_up_jax


def main(argv: list[str]) -> int:
    parser = Parser("merge", "Join the parts of a run folder, which `jaxrl train --part` has trained.", positional="RUN")
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder whose parts are all finished")
    options = parser.parse(argv)
    set_up_jax()
    return join(options.run)


def join(run: Path) -> int:
    """Join the parts of a run folder, and return the exit code."""
    from jaxrl.experiment import merge

    with user_errors():
        config = merge(run)
    print(f"{run}: {config.num_runs} runs joined")
    return 0
