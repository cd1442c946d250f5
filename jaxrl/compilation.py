"""The cache of compiled programs, so that the same program is compiled once and not in every process."""

import os
from pathlib import Path

import jax


def enable_compilation_cache(folder: Path | str | None = None) -> Path | None:
    """Keep compiled programs on the disk, so that a program that was compiled before starts at once, also in another process.

    It is one call at the start of a script or notebook; the command line does the same. A program is found again if its code, the
    shapes of its arguments, the versions of JAX and the kind of the device are the same. On a GPU, what autotuning has chosen is
    kept too. Only compilations that take over a second are kept (`jax_persistent_cache_min_compile_time_secs`).

    Args:
      folder: where programs are kept. By default what JAX is set to already (`JAX_COMPILATION_CACHE_DIR`), or else the
        environment variable `JAXRL_CACHE`, or else `jaxrl` in the user's cache folder, such as `~/.cache/jaxrl`.

    Returns:
      The folder. None if there is no cache, since `JAXRL_CACHE` is `off` or the user has no home folder.

    >>> import jaxrl
    >>> jaxrl.enable_compilation_cache()  # doctest: +SKIP
    PosixPath('/home/user/.cache/jaxrl')
    """
    from jax.experimental.compilation_cache import compilation_cache

    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    path = str(folder or before or os.environ.get("JAXRL_CACHE") or _user_cache() or "off")
    if path == "off":
        return None
    if path != before:
        jax.config.update("jax_compilation_cache_dir", path)
        compilation_cache.reset_cache()  # JAX decides at its first compilation whether there is a cache
    return Path(path)


def _user_cache() -> str | None:
    try:
        return str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxrl")
    except RuntimeError:  # no HOME, and no entry in the user database
        return None
