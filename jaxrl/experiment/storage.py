"""Folders of arrays and JSON with checksums, written atomically: policies, checkpoints and states. Loading runs no code.

A folder appears under its name only when all of it is on the disk. `checksums.json` holds the CRC-32 of every other file, so that
a torn, shortened or altered folder is recognised before anything is made of it.
"""

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from jaxrl._src.paths import as_utf8

ARRAYS, RECORD, CHECKSUMS = "arrays", "record.json", "checksums.json"


class Damaged(ValueError):
    """A folder that is not what was written."""


class Other(ValueError):
    """A folder of other arrays than those asked for."""


def write(path: Path, arrays: Any, record: dict[str, Any]) -> None:
    """Write a new folder. If this fails, nothing is left of it.

    Args:
      path: the folder, which does not exist.
      arrays: a pytree of arrays without typed PRNG keys (`unwrap_keys`). They are written shard by shard: memory does not double.
      record: JSON values, and infinity and NaN.

    Raises:
      OSError: if it cannot be written, for example because the disk is full.
    """
    from orbax.checkpoint import v1 as ocp  # 0.7 s to import

    unfinished = path.with_name(f"{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    try:
        unfinished.mkdir(parents=True)
        context = ocp.Context()
        context.array.saving.use_compression = False  # it takes more time than writing, and buffers as large as the arrays
        if jax.tree.leaves(arrays):
            with context, _without_logging(), as_utf8(unfinished) as folder:
                ocp.save(folder / ARRAYS, arrays)
        _write_json(unfinished / RECORD, {"arrays": _shapes(arrays), **to_json(record)})
        _write_json(unfinished / CHECKSUMS, {str(p.relative_to(unfinished)): crc32(p) for p in _files(unfinished)})
        os.rename(unfinished, path)
        _sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, Exception) and not isinstance(error, OSError):  # orbax raises what its parts do
            full = os.strerror(errno.ENOSPC)
            raise (OSError(errno.ENOSPC, full) if full in str(error) else OSError(0, _first_line(error))) from error
        raise


def read_record(path: Path) -> dict[str, Any]:
    """The record of a folder, after checking every file of it. Raises Damaged."""
    try:
        checksums = json.loads((path / CHECKSUMS).read_text())
        if RECORD not in checksums:
            raise Damaged(f"{path} is damaged ({CHECKSUMS} is incomplete)")
        for name, expected in checksums.items():
            if crc32(path / name) != expected:
                raise Damaged(f"{path} is damaged ({name} was altered)")
        return from_json(json.loads((path / RECORD).read_text()))
    except FileNotFoundError as error:
        raise Damaged(f"{path} is damaged (there is no {Path(error.filename).relative_to(path)})") from error
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, AttributeError, TypeError) as error:
        if isinstance(error, Damaged):
            raise
        raise Damaged(f"{path} is damaged ({CHECKSUMS} is not what was written)") from error


def read_arrays(path: Path, abstract: Any) -> Any:
    """The arrays of a folder that `read_record` has checked.

    Args:
      path: the folder.
      abstract: a pytree with the shapes and dtypes that were written: NumPy arrays, or `jax.ShapeDtypeStruct` with a sharding,
        which is where they are read to.

    Raises:
      Other: if they have other shapes, dtypes or names.
    """
    written = json.loads((path / RECORD).read_text())["arrays"]
    for name, expected in (dict.fromkeys(written) | _shapes(abstract)).items():
        if written.get(name) != expected:
            found = written.get(name, "none")
            raise Other(f"{path} is of another configuration: it has {found} in place of {expected or 'none'} as {name}")
    if not written:
        return abstract
    from orbax.checkpoint import v1 as ocp

    try:
        with _without_logging(), as_utf8(path) as folder:
            return ocp.load(folder / ARRAYS, abstract)
    except Exception as error:  # orbax raises what its parts do: JSON's, tensorstore's, its own
        raise Damaged(f"{path} is damaged ({_first_line(error)})") from error


def _shapes(arrays: Any) -> dict[str, str]:
    """The dtype and shape of each array by its place in the tree, such as "float32[2,3]"."""
    return {
        jax.tree_util.keystr(place): f"{x.dtype}[{','.join(map(str, x.shape))}]"
        for place, x in jax.tree_util.tree_leaves_with_path(arrays)
    }


@contextlib.contextmanager
def _without_logging() -> Iterator[None]:
    """Orbax logs a traceback of each of its threads before it raises the error."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def reason(error: OSError) -> str:
    """What went wrong, in a few words."""
    return error.strerror or _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def crc32(path: Path, size: int | None = None) -> int:
    """The checksum of a file, or of its first `size` bytes."""
    left = path.stat().st_size if size is None else size
    checksum = 0
    with path.open("rb") as file:
        while left and (block := file.read(min(left, 2**20))):
            checksum, left = zlib.crc32(block, checksum), left - len(block)
    return checksum


def write_json(path: Path, value: Any) -> None:
    """Write a file of JSON values. Raises ValueError that names it if it cannot be written, and leaves nothing of it."""
    try:
        _write_json(path, value)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise ValueError(f"cannot write {path} ({reason(error)})") from error


def _write_json(path: Path, value: Any) -> None:
    with path.open("w") as file:
        file.write(json.dumps(value, indent=2, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_NON_FINITE = ("inf", "-inf", "nan")


def to_json(value: Any) -> Any:
    """Convert to JSON values. Infinity and NaN become strings, which `from_json` reads back."""
    if isinstance(value, dict):
        return {k: to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def from_json(value: Any) -> Any:
    """The inverse of `to_json`."""
    if isinstance(value, dict):
        return {k: from_json(v) for k, v in value.items()}
    if isinstance(value, list):
        return [from_json(v) for v in value]
    return float(value) if value in _NON_FINITE else value
