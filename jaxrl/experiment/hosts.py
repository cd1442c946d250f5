"""Several processes, on one or more hosts, as one program of `jax.distributed`.

What they tell each other here goes through the service by which they are connected already. Collectives of JAX would need more of
the network: on a CPU they connect to the addresses of the hosts' own names, which is 127.0.1.1 by default on Debian.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jax._src import distributed  # the service that connects the processes has no public interface

# A process that does not answer for this long counts as dead, and ends the others: the default of JAX is 100.
_HEARTBEAT_SECONDS = 30
_MOST_SECONDS_TO_CONNECT = 300  # as JAX
_MOST_MILLISECONDS = 30 * 60 * 1000  # that a process waits for the others; those that have died end it before


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    local_device_ids: Sequence[int] | None = None,
) -> tuple[int, int]:
    """Connect this process with the others of its job; call it first, in every process.

    On a TPU pod, under SLURM, Open MPI, and in Kubernetes (a JobSet or an indexed Job), JAX finds all arguments itself. Elsewhere
    pass them, or set the environment variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. If a process dies,
    the others end within a minute.

    Args:
      coordinator_address: host and port of process 0, such as "10.0.0.1:1234".
      num_processes: the number of processes.
      process_id: the number of this process, from 0.
      local_device_ids: the GPUs of its host that this process uses, by their numbers. By default those that the environment
        variable JAX_LOCAL_DEVICE_IDS names, such as "0,1"; without it, all. Where SLURM or Open MPI start several processes on
        a host, the default of JAX applies: each of them uses one GPU.

    Returns:
      The number of this process, from 0, and the number of processes.

    Raises:
      ValueError: if an argument is missing and not found, or if JAX has already started. With an address that is given: if it is
        not of the form HOST:PORT, process 0 cannot listen at that port, or the others do not reach it within five minutes. If
        another process does not come within that time, JAX ends this one.
    """
    number = lambda name: int(os.environ[name]) if name in os.environ else None
    try:
        arguments = (
            os.environ.get("JAX_COORDINATOR_ADDRESS") if coordinator_address is None else coordinator_address,
            number("JAX_NUM_PROCESSES") if num_processes is None else num_processes,
            number("JAX_PROCESS_ID") if process_id is None else process_id,
        )
        if None not in arguments and "JAX_COORDINATOR_BIND_ADDRESS" not in os.environ:  # by which JAX listens elsewhere
            _check_address(str(arguments[0]), is_first=arguments[2] == 0)
        jax.distributed.initialize(
            *arguments,
            local_device_ids=_all_devices() if local_device_ids is None else local_device_ids,
            cluster_detection_method="deactivate" if None not in arguments else None,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:  # RuntimeError: the backend runs already, or the coordinator is not there
        raise ValueError(
            f"cannot connect with the other processes ({str(error).splitlines()[0]}): outside of SLURM, TPU pods, Open MPI and "
            "Kubernetes, set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    return jax.process_index(), jax.process_count()


def _check_address(address: str, *, is_first: bool) -> None:
    """Raise ValueError unless process 0 can listen at the address and the others reach it, for which they wait five minutes.

    JAX would end the process, without a word of the address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"the address of process 0 must be HOST:PORT, such as 10.0.0.1:1234; got {address!r}")
    try:
        if is_first:
            socket.create_server(("", int(port))).close()
        else:
            _wait_for(host.strip("[]"), int(port))
    except OSError as error:
        what = f"process 0 cannot listen at port {port}" if is_first else f"process 0 does not answer at {address}"
        raise ValueError(f"{what}: {error}") from error


def _wait_for(host: str, port: int) -> None:
    limit = time.monotonic() + _MOST_SECONDS_TO_CONNECT
    while True:
        try:
            return socket.create_connection((host, port), timeout=5).close()
        except OSError:  # it may not have begun to listen, and in Kubernetes a name may be new
            if time.monotonic() > limit:
                raise
            time.sleep(0.5)


def _all_devices() -> list[int] | None:
    """What JAX takes for all devices of the host, or None for its own default: under SLURM and Open MPI, one for each process."""
    variables = os.environ.get
    if variables("JAX_LOCAL_DEVICE_IDS"):
        return None
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in os.environ:  # first, since mpirun may run within a job of SLURM
        alone = variables("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
    else:  # each node of a step has a process; outside of SLURM, both are missing
        alone = variables("SLURM_STEP_NUM_TASKS") == variables("SLURM_STEP_NUM_NODES")
    return [] if alone else None


def wait_for_all(what: str) -> None:
    """Wait until every process has come to this point, which all call `what`.

    Raises:
      ValueError: if that takes more than half an hour.
    """
    with _in_time(what):
        _service().wait_at_barrier(f"jaxrl/{what}", _MOST_MILLISECONDS)


def from_first(what: str, number: int) -> int:
    """The number that process 0 passes; all processes call this, once for each `what`.

    Raises:
      ValueError: if process 0 does not pass it within half an hour.
    """
    key = f"jaxrl/{what}"
    if distributed.global_state.process_id == 0:
        _service().key_value_set(key, str(number))
        return number
    with _in_time(what):
        return int(_service().blocking_key_value_get(key, _MOST_MILLISECONDS))


def _service() -> Any:
    return distributed.global_state.client


@contextlib.contextmanager
def _in_time(what: str) -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"waited for the other processes ({what}), and they did not come: {reason}") from error
