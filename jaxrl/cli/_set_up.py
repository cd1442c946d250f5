"""Configuration of JAX for the commands."""

import contextlib
import os
from pathlib import Path


def set_up_jax() -> None:
    """Use one CPU device per core, over which `vectorize` spreads the runs, and cache compiled programs.

    The cache is in the folder `JAXRL_CACHE`, by default `jaxrl` in the user's cache folder. It is disabled by `JAXRL_CACHE=off`,
    and if the user has no home folder. JAX's own setting (`JAX_COMPILATION_CACHE_DIR`) takes precedence.
    """
    import jax

    from jaxrl.vectorization import use_all_cores

    with contextlib.suppress(RuntimeError):  # the backend is already initialised
        use_all_cores()
    cache = os.environ.get("JAXRL_CACHE") or _user_cache()
    if cache not in (None, "off") and not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", cache)


def _user_cache() -> str | None:
    try:
        return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxrl")
    except RuntimeError:  # no HOME, and no entry in the user database
        return None
