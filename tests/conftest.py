"""Strict settings for every test, a compile cache, and the small environments that several files share."""

import gc
import importlib.metadata
import importlib.util
import os
import signal
import tempfile
import threading
import warnings
from pathlib import Path

# In the background of a shell and under nohup, signals are ignored, also by the processes that tests start.
if threading.current_thread() is threading.main_thread():
    for _number, _default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(_number) == signal.SIG_IGN:
            signal.signal(_number, _default)

# Most of the suite's time is compilation. For small programs LLVM's lowest level is as good, and so are XLA's older emitters for
# a CPU, which later versions do not have. Together they take a sixth of the time. Dividing the code of a program among threads
# takes a fifth longer in total, and the workers occupy the cores.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false" * importlib.metadata.version("jaxlib").startswith("0.10.")
)

import jax
import pytest

from tests.devices import EMULATED, emulate_one_device
from tests.precision import emulate_tf32

if not hasattr(jax, "enable_x64"):  # before jax 0.8
    from jax.experimental import enable_x64

    jax.enable_x64 = enable_x64

# Before the backend starts. Several fake devices, so that what is spread over devices is really spread.
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
if os.environ.get("JAXRL_TEST_TF32"):
    emulate_tf32()
if EMULATED:
    emulate_one_device()
_CACHE = Path(os.environ.get("JAXRL_TEST_CACHE", Path(tempfile.gettempdir()) / "jaxrl-test-cache"))
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def pytest_collection_finish():
    """What is there before the first test stays. Going through it for garbage again and again takes a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip tests with the mark `needs` where a package is missing. scripts/test-extras.sh installs them all."""
    packages = [package for mark in item.iter_markers("needs") for package in mark.args]
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        stop = pytest.fail if os.environ.get("JAXRL_TEST_EXTRAS") else pytest.skip
        stop(f"needs {', '.join(missing)}, which scripts/test-extras.sh installs")


@pytest.fixture(scope="session")
def rlax():
    """For tests with the mark `needs("rlax")`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import rlax
    return rlax


@pytest.fixture
def two_devices():
    """Two devices of the kind that programs run on by default."""
    if jax.device_count() < 2:
        pytest.skip("needs two devices of one kind, and there is one")
    return jax.devices()[:2]


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """What a file has compiled: kept to the end, the programs of all of them took 9 GB in each worker."""
    yield
    jax.clear_caches()


@pytest.fixture
def full_precision():
    """Matrices are multiplied in float32 on every device."""
    with jax.default_matmul_precision("highest"):
        yield
