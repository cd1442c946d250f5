"""From a function of one seed to a compiled program, with what is known about it."""

import resource
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxrl
from benchmarks.workloads import Workload
from jaxrl.vectorization import compiler_options


class Job(NamedTuple):
    """A implementation ready to run."""

    inputs: Callable[[int], Any]  # of the n-th run: made before the clock starts
    run: Callable[[Any], int]  # to the end; gives the updates that were counted in it
    facts: dict  # what goes into the row beside the times


def cpu_seconds() -> float:
    """Of all threads of this process, and of its children that ended: what one core would have taken."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_memory() -> int:
    """The most memory that this process had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def lay_out(fn: Callable[[Any], Any], seeds: int, layout: str) -> Callable[[Any], Any]:
    """`fn` over a leading axis: "vmap" is `jit(vmap)`, and for one seed plain `jit`; "vectorize" is ours."""
    if layout == "vectorize":
        return jaxrl.vectorize(fn)
    if seeds > 1:
        return jax.vmap(fn)
    return lambda x: fn(jax.tree.map(lambda leaf: leaf[0], x))


def keys_of(seeds: int) -> Callable[[int], jax.Array]:
    """The n-th run's keys, of every seed its own."""
    return lambda n: jax.random.split(jax.random.key(n), seeds)


def compiled_job(
    make: Callable[[], Callable[[Any], Any]],
    inputs: Callable[[int], Any],
    workload: Workload,
    layout: str,
    facts: Callable[[], dict],
) -> Job:
    """Build, lower and compile a program, and say what that took and what memory it will need.

    Args:
      make: builds the function of one seed; it gives (updates counted in it, anything else). What a library
        does while its objects are made is part of its compile time.
      inputs: of the n-th run, over a leading axis of `workload.seeds`.
      layout: see `lay_out`.
      facts: gives what else is known of it; called afterwards, for what it traces would be quicker to trace again.
    """
    example = jax.block_until_ready(inputs(0))
    # `vectorize` asks for these itself; inside the `jit` that is to be looked at it cannot.
    compiler = compiler_options(jax.devices()) if layout == "vectorize" else None
    start = cpu_seconds()
    compiled = jax.jit(lay_out(make(), workload.seeds, layout), compiler_options=compiler).lower(example).compile()
    seconds = cpu_seconds() - start
    memory = compiled.memory_analysis()
    devices = min(jax.device_count(), workload.seeds) if layout == "vectorize" else 1
    parts = ("temp_size_in_bytes", "argument_size_in_bytes", "output_size_in_bytes")
    size = sum(getattr(memory, part) for part in parts) - memory.alias_size_in_bytes

    def run(x):
        updates, rest = compiled(x)
        jax.block_until_ready(rest)
        return int(np.asarray(updates).min())

    known = {"compile_cpu_seconds": seconds, "memory_bytes": devices * size}
    return Job(lambda n: jax.block_until_ready(inputs(n)), run, known | {"env_steps": workload.env_steps} | facts())


def weights(params: Any) -> list[list[int]]:
    """The shapes of all weights of more than one axis, each sorted: equal for equal networks, however they are written."""
    return sorted(sorted(x.shape) for x in jax.tree.leaves(params) if len(x.shape) > 1)


def bytes_per_row(tree: Any, rows: int) -> float:
    """Bytes of all arrays of a replay with that many rows, for each row."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) / rows
