"""How much memory a compiled program takes, how much a device has free, and how many runs therefore go at once."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import psutil

_CGROUP = Path("/sys/fs/cgroup")
_SHARE = 0.9  # of the free memory that a program may plan with: allocators round up, and others want some too


class DoesNotFit(ValueError):
    """Not even one run at a time fits into the memory."""


def free_memory(devices: Any) -> int:
    """Bytes free on each of the devices, of the fullest; CPU devices share what the machine, or a container, gives."""
    if devices[0].platform == "cpu":
        return min(psutil.virtual_memory().available, *_free_in_container()) // len(devices)
    stats = [device.memory_stats() or {} for device in devices]
    return min(s["bytes_limit"] - s["bytes_in_use"] if "bytes_limit" in s else sys.maxsize for s in stats)  # or unknown


def _free_in_container() -> list[int]:
    """Bytes that the process's control group leaves, by version 2 and by version 1: at most one of them limits anything."""
    free = [sys.maxsize]
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):  # it is not there, or "max"
            free.append(int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text()))
    return free


def memory_of(compiled: jax.stages.Compiled) -> int:
    """Bytes that the program takes on each device: arguments, results and temporaries, what is donated once."""
    m: Any = compiled.memory_analysis()
    return m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes


def largest_that_fits(
    compile_for: Callable[[int], jax.stages.Compiled], size: int, devices: Any
) -> tuple[int, jax.stages.Compiled]:
    """The program for `size` at once, or for fewer where those do not fit into the devices' free memory.

    Memory grows about linearly with the size, so two compilations find one that fits.

    Raises:
      DoesNotFit: where not even one does.
    """
    free = int(_SHARE * free_memory(devices))
    while True:
        compiled = compile_for(size)
        needed = memory_of(compiled)
        if needed <= free:
            return size, compiled
        if size == 1:
            raise DoesNotFit(
                f"not even one at a time fits: it takes {_bytes(needed)} on each device, and {_bytes(free)} are free"
            )
        size = max(1, min(size - 1, size * free // needed))


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1024:.1f} KiB"
