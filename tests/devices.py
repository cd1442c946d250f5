"""Which devices the tests have: two of a CPU, or those of a GPU or TPU."""

import os

import jax
import pytest

EMULATED = bool(os.environ.get("JAXRL_TEST_ONE_DEVICE"))


def emulate_one_device():
    """One device on which `vectorize` runs all seeds at once, as on a machine with one GPU."""
    from jaxrl import vectorization

    jax.config.update("jax_num_cpu_devices", 1)
    vectorization._CPU_BATCH_SIZE = 10**9


def only_on_a_cpu(reason):
    """A mark for tests of what holds on a CPU alone, and not where that emulates a GPU."""
    return pytest.mark.skipif(EMULATED or jax.default_backend() != "cpu", reason=reason)
