"""The memory that a compiled program needs, the free memory of devices, and the number of runs that fit at once."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import psutil

_CGROUP = Path("/sys/fs/cgroup")
_USABLE = 0.9  # share of the free memory that a program may use: allocators round up, and other programs need some too


class DoesNotFit(ValueError):
    """Not even a single run fits into the memory."""


def free_memory(devices: Any) -> int:
    """Free bytes on each of the devices, the minimum over them. CPU devices share the memory of the machine or container."""
    if devices[0].platform == "cpu":
        return min(psutil.virtual_memory().available, *_free_in_container()) // len(devices)
    stats = [device.memory_stats() or {} for device in devices]
    return min(
        s["bytes_limit"] - s["bytes_in_use"] if "bytes_limit" in s else sys.maxsize for s in stats
    )  # not every device tells


def usable_memory(devices: Any) -> int:
    """The bytes on each of the devices that a program may use."""
    return int(_USABLE * free_memory(devices))


def _free_in_container() -> list[int]:
    """Free bytes in the control group of the process, by version 2 and version 1 of the interface; at most one of them exists."""
    free = [sys.maxsize]
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            free.append(int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text()))
    return free


def memory_of(compiled: jax.stages.Compiled) -> int:
    """Bytes that the program needs on each device: arguments, results and temporaries; donated arguments count once."""
    m: Any = compiled.memory_analysis()
    return m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes


def largest_that_fits(
    compile_for: Callable[[int], jax.stages.Compiled], size: int, devices: Any
) -> tuple[int, jax.stages.Compiled]:
    """Compile the program for `size` runs at once, or for fewer if these do not fit into the free memory of the devices.

    Memory grows about linearly with the size, so two compilations usually suffice.

    Args:
      compile_for: function from a size to the compiled program.
      size: the largest size to try.
      devices: those that the program runs on.

    Returns:
      The size and its program.

    Raises:
      DoesNotFit: if not even one run fits.
    """
    free = usable_memory(devices)
    while True:
        compiled = compile_for(size)
        needed = memory_of(compiled)
        if needed <= free:
            return size, compiled
        if size == 1:
            raise DoesNotFit(
                f"not even one at a time fits: it takes {show_bytes(needed)} on each device, and {show_bytes(free)} are free"
            )
        size = max(1, min(size - 1, size * free // needed))


def show_bytes(count: int) -> str:
    """A number of bytes in a unit that suits it."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1024:.1f} KiB"
