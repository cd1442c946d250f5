"""A process that runs one workload with one implementation, whenever its parent requests a run.

`python -m benchmarks.worker IMPLEMENTATION WORKLOAD` (a name as in `workloads`, a JSON object) prints a line of JSON when it is
ready. It then reads run numbers from stdin, one per line, and prints a line of JSON after each run. `--describe` prints the
device and exits. Output of the libraries goes to stderr.
"""

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import sys
import time

import jaxrl
from benchmarks.workloads import Workload, layout_of

PACKAGES = {"rejax": "rejax", "jaxnasium": "jaxnasium", "sb3": "stable-baselines3", "sbx": "sbx-rl", "gymnax": "gymnax"}
DEPENDENCIES = {"sb3": ["torch", "gymnasium"], "sbx": ["gymnasium"]}


def describe() -> dict:
    import jax

    from jaxrl.vectorization import use_all_cores

    use_all_cores()
    first, count = jax.devices()[0], jax.device_count()
    name = cpu_model() if first.platform == "cpu" else f"{count} × {first.device_kind}" if count > 1 else first.device_kind
    return {"platform": first.platform, "device": name, "cores": count if first.platform == "cpu" else os.cpu_count()}


def cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return "CPU"


def versions(implementation: str) -> dict[str, str]:
    """Of jaxrl, which may be on the path and not installed, and of the packages behind an implementation."""
    names = (
        ["jax", "jaxlib"]
        + ([PACKAGES[implementation]] if implementation in PACKAGES else [])
        + DEPENDENCIES.get(implementation, [])
    )
    return {"jaxrl": jaxrl.__version__} | {name: importlib.metadata.version(name) for name in names}


def serve(name: str, workload: Workload, replies) -> None:
    implementation, layout = name.partition("/")[0], layout_of(name)
    if layout == "process":
        os.environ["JAX_PLATFORMS"] = "cpu"
    from benchmarks import program  # imports jax, which reads the environment variables above
    from jaxrl.vectorization import use_all_cores

    if layout == "vectorize":
        use_all_cores()
    job = importlib.import_module(f"benchmarks.implementations.{implementation}").prepare(workload, layout)

    def reply(answer: dict) -> None:
        print(json.dumps(answer), file=replies, flush=True)

    reply(job.facts | {"layout": layout, "versions": versions(implementation), "date": str(datetime.date.today())})
    for line in sys.stdin:
        inputs = job.inputs(int(line))
        start, start_cpu = time.perf_counter(), program.cpu_seconds()
        updates = job.run(inputs)
        times = {"seconds": time.perf_counter() - start, "cpu_seconds": program.cpu_seconds() - start_cpu}
        reply(times | {"updates": updates, "rss_bytes": program.peak_memory()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("implementation", nargs="?")
    parser.add_argument("workload", nargs="?")
    parser.add_argument("--describe", action="store_true", help="print the device and exit")
    options = parser.parse_args()
    # Replies go to the real stdout, and everything else that is printed goes to stderr.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if options.describe:
        print(json.dumps(describe()), file=replies, flush=True)
        return
    fields = json.loads(options.workload)
    serve(options.implementation, Workload(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}), replies)


if __name__ == "__main__":
    main()
