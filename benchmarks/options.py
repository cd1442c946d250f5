"""Measure compiler options on a GPU, as compile time and speed: `python benchmarks/options.py`.

Each pair of program and options has its own process. A few compile at a time; when all are ready, they run in turns. Printed are
the CPU seconds to compile, as soon as a program is ready, and after each round the µs per iteration of all seeds together, the
median of the rounds so far. So a time limit leaves what has been measured.
"""

import argparse
import statistics
import sys
import tempfile
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


def get_ready(worker: run.Worker, timeout: float) -> None:
    worker.row.update(run.answer(worker, timeout))
    run.timed(worker, 0, timeout)
    print(f"  {name_of(worker)}: compiled in {worker.row['compile_cpu_seconds']:.1f} CPU s", flush=True)


def measure(worker: run.Worker, number: int, timeout: float) -> None:
    worker.row["seconds"].append(run.timed(worker, number, timeout)["seconds"])


def run_in_turns(workers: list[run.Worker], arguments: argparse.Namespace, logs: Path) -> None:
    """Start the workers of all pairs, a few at a time, and let them take turns. They are added to `workers`."""
    pairs = [(program, options) for options in OPTIONS for program in PROGRAMS]
    for first in range(0, len(pairs), arguments.at_once):
        for number, (program, options) in enumerate(pairs[first : first + arguments.at_once], first):
            facts = {"program": program, "options": options}
            workers.append(run.start("jaxrl", PROGRAMS[program], facts, logs / str(number), OPTIONS[options]))
        for worker in workers[first:]:
            run.attempt(worker, partial(get_ready, worker, arguments.timeout))
    for number in range(1, arguments.rounds + 1):
        for worker in workers:
            run.attempt(worker, partial(measure, worker, number, arguments.timeout))
        print("\n".join([f"after {number} of {arguments.rounds} rounds:", *lines(workers)]), flush=True)


def name_of(worker: run.Worker) -> str:
    return f"{worker.row['program']}, {worker.row['options']}"


def lines(workers: list[run.Worker]) -> list[str]:
    """A line for each worker, those of a program together."""
    in_order = sorted(workers, key=lambda worker: list(PROGRAMS).index(worker.row["program"]))
    return [f"{name_of(worker)}: {result(worker)}" for worker in in_order]


def result(worker: run.Worker) -> str:
    if "error" in worker.row:
        return worker.row["error"]
    microseconds = 1e6 * statistics.median(worker.row["seconds"]) / worker.workload.updates
    return f"{worker.row['compile_cpu_seconds']:.1f} CPU s, {microseconds:.1f} µs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=4, help="programs that compile at once (default: 4)")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each program (default: 5)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that a program may take to reply (default: 600)")
    arguments = parser.parse_args()
    workers: list[run.Worker] = []
    with tempfile.TemporaryDirectory() as logs:
        try:
            run_in_turns(workers, arguments, Path(logs))
        finally:
            for worker in workers:
                worker.process.kill()
                worker.process.wait()


if __name__ == "__main__":
    main()
