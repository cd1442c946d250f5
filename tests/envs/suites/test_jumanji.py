"""Jumanji's environments against Jumanji itself, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from tests.envs.suites.common import assert_contained, assert_same, check_types, dqn, play_beside, returns_before_and_after

jumanji = pytest.importorskip("jumanji")


def flat(observation):
    return jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(observation)])


def test_snake_dies_by_the_game_and_not_by_the_clock():
    env = jaxrl.make("jumanji/Snake-v1", max_steps_in_episode=4)
    check_types(env)
    theirs = jumanji.make("Snake-v1", time_limit=4)

    def step(key, state, action):
        _, timestep = theirs.step(state.inner, action)
        # Jumanji ends an episode by its time limit with a discount of 0: only that it ends can be compared.
        return flat(timestep.observation), timestep.reward, timestep.last(), state.inner.action_mask[action]

    (obs, reward, terminated, truncated), (their_obs, their_reward, last, legal), fresh = play_beside(env, step)
    np.testing.assert_array_equal(obs, their_obs)
    np.testing.assert_array_equal(reward, their_reward)
    np.testing.assert_array_equal(terminated | truncated, last)
    np.testing.assert_array_equal(terminated, ~legal, "a snake dies of an illegal move alone")
    assert (truncated & ~terminated).any()
    assert (truncated & terminated).any()
    assert_contained(env, obs)
    assert_contained(env, fresh)


def test_actions_of_several_parts_are_one_number():
    """Tetris: where to drop and how to turn."""
    env = jaxrl.make("jumanji/Tetris-v0")
    check_types(env)
    assert env.action_space.n == 40
    theirs = jumanji.make("Tetris-v0")

    def step(key, state, action):
        _, timestep = theirs.step(state.inner, jnp.array([action // 10, action % 10]))
        return flat(timestep.observation), timestep.reward, timestep.discount == 0, jnp.bool_(False)

    ours, their, _ = play_beside(env, step)
    assert_same(ours, their)
    assert ours[2].any()
    assert_contained(env, ours[0])


def test_one_field_is_its_own_array():
    env = jaxrl.make("jumanji/Game2048-v1", fields=["board"], max_steps_in_episode=50)  # Jumanji gives it no time limit
    check_types(env)
    assert (env.observation_space.shape, env.observation_space.dtype) == ((4, 4), np.int32)
    theirs = jumanji.make("Game2048-v1")

    def step(key, state, action):
        _, timestep = theirs.step(state.inner, action)
        return timestep.observation.board, timestep.reward, timestep.discount == 0, state.time == 49

    ours, their, _ = play_beside(env, step)
    assert_same(ours, their)
    assert ours[3].any()


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("Snake", {}, "did you mean jumanji/Snake-v1"),
        ("Sokoban-v0", {}, "cannot be used: it downloads its levels"),
        ("Connector-v3", {}, "rewards each of its agents"),
        ("Snake-v1", {"fields": ["board"]}, r"fields must be some of \('grid', 'step_count', 'action_mask'\), got \['board'\]"),
        ("Snake-v1", {"fields": "grid"}, "fields must be some of"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        jaxrl.make(f"jumanji/{name}", **kwargs)


def test_several_agents_and_too_many_actions_are_refused():
    from jaxrl.envs.suites.jumanji import from_jumanji

    with pytest.raises(ValueError, match=r"gives rewards \[2\], one for each agent"):
        from_jumanji(jumanji.make("LevelBasedForaging-v0"))
    with pytest.raises(ValueError, match="cannot number all combinations"):
        from_jumanji(jumanji.make("JobShop-v0"))


def test_dqn_learns_to_eat():
    """A snake of random moves dies within few steps and seldom eats."""
    env = jaxrl.make("jumanji/Snake-v1", num_rows=4, num_cols=4, max_steps_in_episode=60, fields=["grid"])
    before, after = returns_before_and_after(
        dqn(env), 3_000, learning_rate=1e-3, discount=0.95, epsilon_iterations=1_500.0, epsilon_end=0.02
    )
    assert (after > before + 1.0).all()
