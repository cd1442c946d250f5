"""The command line, `jaxrl COMMAND`. Invalid input prints one line and exits with code 2."""

import importlib
import os
import sys

from jaxrl.cli._parsing import UsageError

# Each command is `main(argv)` in the module jaxrl.cli._COMMAND.
COMMANDS = {
    "train": "train an agent: many seeds and settings in one program; writes a run folder",
    "resume": "finish a run that was interrupted, from its last checkpoint",
    "eval": "play the policies of a run folder on new episodes",
    "plot": "draw the learning curves of run folders into one picture",
    "render": "film the policies of a run folder",
    "envs": "list the environments and their spaces",
    "agents": "list the agents, their options and hyperparameters",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(argv)
    except UsageError as error:
        print(f"jaxrl: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxrl: interrupted", file=sys.stderr)
        return 130
    except SystemExit as stop:  # the parser has printed its help
        return int(stop.code or 0)


def console() -> None:
    """The entry point of the command `jaxrl`."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the output; do not write the rest at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: jaxrl COMMAND [OPTIONS]\n\n" + "\n".join(f"  {name:8}{text}" for name, text in COMMANDS.items()))
        print("\n`jaxrl COMMAND --help` lists the options of a command.")
        return 0 if argv else 2
    if argv[0] == "--version":
        import jaxrl

        print(f"jaxrl {jaxrl.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        raise UsageError(f"unknown command {argv[0]!r}; there are {', '.join(COMMANDS)}")
    return importlib.import_module(f"jaxrl.cli._{argv[0]}").main(argv[1:])
