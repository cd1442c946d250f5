"""Parsing of command-line options, with one-line errors."""

import argparse
import contextlib
import contextvars
import difflib
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from jaxrl._src.signatures import Option


class UsageError(Exception):
    """Invalid input. The message is the one line that the user sees."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UsageError and does not take abbreviations."""

    def __init__(self, command: str, description: str = "", *, positional: str = ""):
        super().__init__(
            f"jaxrl {command}",
            usage=f"%(prog)s {positional} [OPTIONS]".replace("  ", " "),
            description=description,
            allow_abbrev=False,
            exit_on_error=False,
            formatter_class=partial(argparse.HelpFormatter, max_help_position=44),
        )
        # Which words are values although they begin with a hyphen. That of argparse knows -1 and -.5, but not -1e-3 or -inf.
        self._negative_number_matcher = re.compile(r"-(\.?\d|inf(inity)?$|nan$)", re.IGNORECASE)
        self.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")

    def print_help(self, file: Any = None) -> None:
        print(self.format_help(), end="")  # argparse would ignore that the output is closed

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all of `argv`. Options may be spelled with underscores instead of hyphens. Raises UsageError."""
        if _asked_for.get():
            raise AskedFor(self)
        try:
            namespace, unknown = self.parse_known_intermixed_args([_with_hyphens(word) for word in argv])
        except argparse.ArgumentError as error:
            self.error(" ".join(filter(None, (error.argument_name, error.message))))
        if unknown:
            raise UsageError(f"unrecognized arguments: {' '.join(unknown)} ({self._hint(unknown)})")
        return namespace

    def _hint(self, unknown: list[str]) -> str:
        """Name the options that resemble the first unknown one, apart from prefixes like `--hparams.`; or else the help."""
        without_prefix = lambda word: word.removeprefix("--").partition("=")[0].rpartition(".")[2]
        word = next((word for word in unknown if word.startswith("--")), "")
        names = {option: without_prefix(option) for option in self._option_string_actions if option.startswith("--")}
        closest = difflib.get_close_matches(without_prefix(word), set(names.values()), n=1, cutoff=0.7)
        near = [option for option, name in names.items() if name in closest]
        return f"did you mean {' or '.join(near)}?" if near else f"see `{self.prog} --help`"


class AskedFor(Exception):
    """Carries the parser that `parser_of` asks for."""


_asked_for = contextvars.ContextVar("asked_for", default=False)


def parser_of(main: Callable[[list[str]], int], argv: list[str]) -> Parser:
    """The parser that a command makes for the words `argv`, by calling its `main` up to where it parses them."""
    token = _asked_for.set(True)
    try:
        main(argv)
    except AskedFor as answer:
        return answer.args[0]
    finally:
        _asked_for.reset(token)
    raise ValueError(f"{main.__module__} parses nothing for {argv}")


def _with_hyphens(word: str) -> str:
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def integer(text: str) -> int:
    return number(int, text, "give an integer")


def real(text: str) -> float:
    return number(float, text, "give a number")


def assignment(text: str) -> tuple[str, float]:
    """NAME=VALUE as a name with underscores and a number."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"cannot be {text!r}: give NAME=VALUE, such as learning-rate=1e-3")
    return name.replace("-", "_"), real(value)


def add_which_option(parser: argparse.ArgumentParser) -> None:
    """Add the option `policy`: "last" or "best"."""
    parser.add_argument(
        "--policy", default="last", choices=("last", "best"),
        help="the policy after training, or the best one of each run in the evaluations during training (default: last)",
    )  # fmt: skip


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose one policy of a run folder: `seed`, `setting` and `policy`."""
    parser.add_argument("--seed", type=integer, metavar="INT", help="seed of the policy (default: that with the highest return)")
    parser.add_argument(
        "--setting", type=assignment, nargs="+", default=[], metavar="NAME=VALUE", help="values of swept hyperparameters"
    )
    add_which_option(parser)


def output_file(text: str) -> Path:
    """The path of a file to write, which is not a folder."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"cannot be {text!r}: it is a folder, so name a file in it")
    return path


def number(kind: Callable, text: str, hint: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"cannot be {text!r}: {hint}") from None


_CONVERSIONS: dict[type, tuple[Callable, str]] = {int: (integer, "INT"), float: (real, "FLOAT"), str: (str, "TEXT")}


def add_option(parser: Any, prefix: str, option: Option, default: Any, shown_default: Any = None) -> None:
    """Add `--PREFIX.OPTION` to a parser or a group of options.

    Args:
      parser: where to add it.
      prefix: the part before the dot; the destination is "PREFIX.OPTION".
      option: name, type and help text. A tuple takes one or more words; the single word `none` is the empty tuple.
      default: the value if the option is not given.
      shown_default: the default in the help text, by default `default`.
    """
    destination = f"{prefix}.{option.name}"
    flag = "--" + destination.replace("_", "-")
    help = f"{plain(option.help)} (default: {show(default if shown_default is None else shown_default)})".replace("%", "%%")
    if option.type is bool:
        negated = f"--{prefix}.no-{option.name.replace('_', '-')}"
        parser.add_argument(flag, negated, dest=destination, default=default, nargs=0, action=_Switch, help=help)
        return
    convert, metavar = _CONVERSIONS[option.type]
    words = {"nargs": "+", "action": _Tuple} if option.repeated else {}
    parser.add_argument(flag, dest=destination, default=default, type=_or_none(convert) if words else convert, metavar=metavar,
                        help=help, **words)  # fmt: skip


def show(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def plain(text: str) -> str:
    """The text of a docstring without its markup, for the terminal."""
    return text.replace("`", "").removesuffix(".")


def _or_none(convert: Callable) -> Callable:
    return lambda text: None if text == "none" else convert(text)


class _Switch(argparse.Action):
    """Two options, the second of which negates the first."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, option_string == self.option_strings[0])


class _Tuple(argparse.Action):
    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, tuple(value for value in values if value is not None))


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Turn ValueError, TypeError and ImportError of the library into a UsageError, and print each of its notes in one line."""
    from jaxrl.experiment.notes import Note

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", category=Note)
            show_other = warnings.showwarning

            def show_warning(message, category, *args, **kwargs):
                if issubclass(category, Note):
                    print(f"jaxrl: note: {message}", file=sys.stderr, flush=True)
                else:
                    show_other(message, category, *args, **kwargs)

            warnings.showwarning = show_warning
            yield
    except (ValueError, TypeError, ImportError) as error:
        raise UsageError(" ".join(str(error).split())) from error
