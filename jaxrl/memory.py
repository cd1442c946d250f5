"""How much memory a compiled program takes, how much a device has free, and how many runs therefore go at once."""

from collections.abc import Callable
from typing import Any

import jax
import psutil

_SHARE = 0.9  # of the free memory that a program may plan with: allocators round up, and others want some too


def free_memory(devices: Any) -> int:
    """Bytes free on each of the devices, of the fullest; CPU devices share the machine's."""
    if devices[0].platform == "cpu":
        return psutil.virtual_memory().available // len(devices)
    stats = [device.memory_stats() or {} for device in devices]
    return min(s.get("bytes_limit", 0) - s.get("bytes_in_use", 0) for s in stats)


def memory_of(compiled: jax.stages.Compiled) -> int:
    """Bytes that the program takes on each device: arguments, results and temporaries, what is donated once."""
    m: Any = compiled.memory_analysis()
    return m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes


def fit(compile_for: Callable[[int], jax.stages.Compiled], size: int, devices: Any) -> tuple[int, jax.stages.Compiled]:
    """The program for `size` at once, or for fewer where those do not fit into the devices' free memory.

    Memory grows about linearly with the size, so two compilations find one that fits.

    Raises:
      ValueError: where not even one fits.
    """
    free = int(_SHARE * free_memory(devices))
    while True:
        compiled = compile_for(size)
        needed = memory_of(compiled)
        if needed <= free:
            return size, compiled
        if size == 1:
            raise ValueError(
                f"not even one at a time fits: it takes {_bytes(needed)} on each device, and {_bytes(free)} are free"
            )
        size = max(1, min(size - 1, size * free // needed))


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1024:.1f} KiB"
