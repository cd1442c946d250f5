"""Measure jaxrl, its peers and the floor on the same workloads, in turns: `python benchmarks/run.py`.

Each implementation has its own process, which compiles its program, runs it once, and then waits. The parent lets the processes
of a workload take turns for several rounds, so that other load on the machine affects all of them equally. On a CPU, one workload
is compiled and measured after the other; on an accelerator, all programs of an algorithm are compiled before the first is
measured. The times are written to a row of benchmarks/results/, and RESULTS.md is generated from the rows.
`benchmarks/setup.sh` creates an environment with all peers.
"""

import argparse
import importlib.util
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import tables
from benchmarks.workloads import NAMES, Workload, entries, workloads

ROOT = Path(__file__).resolve().parent.parent
MODULES = {"sb3": "stable_baselines3"}  # of implementations whose package has another name
# A waiting implementation must not occupy the memory of the GPU.
ENVIRONMENT = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "XLA_PYTHON_CLIENT_ALLOCATOR": "platform",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
}


class Worker(NamedTuple):
    implementation: str
    workload: Workload
    process: subprocess.Popen
    log: Path  # its stderr
    row: dict


class Failed(Exception):
    """An implementation exited, timed out, or did not do what was asked."""


def launch(*arguments: str, log: Path, compiler_options: dict | None = None) -> subprocess.Popen:
    """Start a worker. It compiles with these options of XLA, by default those of jaxrl."""
    command, pipe = [sys.executable, "-m", "benchmarks.worker", *arguments], subprocess.PIPE
    options = {} if compiler_options is None else {"JAXRL_BENCHMARK_OPTIONS": json.dumps(compiler_options)}
    with log.open("w") as stderr:
        return subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, cwd=ROOT, env=os.environ | ENVIRONMENT | options
        )


def answer(worker: Worker, timeout: float) -> dict:
    """Read and parse the next line of a worker."""
    if not select.select([worker.process.stdout], [], [], timeout)[0]:
        raise Failed(f"no answer in {timeout:.0f} s")
    line = worker.process.stdout.readline()
    if not line:
        said = worker.log.read_text().strip().splitlines()[-1:]
        raise Failed(" ".join([f"ended with code {worker.process.wait()}", *said])[:300])
    return json.loads(line)


def timed(worker: Worker, number: int, timeout: float) -> dict:
    """Make one run, and check the number of its updates."""
    worker.process.stdin.write(f"{number}\n")
    worker.process.stdin.flush()
    run = answer(worker, timeout)
    expected = worker.workload.gradient_steps
    if run["updates"] != expected:
        raise Failed(f"counted {run['updates']} gradient steps instead of {expected}")
    return run


def check(facts: dict, workload: Workload, ours: dict) -> None:
    """Check that the network has the shapes of jaxrl's, or as many parameters, and the replay the requested size."""
    network = tuple((name, ours.get(name)) for name in ("weights", "parameters"))
    for name, wanted in (*network, ("capacity", workload.capacity)):
        if wanted and facts.get(name, wanted) != wanted:
            raise Failed(f"its {name} is {facts[name]}, expected {wanted}")


def start(implementation: str, workload: Workload, facts: dict, log: Path, compiler_options: dict | None = None) -> Worker:
    """Start a worker for a workload. Its row begins with `facts`, such as the device."""
    row = facts | {
        "implementation": implementation,
        "workload": workload._asdict(),
        "load": os.getloadavg()[0],
        "seconds": [],
        "cpu_seconds": [],
    }
    process = launch(implementation, json.dumps(workload._asdict()), log=log, compiler_options=compiler_options)
    return Worker(implementation, workload, process, log, row)


def attempt(worker: Worker, do: Callable[[], None]) -> None:
    """Apply an action to a worker; if it fails, kill the worker and record the error in its row."""
    if "error" in worker.row:
        return
    try:
        do()
    except (Failed, BrokenPipeError) as error:
        worker.row["error"] = str(error)
        worker.process.kill()
        print(f"  {worker.implementation}: {error}", flush=True)


def start_all(workload: Workload, device: dict, jaxrl_only: bool, logs: Path) -> list[Worker]:
    """Start a process for each implementation of a workload. jaxrl is the first."""
    size = "-".join(map(str, (workload.name, workload.seeds, workload.num_envs, workload.rollout_length, workload.capacity)))
    return [
        start(implementation, its_workload, device, logs / f"{size}-{implementation.replace('/', '-')}")
        for implementation, its_workload in entries(workload, device["platform"], jaxrl_only)
    ]


