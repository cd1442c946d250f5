"""With `jax_enable_x64` everything is computed in 32 bits; what has no explicit dtype would become 64 bits wide, or fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import jax
jax.config.update("jax_numpy_dtype_promotion", "strict")
import jaxrl
from jaxrl import presets

wide = lambda tree: sorted({str(x.dtype) for x in jax.tree.leaves(tree)} & {"float64", "int64", "uint64", "complex128"})
first = {}
for algorithm, env in presets.PRESETS:
    if algorithm in ("dqn", "reinforce", "openai_es", "td3", "sac", "ppo"):
        first.setdefault(algorithm, env)
for algorithm, env in first.items():
    learner, hparams, *_ = jaxrl.preset(algorithm, env)
    state, metrics = jax.eval_shape(lambda key: jaxrl.train(key, learner, 100, hparams), jax.random.key(0))
    returns = jax.eval_shape(lambda key, s: jaxrl.evaluate(key, learner, s, num_episodes=2), jax.random.key(0), state)
    print(algorithm, *wide((state, metrics, returns)))
for name, make in jaxrl.envs.OWN.items():
    env = make()
    state, obs = jax.eval_shape(env.reset, jax.random.key(0), env.params)
    action = jax.ShapeDtypeStruct(env.action_space.shape, env.action_space.dtype)
    print(name, *wide((state, obs, jax.eval_shape(env.step, jax.random.key(0), state, action, env.params))))
"""


@pytest.fixture(scope="module")
def lines():
    root = Path(__file__).parents[1]
    env = os.environ | {"JAX_ENABLE_X64": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=root, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_agents_and_environments_compute_in_32_bits(lines):
    assert {"dqn", "reinforce", "sac", "td3", "openai_es", "PointMass", "Garnet"} <= {line.split()[0] for line in lines}
    assert not [line for line in lines if len(line.split()) > 1]
