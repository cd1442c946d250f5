"""The cache of compiled programs."""

import jax
import jax.numpy as jnp
import pytest

import jaxrl

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def settings():
    """JAX's settings, which are put back."""
    from jax.experimental.compilation_cache import compilation_cache

    before = {name: getattr(jax.config, name) for name in NAMES}
    jax.config.update(NAMES[0], None)
    jax.config.update(NAMES[1], 0)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_programs_are_kept_also_if_others_were_compiled_before(settings, tmp_path, monkeypatch):
    jax.jit(lambda x: x * 3 + 1)(jnp.ones(3))
    monkeypatch.setenv("JAXRL_CACHE", "off")
    assert jaxrl.enable_compilation_cache() is None
    monkeypatch.setenv("JAXRL_CACHE", str(tmp_path / "a"))
    assert jaxrl.enable_compilation_cache() == tmp_path / "a"
    jax.jit(lambda x: x * 5 + 1)(jnp.ones(3))
    assert list((tmp_path / "a").iterdir())
    assert jaxrl.enable_compilation_cache(tmp_path / "b") == tmp_path / "b"
    jax.jit(lambda x: x * 7 + 1)(jnp.ones(3))
    assert list((tmp_path / "b").iterdir())
    assert jaxrl.enable_compilation_cache() == tmp_path / "b", "JAX's own setting comes first"
