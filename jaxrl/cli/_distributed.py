"""`jaxrl train --distributed`: the parts of a run, each in a process of its own, in a job of several processes.

The process that the job starts only waits. It finds the others by `jax.distributed`, and a child process trains its part as
`jaxrl train --part` does, with all devices that it sees and without knowing of the others. Runs do not communicate, so the
results have the bits of a run in one process, and a part is continued like any run.
"""

import os
import subprocess
import sys
from pathlib import Path

from jaxrl.experiment.config import Config
from jaxrl.experiment.folder import CONFIG, CURVE
from jaxrl.experiment.parts import division, part_folder

# Linux sends SIGTERM to the child when its parent ends, in whatever way (PR_SET_PDEATHSIG).
_CHILD = """
import ctypes, runpy, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 15)
runpy.run_module("jaxrl", run_name="__main__")
"""


def train_parts(config: Config, out: Path, argv: list[str]) -> int:
    """Train the parts of this process, and let process 0 join all of them.

    Args:
      config: all runs.
      out: the run folder, which all processes share. If it holds parts already, finished ones are kept and others continued,
        with any number of processes.
      argv: the words after `jaxrl train`.

    Returns:
      The exit code.
    """
    import jax

    from jaxrl.experiment.hosts import initialize, wait_for_all

    jax.config.update("jax_platforms", "cpu")  # the devices are for the child
    process, num_processes = initialize()
    num_parts = division(out) or num_processes
    wait_for_all("the division is known")
    for index in range(process + 1, num_parts + 1, num_processes):
        config.part(index, num_parts)  # raises where there are too few runs
        code = _train_part(part_folder(out, index, num_parts), f"{index}/{num_parts}", argv)
        if code:
            message = f"jaxrl: process {process} ends since part {index}/{num_parts} failed; the others follow within a minute"
            print(message, file=sys.stderr, flush=True)
            os._exit(code)  # at once: a regular end would wait for the others
    wait_for_all("all parts are trained")
    return _run_child(["merge", str(out)]) if process == 0 else 0


def _train_part(path: Path, part: str, argv: list[str]) -> int:
    """Train or continue a part in a child process, and return its exit code."""
    if (path / CURVE).is_file():
        return 0
    if (path / CONFIG).is_file():
        words = ["resume", str(path)]
    else:
        words = ["train", *(word for word in argv if word != "--distributed"), "--part", part]
    return _run_child(words)


def _run_child(words: list[str]) -> int:
    """Run a command of jaxrl in a child process, and return its exit code."""
    child = subprocess.Popen([sys.executable, "-c", _CHILD, *words])
    try:
        return child.wait()
    except KeyboardInterrupt:  # the child got it too, and saves what it has
        return child.wait() or 130
