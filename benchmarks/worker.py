"""A process that runs one implementation at one workload, a run at a time, whenever its parent asks.

`python -m benchmarks.worker CONTESTANT WORK` (a name as in `workloads`, a JSON object) answers with a line of
JSON when it is ready, and one for each line that it reads, the number of a run. `--describe` tells of the
device and ends. What libraries print goes to stderr.
"""

import argparse
import datetime
import importlib
import importlib.metadata
import json
import os
import sys
import time

from benchmarks.workloads import Workload, layout_of

PACKAGES = {"rejax": "rejax", "jaxnasium": "jaxnasium", "sb3": "stable-baselines3", "sbx": "sbx-rl", "gymnax": "gymnax"}
TOO = {"sb3": ["torch", "gymnasium"], "sbx": ["gymnasium"]}


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
    names = (
        ["jaxrl", "jax", "jaxlib"]
        + ([PACKAGES[implementation]] if implementation in PACKAGES else [])
        + TOO.get(implementation, [])
    )
    return {name: importlib.metadata.version(name) for name in names}


def serve(name: str, workload: Workload, replies) -> None:
    implementation, layout = name.partition("/")[0], layout_of(name)
    if layout == "process":
        os.environ["JAX_PLATFORMS"] = "cpu"
    from benchmarks import program  # and with it jax, after what it reads at its import
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
    parser.add_argument("--describe", action="store_true", help="print the device and end")
    options = parser.parse_args()
    # Answers keep the real stdout; everything else that is printed goes to stderr.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if options.describe:
        print(json.dumps(describe()), file=replies, flush=True)
        return
    fields = json.loads(options.workload)
    serve(options.implementation, Workload(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}), replies)


if __name__ == "__main__":
    main()
