"""Compile a function of one seed into a program of several, and record compile time and memory."""

import json
import math
import os
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
    """An implementation that is ready to run."""

    inputs: Callable[[int], Any]  # (n) -> inputs of the n-th run, made outside the timed part
    run: Callable[[Any], int]  # (inputs) -> number of updates that the run counted; blocks until it ends
    facts: dict  # fields of the row other than times


def cpu_seconds() -> float:
    """CPU time of all threads of this process, and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def peak_memory() -> int:
    """Peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def lay_out(fn: Callable[[Any], Any], seeds: int, layout: str) -> Callable[[Any], Any]:
    """Map `fn` over a leading axis: "vmap" is `vmap`, or `fn` itself for one seed; "vectorize" is `jaxrl.vectorize`."""
    if layout == "vectorize":
        return jaxrl.vectorize(fn)
    if seeds > 1:
        return jax.vmap(fn)
    return lambda x: fn(jax.tree.map(lambda leaf: leaf[0], x))


def keys_of(seeds: int) -> Callable[[int], jax.Array]:
    """A function that returns the keys of the n-th run, one for each seed."""
    return lambda n: jax.random.split(jax.random.key(n), seeds)


def compiled_job(
    make: Callable[[], Callable[[Any], Any]],
    inputs: Callable[[int], Any],
    workload: Workload,
    layout: str,
    facts: Callable[[], dict],
) -> Job:
    """Build, lower and compile a program, and record the CPU time that this takes and the memory of the program.

    Args:
      make: builds the function of one seed, which returns (number of updates counted, anything else). The time that a
        library takes to construct its objects is part of the compile time.
      inputs: `(n) -> inputs` of the n-th run, with a leading axis of `workload.seeds`.
      layout: see `lay_out`.
      facts: returns further fields of the row. It is called last, since it traces functions, and a second trace is faster.
    """
    example = jax.block_until_ready(inputs(0))
    # `vectorize` sets these options itself, but not inside the `jit` that is lowered here.
    compiler = compiler_options(jax.devices()) if layout == "vectorize" else None
    if "JAXRL_BENCHMARK_OPTIONS" in os.environ:  # set by options.py
        compiler = json.loads(os.environ["JAXRL_BENCHMARK_OPTIONS"])
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
    """The sorted shapes of all weights with more than one axis: equal networks have equal ones in every library."""
    return sorted(sorted(x.shape) for x in jax.tree.leaves(params) if len(x.shape) > 1)


def num_parameters(params: Any) -> int:
    """The number of weights and biases, for networks whose last layers libraries split differently."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def bytes_per_row(tree: Any, rows: int) -> float:
    """Bytes per row of a replay with that many rows, over all of its arrays."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree)) / rows
