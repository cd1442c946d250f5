"""Several processes, on one or more hosts, as one program of `jax.distributed`."""

import os

import jax

# A process that does not answer for this long counts as dead, and ends the others: the default of JAX is 100.
_HEARTBEAT_SECONDS = 30


def initialize(
    coordinator_address: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> tuple[int, int]:
    """Connect this process with the others of its job; call it first, in every process.

    On a TPU pod, under SLURM, Open MPI, and in Kubernetes (a JobSet or an indexed Job), JAX finds all arguments itself. Elsewhere
    pass them, or set the environment variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID. If a process dies,
    the others end within a minute.

    Args:
      coordinator_address: host and port of process 0, such as "10.0.0.1:1234".
      num_processes: the number of processes.
      process_id: the number of this process, from 0.

    Returns:
      The number of this process, from 0, and the number of processes.

    Raises:
      ValueError: if an argument is missing and not found, or if JAX has already started, or the others cannot be reached.
    """
    number = lambda name: int(os.environ[name]) if name in os.environ else None
    try:
        arguments = (
            os.environ.get("JAX_COORDINATOR_ADDRESS") if coordinator_address is None else coordinator_address,
            number("JAX_NUM_PROCESSES") if num_processes is None else num_processes,
            number("JAX_PROCESS_ID") if process_id is None else process_id,
        )
        jax.distributed.initialize(
            *arguments,
            cluster_detection_method="deactivate" if None not in arguments else None,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:  # RuntimeError: the backend runs already, or the coordinator is not there
        raise ValueError(
            f"cannot connect with the other processes ({str(error).splitlines()[0]}): outside of SLURM, TPU pods, Open MPI and "
            "Kubernetes, set JAX_COORDINATOR_ADDRESS=HOST:PORT, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    return jax.process_index(), jax.process_count()


def wait_for_all(what: str) -> None:
    """Wait until every process has come to this point, which all call `what`, but at most half an hour (with Gloo, on a CPU)."""
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(what)


def from_first(number: int) -> int:
    """The number that process 0 passes; all processes call this."""
    import numpy as np
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))
