"""The machine and the versions with which a run was trained: `system.json`."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path

SYSTEM = "system.json"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "numpy", "scipy")


def describe_system() -> dict[str, str]:
    """Versions, devices, processor and memory. Nothing in it names the machine or its user."""
    import jax
    import psutil

    import jaxrl

    kinds = [device.device_kind for device in jax.local_devices()]
    devices = ", ".join(f"{kinds.count(kind)} × {kind}" for kind in dict.fromkeys(kinds))
    return {
        "jaxrl": jaxrl.__version__,
        "Python": platform.python_version(),
        **{name: version for name in _PACKAGES if (version := _version(name))},
        "devices": devices,
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def write_system(run: Path) -> None:
    """Write `system.json` into a run folder. Raises ValueError if it cannot be written."""
    from jaxrl.experiment import storage

    storage.write_json(run / SYSTEM, describe_system())


def read_system(run: Path) -> dict[str, str]:
    """What `write_system` wrote; empty if there is no such file. Raises ValueError if it is damaged."""
    path = run / SYSTEM
    if not path.is_file():
        return {}
    try:
        return {str(name): str(value) for name, value in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
