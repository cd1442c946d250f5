"""Measure compiler options on a GPU, as compile time and speed: `python benchmarks/options.py`.

Each pair of program and options has its own process. A few compile at a time; when all are ready, they run in turns. Printed are
the CPU seconds to compile, the elapsed seconds, and the µs per iteration of all seeds together, the median of the rounds.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import run
from benchmarks.workloads import dqn, pqn, reinforce, sac

PROGRAMS = {
    "DQN, 16 seeds": dqn(16, 10_000, 5_000),
    "DQN, 1,024 seeds": dqn(1_024, 10_000, 1_000),
    "REINFORCE, 1 seed": reinforce(1, 16, 32, 1_000),
    "PQN, 16 seeds": pqn(16, 60),
    "SAC, 16 seeds": sac(16, 10_000, 2_500),
}
NO_FUSIONS = {"xla_gpu_experimental_enable_fusion_autotuner": False}
GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,DYNAMIC_SLICE_FUSION"
LOOPS = {"xla_gpu_enable_command_buffer": f"{GRAPHS},WHILE,CONDITIONAL"}
CONCURRENT = {"xla_gpu_graph_enable_concurrent_region": True}
OPTIONS = {
    "XLA's defaults": {},
    "no autotuning": {"xla_gpu_autotune_level": 0},
    "fusions not autotuned": NO_FUSIONS,
    "…, and no Triton": NO_FUSIONS | {"xla_gpu_enable_triton_gemm": False},
    "…, and loops in graphs": NO_FUSIONS | LOOPS,
    "…, and concurrent": NO_FUSIONS | CONCURRENT,
    "…, and both": NO_FUSIONS | LOOPS | CONCURRENT,
}


def started(program: str, options: str, log: Path) -> run.Worker:
    """A process that compiles and then waits, and its row."""
    os.environ["JAXRL_BENCHMARK_OPTIONS"] = json.dumps(OPTIONS[options])
    worker = run.start("jaxrl", PROGRAMS[program], {"program": program, "options": options}, log)
    worker.row["wall"] = time.monotonic()
    return worker


def get_ready(worker: run.Worker, timeout: float) -> None:
    worker.row.update(run.answer(worker, timeout))
    worker.row["wall"] = time.monotonic() - worker.row["wall"]
    run.timed(worker, 0, timeout)


def measure(worker: run.Worker, number: int, timeout: float) -> None:
    worker.row["seconds"].append(run.timed(worker, number, timeout)["seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=4, help="programs that compile at once (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each program (default: 5)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a program may take to reply (default: 600)")
    options = parser.parse_args()
    pairs = [(program, name) for name in OPTIONS for program in PROGRAMS]
    workers: list[run.Worker] = []
    with tempfile.TemporaryDirectory() as logs:
        for first in range(0, len(pairs), options.at_once):
            batch = [started(*pair, Path(logs) / str(first + i)) for i, pair in enumerate(pairs[first : first + options.at_once])]
            for worker in batch:
                run.attempt(worker, partial(get_ready, worker, options.timeout))
            workers += batch
        for number in range(1, options.rounds + 1):
            for worker in workers:
                run.attempt(worker, partial(measure, worker, number, options.timeout))
    for worker in workers:
        worker.process.kill()
    for worker in sorted(workers, key=lambda worker: list(PROGRAMS).index(worker.row["program"])):
        row = worker.row
        told = row.get("error") or (
            f"{row['compile_cpu_seconds']:.1f} CPU s, {row['wall']:.1f} s, "
            f"{1e6 * statistics.median(row['seconds']) / worker.workload.updates:.1f} µs"
        )
        print(f"{row['program']}, {row['options']}: {told}", flush=True)


if __name__ == "__main__":
    main()
