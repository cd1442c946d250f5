"""The command line, `jaxrl COMMAND`. Invalid input prints one line and exits with code 2."""

import contextlib
import importlib
import os
import sys

from jaxrl.cli._output import close_output, set_up_output
from jaxrl.cli._parsing import UsageError

# Each command is `main(argv)` in the module jaxrl.cli._COMMAND.
COMMANDS = {
    "train": "train an agent: many seeds and settings in one program; writes a run folder",
    "resume": "finish a run that was interrupted, from its last checkpoint",
    "tune": "search hyperparameters: successive halving, random, population-based training, Optuna",
    "merge": "join the parts of a run folder that several processes trained",
    "eval": "play the policies of a run folder on new episodes",
    "compare": "compare run folders: returns with intervals, options, and whether a difference is noise",
    "report": "write a report of run folders: one HTML page that works offline",
    "plot": "draw the learning curves of run folders into one picture",
    "render": "film the policies of a run folder",
    "explain": "draw what a policy of a run folder has learned: values, actions, saliency",
    "export": "write a trained policy as a file that other programs run",
    "runs": "list run folders, with their contents and progress",
    "envs": "list the environments and their spaces",
    "completion": "print a script that completes commands in bash, zsh or fish",
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
    set_up_output()
    code = main()
    sys.exit(close_output() or code)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: jaxrl COMMAND [OPTIONS]\n\n" + "\n".join(f"  {name:12}{text}" for name, text in COMMANDS.items()))
        print("\n`jaxrl COMMAND --help` lists the options of a command.")
        return 0 if argv else 2
    if argv[0] == "--version":
        import jaxrl

        print(f"jaxrl {jaxrl.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        raise UsageError(f"unknown command {argv[0]!r}; there are {', '.join(COMMANDS)}")
    main = importlib.import_module(f"jaxrl.cli._{argv[0]}").main
    if not {"-q", "--quiet"} & set(argv):
        return main(argv[1:])
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return main(argv[1:])
