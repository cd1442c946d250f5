"""Jumanji's environments against Jumanji itself, step by step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete, num_choices, split_action_mask
from tests.envs.suites.common import assert_contained, assert_same, check_types, dqn, play_beside, returns_before_and_after

jumanji = pytest.importorskip("jumanji")
specs = pytest.importorskip("jumanji.specs")
suite = pytest.importorskip("jaxrl.envs.suites.jumanji")


def as_dict(observation):
    """Jumanji's record as nested dicts, with the mask on one axis."""
    if not hasattr(observation, "_fields") and not dataclasses.is_dataclass(observation):
        return observation
    names = getattr(observation, "_fields", None) or [field.name for field in dataclasses.fields(observation)]
    entries = {name: as_dict(getattr(observation, name)) for name in names}
    return entries | ({"action_mask": jnp.ravel(entries["action_mask"])} if "action_mask" in entries else {})


def test_snake_dies_by_the_game_and_not_by_the_clock():
    env = jaxrl.make("jumanji/Snake-v1", max_steps_in_episode=4)
    check_types(env)
    assert {name: space.shape for name, space in env.observation_space.items()} == {
        "grid": (12, 12, 5), "step_count": (), "action_mask": (4,)
    }  # fmt: skip
    theirs = jumanji.make("Snake-v1", time_limit=4)

    def step(key, state, action):
        _, timestep = theirs.step(state.inner, action)
        # Jumanji ends an episode by its time limit with a discount of 0: only that it ends can be compared.
        return as_dict(timestep.observation), timestep.reward, timestep.last(), state.inner.action_mask[action]

    (obs, reward, terminated, truncated), (their_obs, their_reward, last, legal), fresh = play_beside(env, step)
    for name in ("grid", "step_count"):
        np.testing.assert_array_equal(obs[name], their_obs[name])
    stuck = ~their_obs["action_mask"].any(axis=-1, keepdims=True)
    np.testing.assert_array_equal(obs["action_mask"], their_obs["action_mask"] | stuck)
    np.testing.assert_array_equal(reward, their_reward)
    np.testing.assert_array_equal(terminated | truncated, last)
    np.testing.assert_array_equal(terminated, ~legal, "a snake dies of an illegal move alone")
    assert (truncated & ~terminated).any()
    assert (truncated & terminated).any()
    assert_contained(env, obs)
    assert_contained(env, fresh)


