"""Paths for libraries that take only text in UTF-8, and for a shell."""

import contextlib
import os
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def as_utf8(folder: Path) -> Iterator[Path]:
    """The absolute path of a folder, or, if it is not valid UTF-8, that of a temporary link to it."""
    folder = folder.absolute()
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="jaxrl-") as temporary:
            link = Path(temporary) / "folder"
            os.symlink(folder, link, target_is_directory=True)
            yield link
    else:
        yield folder


def quoted(path: Path) -> str:
    """A path as a word of a shell command."""
    return shlex.quote(str(path))
