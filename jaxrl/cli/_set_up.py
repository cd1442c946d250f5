"""Configuration of JAX for the commands."""

import contextlib
import logging
import os
import sys

from jaxrl.cli._parsing import UsageError

# Reductions in a fixed order, and kernels that are chosen without measuring, which can end differently in each process.
_DETERMINISTIC = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_autotune_level=0")


def set_up_jax(*, deterministic: bool = False) -> None:
    """Use one CPU device per core, unless a number is set, and cache compiled programs. Runs are spread over the devices.

    The cache is in the folder `JAXRL_CACHE`, by default `jaxrl` in the user's cache folder. It is disabled by `JAXRL_CACHE=off`,
    and if the user has no home folder. JAX's own setting (`JAX_COMPILATION_CACHE_DIR`) takes precedence.

    Args:
      deterministic: compile for GPUs so that every process computes the same bits. Elsewhere this changes nothing.
    """
    import jax

    from jaxrl.compilation import enable_compilation_cache
    from jaxrl.vectorization import use_all_cores

    if deterministic:  # XLA reads its flags when the first device is used
        given = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join([*given, *(flag for flag in _DETERMINISTIC if flag not in given)])
        # Or XLA takes the kernels that other processes measured and left beside the compiled programs.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    with contextlib.suppress(RuntimeError):  # the backend is already initialised
        use_all_cores()
    check_devices()
    enable_compilation_cache()


def check_devices() -> None:
    """Raise UsageError if JAX finds none of the devices that `JAX_PLATFORMS` asks for.

    What JAX logs on the way, with tracebacks, becomes part of the error, or a note if it finds another device.
    """
    import jax

    logged: list[str] = []
    logger, handler = logging.getLogger("jax._src.xla_bridge"), logging.Handler(logging.WARNING)
    handler.emit = lambda record: logged.append(_first_line(record.getMessage()))  # type: ignore[method-assign]
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # an assertion for a platform whose plugin is not installed
        reason = _first_line(str(error)) or "; ".join(logged) or "no such device or no plugin for it"
        asked = f" for JAX_PLATFORMS={platforms}" if (platforms := jax.config.jax_platforms) else ""  # type: ignore[attr-defined]
        raise UsageError(f"JAX finds no device{asked}: {reason}") from error
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
    for message in logged:
        print(f"jaxrl: note: {message}", file=sys.stderr)


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")