def test_actions_with_a_joint_mask_are_one_number():
    """Tetris: how to turn and where to drop. Where no move is legal, the game is over, and all are marked as legal."""
    env = jaxrl.make("jumanji/Tetris-v0")
    check_types(env)
    assert env.action_space == Discrete(40)
    assert env.observation_space["action_mask"] == Box(False, True, (40,), np.bool_)
    theirs = jumanji.make("Tetris-v0")

    def step(key, state, action):
        _, timestep = theirs.step(state.inner, jnp.array([action // 10, action % 10]))
        obs = as_dict(timestep.observation)
        obs["action_mask"] = jnp.where(obs["action_mask"].any(), obs["action_mask"], True)
        return obs, timestep.reward, timestep.discount == 0, ~timestep.observation.action_mask.any()

    (*ours, _), (*their, stuck), _ = play_beside(env, step, legal=True)
    assert_same([*ours, stuck], [*their, stuck])
    assert ours[2].any()
    np.testing.assert_array_equal(ours[2], stuck, "legal moves end the game only when there are no more")
    assert_contained(env, ours[0])


def test_actions_with_a_mask_for_each_part_are_a_vector():
    """Cleaner: an agent that walks into a wall ends the episode, which legal moves never do."""
    env = jaxrl.make("jumanji/Cleaner-v0", max_steps_in_episode=30)
    check_types(env)
    assert env.action_space == MultiDiscrete((4, 4, 4))
    theirs = jumanji.make("Cleaner-v0", time_limit=30)

    def step(key, state, action):
        _, timestep = theirs.step(state.inner, action)
        obs, legal = as_dict(timestep.observation), state.inner.action_mask[jnp.arange(3), action].all()
        return obs, timestep.reward, timestep.last() & (state.time < 29), legal

    for legal in (False, True):
        (obs, reward, terminated, truncated), (their_obs, their_reward, _, allowed), _ = play_beside(env, step, legal=legal)
        assert_same((obs, reward, terminated, truncated), (their_obs, their_reward, terminated, truncated))
        np.testing.assert_array_equal(terminated, ~allowed)
        assert terminated.any() != legal
        assert truncated.any() or not legal
        assert_contained(env, obs)


def test_more_joint_actions_than_an_int32_can_number_are_a_vector():
    """JobShop: ten machines with 21 choices each. What our mask allows, Jumanji's allows."""
    env = jaxrl.make("jumanji/JobShop-v0", max_steps_in_episode=100)
    check_types(env)
    assert env.action_space == MultiDiscrete((21,) * 10)

    def step(key, state, action):
        return state.inner.action_mask[jnp.arange(10), action].all(), jnp.float32(0), jnp.bool_(False), jnp.bool_(False)

    (obs, _, _, _), (allowed, *_), _ = play_beside(env, step, num_steps=50, num_envs=2, legal=True)
    assert allowed.all()
    assert_contained(env, obs)


def test_every_mask_fits_its_actions():
    for name in suite.names():
        env = suite.make(name)
        _, mask = split_action_mask(env.observation_space)
        assert (mask is None) == name.startswith("RubiksCube"), name
        if mask is not None:
            assert mask == Box(False, True, (num_choices(env.action_space),), np.bool_), name
        check_types(env)


def test_one_field_is_its_own_array_and_several_are_a_dict():
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
    chosen = jaxrl.make("jumanji/Snake-v1", fields=["grid", "action_mask"])
    assert set(chosen.observation_space) == {"grid", "action_mask"}
    check_types(chosen)
    nested = jaxrl.make("jumanji/Maze-v0", fields=["agent_position"])
    assert nested.observation_space == Dict({"row": Box(0, 9, (), np.int32), "col": Box(0, 9, (), np.int32)})
    check_types(nested)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("Snake", {}, "did you mean jumanji/Snake-v1"),
        ("Sokoban-v0", {}, "cannot be used: it downloads its levels"),
        ("Connector-v3", {}, "a reward for each of its agents"),
        ("Snake-v1", {"fields": ["board"]}, r"fields must be some of \('grid', 'step_count', 'action_mask'\), got \['board'\]"),
        ("Snake-v1", {"fields": "grid"}, "fields must be some of"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(name, kwargs, message):
    with pytest.raises(ValueError, match=message):
        jaxrl.make(f"jumanji/{name}", **kwargs)


def test_several_agents_and_other_actions_are_refused():
    with pytest.raises(ValueError, match=r"has rewards \[2\], one for each agent"):
        suite.from_jumanji(jumanji.make("LevelBasedForaging-v0"))
    with pytest.raises(ValueError, match="actions must be integers from 0 on, got BoundedArray"):
        suite.from_jumanji(jumanji.make("SearchAndRescue-v0"))


def test_where_nothing_is_legal_everything_is():
    mask = jnp.array([[True, False, False], [False, False, False]])
    assert suite._flat_mask(mask, joint=True).tolist() == [True] + 5 * [False]
    assert suite._flat_mask(mask, joint=False).tolist() == [True, False, False, True, True, True]
    assert suite._flat_mask(mask[1:], joint=True).tolist() == [True] * 3


def test_a_mask_of_another_shape_is_refused():
    spec = specs.MultiDiscreteArray(jnp.array([3, 2]), name="action")
    mask = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bool_)
    assert suite._actions(spec, mask(3, 2))[0] == Discrete(6)
    assert suite._actions(spec, mask(2, 3))[0] == MultiDiscrete((3, 3))
    assert suite._actions(spec, None)[0] == Discrete(6)
    for wrong in ((5,), (3,), (2, 3, 1), (6,)):
        with pytest.raises(ValueError, match=r"an action mask \[.*\] does not fit the actions MultiDiscreteArray"):
            suite._actions(spec, mask(*wrong))
    with pytest.raises(ValueError, match=r"an action mask \[2\] does not fit"):
        suite._actions(specs.DiscreteArray(3, name="action"), mask(2))


def test_dqn_learns_to_eat():
    """A snake of random moves dies within few steps and seldom eats."""
    env = jaxrl.make("jumanji/Snake-v1", num_rows=4, num_cols=4, max_steps_in_episode=60, fields=["grid"])
    before, after = returns_before_and_after(
        dqn(env), 3_000, learning_rate=1e-3, discount=0.95, epsilon_iterations=1_500.0, epsilon_end=0.02
    )
    assert (after > before + 1.0).all()
