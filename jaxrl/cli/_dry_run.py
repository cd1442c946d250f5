"""The option `--dry-run` of `jaxrl train`."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from jaxrl.cli._parsing import user_errors


def dry_run(config: Any) -> int:
    """Print the configuration as `config.json` holds it, and, to standard error, what its runs will need."""
    from jaxrl._src.device_memory import show_bytes
    from jaxrl.experiment.planning import plan

    with user_errors():
        planned = plan(config)
    with tempfile.TemporaryDirectory() as folder:
        config.save(path := Path(folder) / "config.json")
        print(path.read_text(), end="", flush=True)
    runs = f"{planned.num_runs} run{'s' if planned.num_runs > 1 else ''}"
    lines = [
        f"{runs} of {planned.env_steps:,} environment steps ({planned.num_iterations:,} iterations) on {planned.devices}",
        f"memory: {show_bytes(planned.bytes_per_run)} for each run and {show_bytes(planned.bytes_shared)} for the program, of "
        f"{show_bytes(planned.bytes_usable)} on each device",
        f"at once: {planned.at_once}, so {planned.num_batches} after the other",
    ]
    if not planned.at_once:
        lines[-1] = "at once: none, a single run does not fit; reduce what it stores, such as --agent.capacity"
    elif planned.at_once == planned.num_runs:
        lines[-1] = "at once: all"
    if not planned.bytes_usable:  # an environment on the host
        del lines[1]
    print("\n".join(lines), file=sys.stderr)
    return 0
