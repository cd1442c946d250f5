"""`jaxrl train --distributed`: the parts of a run, each in a process of its own, in a job of several processes.

The process that the job starts only waits. Its child finds the others by `jax.distributed`, and a child of that one trains its
part as `jaxrl train --part` does, with all devices that it sees and without knowing of the others. Runs do not communicate, so
the results have the bits of a run in one process, and a part is continued like any run.

If another process dies, JAX ends the one that is connected with it. The process of the job remains until the training has saved a
checkpoint: in a container, its end would be that of everything in it.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxrl._src.paths import quoted
from jaxrl.experiment import folder, parts
from jaxrl.experiment.config import Config
from jaxrl.experiment.effects import check_effects

_CONNECTED = "JAXRL_CONNECTED"  # set in the environment of the process that finds the others
_BETWEEN_LOOKS = 1.0  # seconds
_FINISHED, _FAILED = 0, -1  # in place of the number of parts
# Linux sends SIGHUP to the child when its parent ends, in whatever way (PR_SET_PDEATHSIG = 1): the child saves and ends.
_CHILD = """
import ctypes, os, runpy, signal, sys
if sys.platform == "linux":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(1, signal.SIGHUP)
    if os.getppid() != int(sys.argv.pop(1)):
        sys.exit("jaxrl: error: the process of the job has ended")
runpy.run_module("jaxrl", run_name="__main__")
"""


def train_parts(command: str, config: Config, out: Path, argv: list[str]) -> int:
    """Train the parts of this process, and let process 0 join all of them.

    Args:
      command: "train" or "resume".
      config: all runs.
      out: the run folder, which all processes share. If it holds parts already, finished ones are kept and others continued,
        with any number of processes.
      argv: the words after the command, which are passed on to the child process of each part.

    Returns:
      The exit code.
    """
    import jax

    jax.config.update("jax_platforms", "cpu")  # the devices are for the process that trains
    if os.environ.pop(_CONNECTED, None):
        return _train_in_job(command, config, out, argv)
    if command == "train":
        check_effects(config, config.preset())  # here, so that a mistake is one line, and nothing is written
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: children of a child that ends become children of this process
    code = _run_child([command, *argv], {_CONNECTED: "1"})
    if code in (128 + signal.SIGABRT, 128 + signal.SIGSEGV):
        text = "the processes of the job are no longer connected"
        print(f"jaxrl: {text}. The same command continues all parts", file=sys.stderr, flush=True)
    if code:
        with contextlib.suppress(ChildProcessError):  # there is no child left
            while True:
                os.wait()  # for a training that saves
    return code


def _train_in_job(command: str, config: Config, out: Path, argv: list[str]) -> int:
    """Find the other processes, train the parts of this one, and let process 0 join all of them."""
    import jax

    from jaxrl.experiment.hosts import from_first, initialize, wait_for_all

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler would not run while JAX waits
    with contextlib.suppress(AttributeError):  # older versions of JAX
        jax.config.update("jax_enable_preemption_service", False)  # it would keep SIGTERM for itself
    process, num_processes = initialize()
    num_parts = from_first("number of parts", _begin(out, config, num_processes) if process == 0 else 0)
    if num_parts in (_FINISHED, _FAILED):
        return 0 if num_parts == _FINISHED else 2
    words = [word for word in argv if word != "--distributed"]
    variables = tpu_variables(_num_tpu_chips()) if num_processes > 1 else {}
    for index in range(process + 1, num_parts + 1, num_processes):
        code = _run_child([command, *words, "--part", f"{index}/{num_parts}"], variables)
        if code:
            text = f"process {process} ends with part {index}/{num_parts}, and the others follow within a minute"
            advice = "" if code == 2 else ". The same command continues all parts"  # 2 is a mistake, which it would repeat
            print(f"jaxrl: {text}{advice}", file=sys.stderr, flush=True)
            os._exit(code)  # at once: a regular end would wait for the others
    paths = [parts.part_folder(out, index, num_parts) for index in range(1, num_parts + 1)]
    while not all(map(folder.is_finished, paths)):
        time.sleep(_BETWEEN_LOOKS)
    wait_for_all("all parts are trained")  # which fails after half an hour, so it comes this late
    jax.distributed.shutdown()  # it would wait for process 0 for five minutes
    if process > 0:
        return 0
    code = _run_child(["merge", str(out), *(word for word in words if word in ("-q", "--quiet"))], variables)
    if code:
        print(f"jaxrl: the parts are not joined: `jaxrl merge {quoted(out)}` joins them", file=sys.stderr, flush=True)
    return code


def _begin(out: Path, config: Config, num_processes: int) -> int:
    """The number of parts, or what there is instead, which is printed."""
    try:
        if parts.is_finished(out, config):
            print(f"{out} is finished: there is nothing to train")
            return _FINISHED
        return parts.begin(out, config, num_processes)
    except (ValueError, TypeError) as error:
        print(f"jaxrl: error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
        return _FAILED


def _run_child(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command of jaxrl in a child process, and return its exit code. It gets the signals of this process, once each."""
    parent = [str(os.getpid())] if sys.platform == "linux" else []
    received: list[int] = []
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]

    def pass_on(number: int, _: object) -> None:
        received.append(number)
        child.send_signal(number)

    # In a session of its own, so that a terminal's Ctrl-C comes to it from here alone.
    child = subprocess.Popen([sys.executable, "-c", _CHILD, *parent, *words], env=os.environ | variables, start_new_session=True)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received and code <= 0:
        return 128 + received[0]
    return code if code >= 0 else 128 - code  # ended by a signal


def tpu_variables(chips: int) -> dict[str, str]:
    """The variables by which a child process uses the TPU chips of its host alone, as if they were no part of a pod.

    Without them, the TPU runtime waits until a process on every host of the pod has started it.
    """
    bounds = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}.get(chips)
    if bounds is None:  # no TPU, or one that is unknown
        return {}
    return {
        "TPU_SKIP_MDS_QUERY": "1",  # the metadata of the machine describe the pod
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "TPU_CHIPS_PER_PROCESS_BOUNDS": os.environ.get("TPU_CHIPS_PER_PROCESS_BOUNDS", bounds),
        "TPU_VISIBLE_CHIPS": ",".join(map(str, range(chips))),
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "CLOUD_TPU_TASK_ID": "0",
    }


def _num_tpu_chips() -> int:
    try:
        from jax._src.hardware_utils import num_available_tpu_chips_and_device_id
    except ImportError:  # it is private to JAX
        return 0
    return num_available_tpu_chips_and_device_id()[0]
