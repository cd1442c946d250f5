"""CSV files that rows are appended to during a run, and that are cut back to a position when it is resumed."""

import csv
import io
import os
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl.experiment.notes import Note
from jaxrl.experiment.storage import crc32, reason


class Position(NamedTuple):
    """The part of a file that a checkpoint knows."""

    size: int  # bytes
    crc32: int  # of these bytes


class CsvFile:
    """A CSV file to which rows are appended; the first row determines the header.

    Rows that cannot be written, for example because the disk is full, are kept and tried again with the next ones.

    Args:
      path: the file.
      position: where to go on: what follows in the file is cut off. By default the file is new.

    Raises:
      ValueError: if the file does not begin with what `position` says, or cannot be written.
    """

    def __init__(self, path: Path, position: Position | None = None):
        self.path = path
        self.position = Position(0, 0)
        self._pending = b""
        self._columns: list[str] | None = None
        self._noted = False
        try:
            if position is None or position.size == 0:
                self._file = path.open("wb", buffering=0)
                return
            check_position(path, position)
            self._file = path.open("r+b", buffering=0)
            self._file.truncate(position.size)
            self._columns = next(csv.reader([self._file.readline().decode()]))
            self._file.seek(position.size)
            self.position = position
        except OSError as error:
            raise ValueError(f"cannot write {path} ({reason(error)})") from error

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows. One that cannot be written yet gives a note, once."""
        text = io.StringIO(newline="")
        for row in rows:
            if self._columns is None:
                self._columns = list(row)
                csv.writer(text).writerow(self._columns)
            csv.DictWriter(text, self._columns).writerow(row)
        self._pending += text.getvalue().encode()
        try:
            self._write_pending()
        except OSError as error:
            if not self._noted:
                warnings.warn(
                    f"cannot write {self.path} ({reason(error)}): its rows are kept in memory and tried again", Note, stacklevel=2
                )
            self._noted = True

    @property
    def end(self) -> Position:
        """The position after all rows, also those that are not written yet."""
        return Position(self.position.size + len(self._pending), zlib.crc32(self._pending, self.position.crc32))

    def flush(self) -> Position:
        """Write everything to the disk and return the position there. Raises OSError if that fails."""
        self._write_pending()
        os.fsync(self._file.fileno())
        return self.position

    def _write_pending(self) -> None:
        pending = memoryview(self._pending)
        try:
            while pending:
                pending = pending[self._file.write(pending) :]
        except OSError:
            self._file.truncate(self.position.size)  # no half rows
            self._file.seek(self.position.size)
            raise
        self.position = self.end
        self._pending = b""

    def __enter__(self) -> "CsvFile":
        return self

    def __exit__(self, kind: type | None, *exc: Any) -> None:
        try:
            if kind is None:
                self._write_pending()
        except OSError as error:
            raise ValueError(f"cannot write {self.path} ({reason(error)})") from error
        finally:
            self._file.close()


def check_position(path: Path, position: Position) -> None:
    """Raise ValueError unless the file begins with `position.size` bytes of that checksum."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ValueError(f"{path} was removed") from None
    if size < position.size:
        raise ValueError(f"{path} has only {size:,} of {position.size:,} bytes")
    if crc32(path, position.size) != position.crc32:
        raise ValueError(f"{path} was altered")


def position_at_end(path: Path) -> Position:
    """The position after all of a file."""
    size = path.stat().st_size
    return Position(size, crc32(path, size))
