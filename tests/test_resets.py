"""How new episodes begin: what outlives an episode, resets made late, and starts from a pool."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl import learner as driver
from jaxrl import resets
from jaxrl.types import Box, Discrete, Environment, Step
from tests.compiling import EMITTERS
from tests.problems import dqn_learner, plain, reinforce_learner
from tests.test_rollout import HP, counting_agent, play


class Life(NamedTuple):
    time: jax.Array
    episodes: jax.Array
    start: jax.Array


def lives(limit: int = 3, carried_over: bool = True) -> Environment:
    """Episodes of `limit` steps with a random start; observes (number of the episode, start)."""

    def observe(state):
        return jnp.stack([state.episodes, state.start])

    def reset(key, params):
        state = Life(jnp.int32(0), jnp.float32(0), jax.random.uniform(key))
        return state, observe(state)

    def step(key, state, action, params):
        state = state._replace(time=state.time + 1)
        return state, Step(observe(state), state.episodes, jnp.bool_(False), state.time >= limit)

    def carry_over(old, fresh, obs):
        state = fresh._replace(episodes=old.episodes + 1)
        return state, observe(state)

    space = Box(0, np.inf, (2,))
    return Environment(reset, step, (), space, Discrete(2), "lives", carry_over if carried_over else None)


def test_what_an_environment_carries_over_outlives_its_episodes():
    (carry, rollout), _ = play(lives(3), num_steps=8)
    np.testing.assert_array_equal(rollout.obs[:, 0, 0], [0, 0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(rollout.next_obs[:, 0, 0], [0, 0, 0, 1, 1, 1, 2, 2])
    np.testing.assert_array_equal(carry.env.episodes, [2, 2])
    assert len(np.unique(rollout.obs[:, 0, 1])) == 3


def test_a_whole_episode_begins_with_what_the_last_one_left():
    agent = counting_agent()._replace(fresh_episodes=True)
    learner = jaxrl.make_learner(lives(3), agent, num_envs=2, rollout_length=3)
    state, metrics = jax.jit(lambda key: jaxrl.train(key, learner, 4, HP(), log_every=1))(jax.random.key(0))
    # Two episodes an iteration: the one that counts, and what begins at its end.
    np.testing.assert_array_equal(metrics["episode_return"], [3.0, 9.0, 15.0, 21.0])
    np.testing.assert_array_equal(state.env.episodes, [8, 8])


def test_evaluation_begins_with_what_training_left():
    learner = jaxrl.make_learner(lives(3), counting_agent(), num_envs=2, rollout_length=1)
    state, _ = jaxrl.train(jax.random.key(0), learner, 7, HP())
    returns = jaxrl.evaluate(jax.random.key(1), learner, state, num_episodes=5)
    np.testing.assert_array_equal(returns, np.full(5, 3.0 * 3))


@pytest.mark.parametrize("make", [dqn_learner, lambda: reinforce_learner(mode="continuing", baseline="value")])
def test_fresh_episodes_made_in_the_step_are_those_drawn_ahead(make, monkeypatch):
    train = lambda learner: jax.jit(lambda key: jaxrl.train(key, learner, 6), compiler_options=EMITTERS)(jax.random.key(0))
    ahead = train(make())
    monkeypatch.setattr(resets, "MAX_NOISE_BYTES", 64)
    monkeypatch.setattr(driver, "MAX_NOISE_BYTES", 64)
    learner = make()
    assert jnp.issubdtype(learner.noise(jax.random.key(0)).rollout.reset.steps.dtype, jax.dtypes.prng_key)
    late = train(learner)
    jax.tree.map(np.testing.assert_array_equal, plain(ahead), plain(late))


def starts_of(iterations: int, **static) -> np.ndarray:
    """The starts `[iterations, B]` of the episodes that begin in each iteration, all at once."""
    env = lives(1, carried_over=False)
    learner = jaxrl.make_learner(env, counting_agent(), num_envs=64, rollout_length=1, **static)

    def iterate(state, iteration):
        state, _ = jaxrl.advance(state, iteration, learner, 1, HP())
        return state, state.obs[:, 1]

    state = learner.init(jax.random.key(0), HP())
    return np.asarray(jax.jit(lambda s: jax.lax.scan(iterate, s, jnp.arange(iterations, dtype=jnp.int32))[1])(state))


def test_starts_from_a_pool_are_few_in_an_iteration_and_new_in_the_next():
    starts = starts_of(200, reset_pool=4)
    assert {len(np.unique(row)) for row in starts} == {4}  # all 64 miss one of four with probability 4e-8
    assert len(np.unique(starts)) == 800
    assert len(np.unique(starts_of(5))) == 5 * 64


def test_starts_from_a_pool_are_those_of_the_environment():
    """Uniform on [0, 1]: mean and variance of 800 independent starts within four standard errors."""
    starts = np.unique(starts_of(200, reset_pool=4))
    assert abs(starts.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 800)
    assert abs(starts.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / 800)


def test_places_in_the_pool_are_drawn_for_each_environment():
    """Two environments that begin together share their start with probability 1 / 4."""
    starts = starts_of(200, reset_pool=4)
    shared = (starts[:, ::2] == starts[:, 1::2]).mean()
    assert abs(shared - 1 / 4) < 4 * np.sqrt(3 / 16 / 6400)


def test_a_pool_serves_whole_episodes_too():
    learner = reinforce_learner(jaxrl.make("PointMass", max_steps_in_episode=5), rollout_length=5)
    pooled = jaxrl.make_learner(learner.env, learner.agent, num_envs=8, rollout_length=5, reset_pool=2)
    noise = pooled.noise(jax.random.key(0)).rollout
    assert noise.reset.steps.shape == (8,)
    assert noise.reset.shared[1].shape == (2, 2)
    _, metrics = jaxrl.train(jax.random.key(0), pooled, 2, log_every=1)
    np.testing.assert_array_equal(metrics["episodes"], [8, 8])


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (2.5, TypeError)])
def test_the_size_of_a_pool_is_checked(size, error):
    with pytest.raises(error, match="reset_pool must be"):
        jaxrl.make_learner(lives(), counting_agent(), num_envs=2, rollout_length=1, reset_pool=size)
