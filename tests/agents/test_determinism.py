"""The same bits, however a run is divided or mapped, as programs are compiled for users.

The tests compile quickly instead, where fewer operations are fused and reordered, and some programs round otherwise mapped than
alone.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import pytest

import jaxrl
from tests.compiling import LEVELS
from tests.devices import only_on_a_cpu
from tests.problems import LEARNERS, plain


def jit(level, function):
    return jax.jit(function, compiler_options=LEVELS[level])


@functools.cache
def learner_of(name):
    return LEARNERS[name]()


MAPS = [("dqn", "default"), ("ppo, continuous", "vectorize")]
OTHERS = [pytest.param(name, "vectorize", marks=pytest.mark.slow) for name in LEARNERS if name not in dict(MAPS)]


@only_on_a_cpu("on a GPU, programs that map over seeds may round otherwise; docs/devices.md promises equal bits on a CPU")
@pytest.mark.parametrize(("name", "level"), [*MAPS, *OTHERS])
def test_a_map_over_seeds_equals_each_alone(name, level):
    learner = learner_of(name)
    train = lambda key: jaxrl.train(key, learner, 2)[0]
    keys = jax.random.split(jax.random.key(3), 2)
    mapped = jit(level, lambda keys: jax.lax.map(train, keys))(keys)
    alone = jit(level, train)(keys[1])
    chex.assert_trees_all_equal(plain(jax.tree.map(lambda x: x[1], mapped)), plain(alone))


CUTS = [
    ("dqn", False, "default"),
    ("ppo", False, "vectorize"),
    pytest.param("double dqn, huber, hard sync, rollouts", True, "vectorize", marks=pytest.mark.slow),
    pytest.param("reinforce, continuing", True, "vectorize", marks=pytest.mark.slow),
    pytest.param("reinforce, episodic", False, "vectorize", marks=pytest.mark.slow),
    pytest.param("recurrent ppo", True, "vectorize", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "batched", "level"), CUTS)
def test_a_run_has_the_same_bits_however_it_is_cut(name, batched, level):
    learner = learner_of(name)
    transform = jax.vmap if batched else (lambda f: f)
    key = jax.random.split(jax.random.key(0), 2) if batched else jax.random.key(0)
    whole = jit(level, transform(lambda key: jaxrl.train(key, learner, 8)[0]))(key)
    state = jit(level, transform(lambda key: learner.init(key, jax.tree.map(jnp.float32, learner.agent.hparams))))(key)
    iteration = learner.agent.warmup
    for num in (1, 7):
        advance = lambda state, iteration, num=num: transform(lambda s: jaxrl.advance(s, iteration, learner, num)[0])(state)
        state = jit(level, advance)(state, iteration)
        iteration += num
    chex.assert_trees_all_equal(plain(whole), plain(state))