def measure(workers: list[Worker], options: argparse.Namespace) -> list[dict]:
    """Wait until the implementations of a workload are ready, let them run in turns, and return their rows."""
    workload = workers[0].workload

    def get_ready(worker):
        worker.row.update(answer(worker, options.timeout))
        check(worker.row, worker.workload, workers[0].row)
        timed(worker, 0, options.timeout)
        print(f"  {worker.implementation}: ready", flush=True)

    def run(worker, number):
        told = timed(worker, number, options.timeout)
        for name in ("seconds", "cpu_seconds"):
            worker.row[name].append(told[name])
        worker.row["rss_bytes"] = told["rss_bytes"]

    print(f"{workload.name}: {workload.seeds} seeds, {workload.num_envs} environments, replay of {workload.capacity}", flush=True)
    for worker in workers:
        attempt(worker, partial(get_ready, worker))
    for number in range(1, options.rounds + 1):
        turn = number % len(workers)  # so that no implementation always follows the same one
        for worker in workers[turn:] + workers[:turn]:
            attempt(worker, partial(run, worker, number))
    return [worker.row for worker in workers]


def wait_until_idle(workers: list[Worker], timeout: float) -> None:
    """Wait until every process has compiled its program, or ended: its first reply is ready to be read."""
    end = time.monotonic() + timeout
    for worker in workers:
        select.select([worker.process.stdout], [], [], max(0.0, end - time.monotonic()))


def missing(selected: list[Workload], platform: str) -> set[str]:
    """The peers that are not installed."""
    names = {
        implementation.partition("/")[0] for workload in selected for implementation, _ in entries(workload, platform, False)
    } - {"floor"}
    return {name for name in names if importlib.util.find_spec(MODULES.get(name, name)) is None}


def describe(log: Path) -> dict:
    """The device, and the commit of this clone."""
    told = launch("--describe", log=log).communicate()[0]
    if not told:
        raise SystemExit(log.read_text())
    if not shutil.which("git"):
        return json.loads(told) | {"commit": ""}

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    measured = (".", ":!benchmarks/RESULTS.md", ":!benchmarks/results")  # without the files that measuring writes
    commit = git("describe", "--always") + ("-dirty" if git("status", "--porcelain", "--", *measured) else "")
    return json.loads(told) | {"commit": commit}


def run_all(options: argparse.Namespace, out: Path, logs: Path) -> None:
    """Measure every selected workload, and save the rows of each as soon as it is done."""
    device = describe(logs / "describe")
    selected = [w for w in workloads(device["platform"], options.quick) if w.name in options.only]
    selected = [w for w in selected if not options.seeds or w.name == "rollout" or w.seeds in options.seeds]
    if not options.jaxrl_only and (absent := missing(selected, device["platform"])):
        raise SystemExit(f"{', '.join(sorted(absent))} not installed: run benchmarks/setup.sh, or use --jaxrl-only")
    # On an accelerator, compilation takes most of the time and little of the device: the programs of an algorithm are compiled at
    # once. Each process holds a gigabyte or two of the host's memory, so those of all algorithms are not.
    by_name = [list(group) for _, group in itertools.groupby(selected, key=lambda workload: workload.name)]
    batches = [[workload] for workload in selected] if device["platform"] == "cpu" else by_name
    for batch in batches:
        groups = [start_all(workload, device, options.jaxrl_only, logs) for workload in batch]
        try:
            if device["platform"] != "cpu":
                wait_until_idle([worker for workers in groups for worker in workers], options.timeout)
            for workers in groups:
                tables.save(measure(workers, options), out)
        finally:
            for worker in (worker for workers in groups for worker in workers):
                worker.process.kill()
                worker.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, a few minutes; the rows go to runs/benchmarks")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="only these workloads")
    parser.add_argument("--seeds", nargs="+", type=int, help="only workloads with these numbers of seeds")
    parser.add_argument("--jaxrl-only", action="store_true", help="leave out the peers, but not the floor and gymnax")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each implementation (default: 5)")
    parser.add_argument(
        "--timeout", type=float, default=1_800, help="seconds that an implementation may take to reply (default: 1800)"
    )
    parser.add_argument("--out", type=Path, help="folder for the rows (default: benchmarks/results)")
    options = parser.parse_args()
    out = options.out or (ROOT / "runs" / "benchmarks" if options.quick else tables.RESULTS)
    with tempfile.TemporaryDirectory() as logs:
        run_all(options, out, Path(logs))
    if out == tables.RESULTS:
        tables.main()
    else:
        print(tables.page(tables.load(out)))


if __name__ == "__main__":
    main()
