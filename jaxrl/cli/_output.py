"""Standard output that takes any text and may be closed at any time, without harm to the work of a command."""

import codecs
import errno
import io
import os
import sys
from typing import Any

_ERRORS = "jaxrl.readable"  # the name of the error handler, for codecs
_ASCII = str.maketrans(
    {
        "–": "-", "—": "-", "−": "-", "‑": "-", "…": "~", "×": "x", "·": "-", "•": "*", "±": "+-", "→": "->", "≤": "<=",
        "≥": ">=", "∞": "inf", "√": "sqrt", "‘": "'", "’": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ",
        "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "θ": "theta", "κ": "kappa", "λ": "lambda",
        "μ": "mu", "µ": "mu", "π": "pi", "σ": "sigma", "τ": "tau",
        **dict.fromkeys("─━═╌┄┈╸╺╴╶", "-"), **dict.fromkeys("│┃║╎┆╏", "|"), **dict.fromkeys("█▓▒▉▊▋▌▍▎▏", "#"),
    }
)  # fmt: skip


def _readable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what the encoding of a stream does not have by ASCII; bytes of a path that is not UTF-8 are themselves."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all("\udc80" <= char <= "\udcff" for char in text):
        return text.encode("utf-8", "surrogateescape"), error.end
    box = "".join("+" if "\u2500" <= char <= "\u257f" and ord(char) not in _ASCII else char for char in text)
    return box.translate(_ASCII).encode("ascii", "replace").decode(), error.end


class _Output(io.TextIOWrapper):
    """A text stream that goes on silently after a write has failed, such as into a pipe whose reader has gone."""

    failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._discard(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        if self.failure is not None:
            raise error  # not even the null device can be written
        self.failure = error
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        super().flush()  # what was left


def set_up_output() -> None:
    """Replace standard output by a stream that writes any text, if need be in ASCII, and survives the end of its reader.

    Standard streams that are closed become the null device: otherwise the next file that is opened takes their place.
    """
    codecs.register_error(_ERRORS, _readable)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors=_ERRORS)
    old: Any = sys.stdout
    if type(old) is io.TextIOWrapper:
        sys.stdout = _Output(old.detach(), old.encoding, _ERRORS, line_buffering=old.line_buffering)


def close_output() -> int:
    """Write what is left, and return the exit code: 1 if some of the output was lost, with a message if no reader has gone."""
    output = sys.stdout
    output.flush()
    failure = getattr(output, "failure", None)
    if failure is not None and failure.errno != errno.EPIPE:
        print(f"jaxrl: error: cannot write the output ({failure.strerror})", file=sys.stderr)
    return int(failure is not None)
