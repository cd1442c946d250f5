"""Configuration of JAX for the commands."""

import contextlib
import os
from pathlib import Path

from jaxrl.cli._parsing import UsageError


def set_up_jax() -> None:
    """Use one CPU device per core, over which `vectorize` spreads the runs, and cache compiled programs.

    The cache is in the folder `JAXRL_CACHE`, by default `jaxrl` in the user's cache folder. It is disabled by `JAXRL_CACHE=off`,
    and if the user has no home folder. JAX's own setting (`JAX_COMPILATION_CACHE_DIR`) takes precedence.
    """
    import jax

    from jaxrl.vectorization import use_all_cores

    with contextlib.suppress(RuntimeError):  # the backend is already initialised
        use_all_cores()
    check_devices()
    cache = os.environ.get("JAXRL_CACHE") or _user_cache()
    if cache not in (None, "off") and not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", cache)


def check_devices() -> None:
    """Raise UsageError if JAX finds none of the devices that `JAX_PLATFORMS` asks for."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # an assertion for a platform whose plugin is not installed
        reason = next(iter(str(error).splitlines()), "no such device or no plugin for it")
        asked = f" for JAX_PLATFORMS={platforms}" if (platforms := jax.config.jax_platforms) else ""  # type: ignore[attr-defined]
        raise UsageError(f"JAX finds no device{asked}: {reason}") from error


def _user_cache() -> str | None:
    try:
        return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxrl")
    except RuntimeError:  # no HOME, and no entry in the user database
        return None
