"""The state of JAX that the commands need."""

import contextlib
import os
from pathlib import Path


def set_up_jax() -> None:
    """Use one CPU device for each core, over which `vectorize` spreads the runs, and keep compiled programs in a cache.

    The cache is in the folder `JAXRL_CACHE`, by default one in the user's cache folder; with `JAXRL_CACHE=off`, or for a user
    without a home, there is none. JAX's own setting (`JAX_COMPILATION_CACHE_DIR`) takes precedence.
    """
    import jax

    from jaxrl.vectorization import use_all_cores

    with contextlib.suppress(RuntimeError):  # the backend has started already
        use_all_cores()
    cache = os.environ.get("JAXRL_CACHE") or _user_cache()
    if cache not in (None, "off") and not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", cache)


def _user_cache() -> str | None:
    try:
        return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxrl")
    except RuntimeError:  # no HOME, and no entry in the user database
        return None
