"""`jaxrl completion`: a script for the shell, which lists everything, so that completing starts no Python."""

import argparse
import importlib
from pathlib import Path
from typing import Any

from jaxrl.cli._parsing import Parser, UsageError, parser_of

_SHELLS = ("bash", "zsh", "fish")
_WHERE = {
    "bash": "~/.local/share/bash-completion/completions/jaxrl",
    "zsh": "a folder of $fpath, as the file _jaxrl",
    "fish": "~/.config/fish/completions/jaxrl.fish",
}


def main(argv: list[str]) -> int:
    where = "; ".join(f"{shell}: {place}" for shell, place in _WHERE.items())
    parser = Parser(
        "completion", f"Print a script that completes commands, algorithms and options. Write it to: {where}.", positional="SHELL"
    )
    parser.add_argument("shell", choices=_SHELLS, help="the shell")
    options = parser.parse(argv)
    try:
        import shtab
    except ImportError as error:
        raise UsageError("completion needs the package shtab: pip install 'jaxrl[completion]'") from error
    print(shtab.complete(_whole_parser(shtab), shell=options.shell))
    return 0


def _whole_parser(shtab: Any) -> argparse.ArgumentParser:
    """All commands in one parser, with those that take an algorithm divided by algorithm."""
    from jaxrl.algorithms import ALGORITHMS
    from jaxrl.cli import COMMANDS
    from jaxrl.envs import names

    envs = names()
    whole = argparse.ArgumentParser("jaxrl")
    whole.add_argument("--version", action="store_true", help="print the version")
    commands = whole.add_subparsers(parser_class=argparse.ArgumentParser)

    def add(parsers: Any, name: str, text: str, parser: Parser) -> None:
        for action in parser._actions:
            _complete(shtab, action, envs)
        parsers.add_parser(name, parents=[parser], add_help=False, help=text)

    for command, text in COMMANDS.items():
        command_main = importlib.import_module(f"jaxrl.cli._{command}").main
        if command in ("train", "tune"):
            parser = commands.add_parser(command, help=text)
            algorithms = parser.add_subparsers(parser_class=argparse.ArgumentParser)
            for name, algorithm in ALGORITHMS.items():
                add(algorithms, name, algorithm.title, parser_of(command_main, [name]))
        else:
            add(commands, command, text, parser_of(command_main, []))
    return whole


def _complete(shtab: Any, action: Any, envs: list[str]) -> None:
    """Say what an argument may be: an environment, a folder, or a file."""
    if "--env" in action.option_strings:
        action.choices = envs
    elif action.type is Path:
        action.complete = shtab.DIRECTORY if action.metavar in ("RUN", "FOLDER") else shtab.FILE
