"""The memory that a compiled program needs, the free memory of devices, and the number of runs that fit at once."""

import contextlib
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import jax
import psutil

_CGROUP, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Versions 2 and 1 of the interface to control groups: the folder of the controller, the files with the limit and the memory in
# use, and the entry of memory.stat with the part of it that is a cache of files, which the kernel frees when it is needed.
_INTERFACES = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
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
    """Free bytes by each limit that holds for the control group of this process; at most one of the interfaces exists."""
    free = [sys.maxsize]
    for controller, limit, used, cached in _INTERFACES:
        for group in _groups(controller):
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                in_use = int((group / used).read_text()) - _statistic(group, cached)
                free.append(int((group / limit).read_text()) - in_use)
    return free


def _groups(controller: str) -> list[Path]:
    """The control group of this process with all groups around it. A job of SLURM has its limits somewhere between.

    In a container, the path of the group may be that on the host, where only the first of these folders exists.
    """
    path = ""
    with contextlib.suppress(OSError):  # not on Linux
        entries = [line.split(":", 2) for line in _OWN_GROUPS.read_text().splitlines()]
        path = next((path for _, controllers, path in entries if controller in controllers.split(",")), "")
    names = [name for name in path.split("/") if name not in ("", "..")]
    return list(accumulate(names, Path.joinpath, initial=_CGROUP / controller))


def _statistic(group: Path, name: str) -> int:
    """An entry of memory.stat, or 0 if there is none."""
    with contextlib.suppress(OSError):
        for line in (group / "memory.stat").read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0


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
