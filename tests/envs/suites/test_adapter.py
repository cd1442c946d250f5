"""What the adapters share, on a suite with every fault that suites have; and names, prefixes and extras."""

import sys
import tomllib
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.envs import SUITES, suite
from jaxrl.envs.suites.adapter import Params, adapt, obs_spec, unbounded
from jaxrl.spaces import Discrete, spec
from tests.envs.suites.common import run_with_x64


class Sloppy(NamedTuple):
    count: jax.Array
    key: jax.Array


def sloppy(limit=4, **kwargs):
    """Weak types, drifting dtypes, mixed ranks and a warning. It ends at the fifth step, as a float of shape [1]."""

    def reset(key, params):
        warnings.warn("nobody maintains this", stacklevel=2)
        return Sloppy(0, key), {"plane": jnp.zeros(3, jnp.int8), "inner": {"time": 0}}

    def step(key, state, action, params):
        count = state.count + jnp.ones((1,), jnp.int16)
        plane = (jnp.zeros(3, jnp.int8) + count * jnp.ones((1, 3))).reshape(3)
        return Sloppy(count, key), {"plane": plane, "inner": {"time": count * 1.0}}, count, (count >= 5).astype(jnp.float32)

    space = unbounded(obs_spec(reset, None))
    return adapt("sloppy", reset, step, space, Discrete(2), max_steps_in_episode=limit, **kwargs)


def play(env, num_steps):
    def step(state, key):
        state, out = env.step(key, state, jnp.int32(0), env.params)
        return state, out

    state, _ = env.reset(jax.random.key(0), env.params)
    return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), num_steps))


@pytest.mark.parametrize(("limit", "truncated"), [(4, [0, 0, 0, 1, 1, 1]), (5, [0, 0, 0, 0, 1, 1]), (None, [0] * 6)])
def test_the_clock_truncates_and_the_task_terminates(limit, truncated):
    _, out = play(sloppy(limit), 6)
    np.testing.assert_array_equal(out.truncated, np.array(truncated, bool))
    np.testing.assert_array_equal(out.terminated, [False] * 4 + [True] * 2)
    np.testing.assert_array_equal(out.reward, np.arange(1.0, 7.0))
    assert out.reward.dtype == jnp.float32
    np.testing.assert_array_equal(out.obs["plane"], np.arange(1, 7, dtype=np.int8)[:, None] * np.ones(3, np.int8))
    np.testing.assert_array_equal(out.obs["inner"]["time"], np.arange(1, 7))


def test_the_time_limit_is_a_parameter_that_can_be_batched():
    env = sloppy()
    flags = jax.vmap(lambda limit: play(env._replace(params=Params(limit)), 4)[1].truncated)(jnp.array([2, 3]))
    np.testing.assert_array_equal(flags, [[False, True, True, True], [False, False, True, True]])


def test_types_are_strong_from_the_first_step_on():
    env = sloppy()
    state, obs = jax.eval_shape(env.reset, jax.random.key(0), env.params)
    after, out = jax.eval_shape(env.step, jax.random.key(0), state, jnp.int32(0), env.params)
    assert jax.tree.structure((state, obs)) == jax.tree.structure((after, out.obs))
    assert jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), obs) == spec(env.observation_space)
    for x, y in zip(jax.tree.leaves((state, obs)), jax.tree.leaves((after, out.obs)), strict=True):
        assert (x.shape, x.dtype, x.weak_type) == (y.shape, y.dtype, y.weak_type)
    assert not any(x.weak_type for x in jax.tree.leaves((state, obs)))
    assert jnp.issubdtype(state.inner.key.dtype, jax.dtypes.prng_key)


def test_wrong_limits_and_observations_are_refused():
    with pytest.raises(ValueError, match="max_steps_in_episode must be at least 1, got 0"):
        sloppy(0)
    with pytest.raises(TypeError, match="an observation must be an array or a dict of arrays, got"):
        unbounded(obs_spec(lambda key: ((), {"a": (jnp.zeros(2), 1)})))


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(np.bool_, False, True), (np.int8, -128, 127), (np.float32, -np.inf, np.inf)], ids=str
)
def test_an_unbounded_box_holds_what_the_dtype_holds(dtype, low, high):
    box = unbounded(jax.ShapeDtypeStruct((2,), dtype))
    assert (box.low.tolist(), box.high.tolist(), box.dtype) == ([low] * 2, [high] * 2, np.dtype(dtype))


def test_64_bits_outside_change_nothing_inside():
    """In a process of its own, for the setting concerns all of it: the states, observations and flags are the same."""
    code = """
import jax, jax.numpy as jnp, numpy as np
from tests.envs.suites.test_adapter import Params, play, sloppy
jax.config.update("jax_numpy_dtype_promotion", "strict")
env = sloppy()
state, out = jax.jit(lambda params: play(env._replace(params=params), 6))(Params(np.int64(4)))
print(jax.config.jax_enable_x64, [str(x.dtype) for x in jax.tree.leaves((state, out))])
print([x.tolist() for x in jax.tree.leaves(out)])
"""
    state, out = play(sloppy(), 6)
    wanted = [str(x.dtype) for x in jax.tree.leaves((state, out))]
    values = [x.tolist() for x in jax.tree.leaves(out)]
    assert run_with_x64(code) == f"True {wanted}\n{values}\n"


# --- names, prefixes, extras ---------------------------------------------------------------------

PACKAGES = {"playground": "mujoco_playground"}


def test_every_suite_is_a_module_and_an_extra_outside_the_tests():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    folder = Path(jaxrl.envs.__file__).parent / "suites"
    for name in SUITES:
        assert [requirement.partition(">")[0] for requirement in extras[name]] == [name]
        assert (folder / f"{name}.py").is_file()
        assert not any(requirement.startswith(name) for requirement in extras["test"])


@pytest.mark.parametrize("name", SUITES)
def test_a_missing_package_is_an_error_that_names_the_extra(name, monkeypatch):
    package = PACKAGES.get(name, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"jaxrl.envs.suites.{name}", raising=False)
    with pytest.raises(ImportError, match=rf"{name} needs the package {package}: pip install 'jaxrl\[{name}\]'"):
        jaxrl.make(f"{name}/Anything-v0")


def test_a_prefix_that_is_not_a_suite_is_an_unknown_name():
    with pytest.raises(ValueError, match="unknown environment 'bracks/ant'; there are PointMass"):
        jaxrl.make("bracks/ant")


def test_a_suite_knows_its_names_and_proposes_near_ones():
    assert "CartPole-v1" in suite("gymnasium").registry
    with pytest.raises(ValueError, match=r"unknown environment 'gymnasium/acrobot-v1'; did you mean gymnasium/Acrobot-v1"):
        jaxrl.make("gymnasium/acrobot-v1")
