"""The lock of a run folder: one process at a time. The system releases it when the process ends, in whatever way."""

import contextlib
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # not on Windows, where a folder is not locked
    fcntl: Any = None  # type: ignore[no-redef]

LOCK = "lock"


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run folder. The lock of a dead process is not in the way.

    Raises:
      ValueError: if another process holds it, which the error names, or the folder cannot be written.
    """
    try:
        file = _acquire(run / LOCK)
    except OSError as error:
        raise ValueError(f"cannot write to {run} ({error.strerror})") from error
    if file is None:
        raise ValueError(f"{run} is in use by {holder(run) or 'another process'}")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (run / LOCK).unlink()
        file.close()


def holder(run: Path) -> str | None:
    """The process that holds the lock of a run folder, such as "process 123 on host-a"; None if none does."""
    path = run / LOCK
    try:
        with path.open() as file:
            if fcntl is not None and _try_lock(file, shared=True):
                return None
            return file.read().strip() or "another process"
    except OSError:
        return None


def _acquire(path: Path) -> IO[str] | None:
    """Open and lock the file, and write into it who holds it; None if another process does."""
    while True:
        file = path.open("a+")
        if not (_try_lock(file) or _try_lock_again(file)):
            file.close()
            return None
        # Whoever held it may have removed the file between our opening and locking it: then it is not the one in the folder.
        try:
            current = path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            current = False
        if current:
            try:
                file.truncate(0)
                file.write(f"process {os.getpid()} on {platform.node()}\n")
                file.flush()
            except OSError:  # the disk is full, as closing the file would say too
                with contextlib.suppress(OSError):
                    file.close()
                path.unlink()
                raise
            return file
        file.close()


def _try_lock_again(file: IO[str]) -> bool:
    """After a moment: `holder` locks the file while it looks."""
    time.sleep(0.1)
    return _try_lock(file)


def _try_lock(file: IO[str], *, shared: bool = False) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
