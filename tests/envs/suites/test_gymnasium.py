"""Gymnasium both ways: spaces, true successors, seeds; and its own checker on what is exported."""

import warnings
from contextlib import closing
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import jaxrl
from jaxrl.envs import from_gymnasium, to_gymnasium
from jaxrl.envs.suites import gymnasium as bridge
from jaxrl.envs.wrappers import EpisodeStatistics, episode_statistics, find_state
from jaxrl.types import Box, Discrete
from tests.problems import countdown, endless


class Counter(gymnasium.Env):
    """Counts up from a start that its seed draws; terminates after 3 steps where the first action was 5, else truncates."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = spaces.Discrete(2, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.time, self.first = 100.0 * self.np_random.integers(1, 10), 0, None
        return np.array([self.at]), {}

    def step(self, action):
        assert action in (5, 6)
        self.first = action if self.first is None else self.first
        self.at, self.time = self.at + 1, self.time + 1
        over = self.time == 3
        return np.array([self.at]), 0.5, over and self.first == 5, over, {}


def test_successors_are_true_and_resets_are_asked_for():
    two = from_gymnasium(Counter).params.open(2)
    start = two.reset([3, 4])
    assert (start.shape, start.dtype) == ((2, 1), np.float32)
    for t in range(1, 4):
        obs, reward, terminated, truncated = two.step(np.array([0, 1], np.int32))
        np.testing.assert_array_equal(obs, start + t)
        assert reward.dtype == np.float32
        assert terminated.tolist() == [t == 3, False]
        assert truncated.tolist() == [False, t == 3], "where both flags are set, terminated wins"
    after = two.reset(mask=np.array([True, False]))
    assert after[1] == start[1] + 3, "the other environment keeps its row"
    assert after[0] % 100 == 0
    np.testing.assert_array_equal(two.reset([3, 4]), start)


def test_processes_of_their_own_play_the_same():
    make = partial(gymnasium.make, "CartPole-v1", max_episode_steps=3)
    played = []
    for asynchronous in (False, True):
        with closing(from_gymnasium(make, asynchronous=asynchronous).params.open(2)) as envs:
            parts = [(envs.reset([0, 1]),), *(envs.step(np.array([1, 0])) for _ in range(3))]
            played.append([*parts, (envs.reset(mask=np.array([True, False])),), (envs.reset([0, 1]),)])
    for here, there in zip(*played, strict=True):
        for x, y in zip(here, there, strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


@pytest.mark.parametrize(
    ("space", "theirs", "expected", "ours"),
    [
        (spaces.Discrete(3, start=-1), [-1, 1], Discrete(3), np.array([0, 2], np.int32)),
        (spaces.Box(-1, 1, (2,), np.float64), [[0.5, 1]], Box(-1, 1, (2,)), np.array([[0.5, 1]], np.float32)),
        (spaces.Box(-1e300, 5, (), np.float64), [2.0], Box(-np.inf, 5, ()), np.array([2], np.float32)),
        (spaces.Box(0, 255, (1, 2), np.uint8), [[[7, 8]]], Box(0, 255, (1, 2), np.uint8), np.array([[[7, 8]]], np.uint8)),
        (spaces.Box(-(2**60), 2**60, (), np.int64), [3], Box(-(2**31), 2**31 - 1, (), np.int32), np.array([3], np.int32)),
        (spaces.Box(0, 1, (2,), np.bool_), [[True, False]], Box(0, 1, (2,), np.bool_), np.array([[True, False]])),
    ],
    ids=["shifted", "float64", "wide bounds", "bytes", "int64", "bool"],
)
def test_spaces_and_what_is_in_them_are_converted(space, theirs, expected, ours):
    converter = bridge._converter(space, "observation")
    if isinstance(expected, Discrete):
        assert converter.space == expected
    else:
        assert (converter.space.shape, converter.space.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(converter.space.low, expected.low)
        np.testing.assert_array_equal(converter.space.high, expected.high)
    theirs = np.array(theirs, space.dtype)
    given = converter.ours(theirs)
    assert given.dtype == ours.dtype
    np.testing.assert_array_equal(given, ours)
    back = converter.theirs(given)
    assert back.dtype == theirs.dtype
    np.testing.assert_array_equal(back, theirs)


@pytest.mark.parametrize(
    ("role", "space", "mend"),
    [
        ("observation", spaces.Dict(a=spaces.Discrete(2)), r"observation space is Dict\(.*FlattenObservation"),
        ("action", spaces.MultiDiscrete([2, 2]), r"action space is MultiDiscrete.*gymnasium\.ActionWrapper"),
    ],
)
def test_other_spaces_are_refused_with_the_mend(role, space, mend):
    class Odd(Counter):
        observation_space = space if role == "observation" else Counter.observation_space
        action_space = space if role == "action" else Counter.action_space

    with pytest.raises(ValueError, match=mend):
        from_gymnasium(Odd)


def test_names_and_limits_are_gymnasiums():
    env = jaxrl.make("gymnasium/Pendulum-v1", g=5.0)
    assert env.name == "gymnasium/Pendulum-v1"
    assert env.params.max_steps_in_episode == 200
    assert str(env.action_space) == "Box(-2 … 2, [1], float32)"
    assert from_gymnasium(Counter).name == "Counter"
    with pytest.raises(ValueError, match=r"unknown environment 'gymnasium/CartPole-v9'; did you mean gymnasium/CartPole-v1"):
        jaxrl.make("gymnasium/CartPole-v9")


def test_whole_episodes_of_a_host_environment_need_its_time_limit():
    env = jaxrl.make("gymnasium/CartPole-v1")
    network = jaxrl.networks.policy(env.observation_space, env.action_space)
    agent = jaxrl.agents.reinforce(network, env.action_space)
    with pytest.raises(ValueError, match="use rollout_length=500"):
        jaxrl.make_learner(env, agent, num_envs=2, rollout_length=100)


# --- jaxrl's as Gymnasium's ----------------------------------------------------------------------


def bounded_point():
    env = jaxrl.make("PointMass")
    return env._replace(observation_space=Box(-10, 10, (2,)))


@pytest.mark.parametrize(
    "env",
    [jaxrl.make("MountainCar-v0"), jaxrl.make("Breakout-MinAtar"), jaxrl.make("FrozenLake-misc"), bounded_point()],
    ids=lambda env: env.name,
)
def test_what_is_exported_passes_gymnasiums_checker_without_a_warning(env):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(to_gymnasium(env))


def test_the_checker_warns_of_unbounded_spaces_alone():
    with pytest.warns(UserWarning, match="infinity") as warned:
        check_env(to_gymnasium(jaxrl.make("PointMass")))
    assert all("infinity. This is probably too" in str(w.message) for w in warned)


def test_exported_spaces_are_exact():
    env = jaxrl.make("CartPole-v1")
    exported = to_gymnasium(env)
    assert exported.action_space == spaces.Discrete(2)
    np.testing.assert_array_equal(exported.observation_space.low, env.observation_space.low)
    np.testing.assert_array_equal(exported.observation_space.high, env.observation_space.high)
    assert exported.observation_space.dtype == np.float32
    planes = to_gymnasium(jaxrl.make("Breakout-MinAtar"))
    assert planes.observation_space.shape == (10, 10, 4)
    assert (
        planes.reset(seed=0)[0].dtype == planes.observation_space.dtype == jaxrl.make("Breakout-MinAtar").observation_space.dtype
    )


def test_an_exported_episode_is_the_environments_own():
    env = jaxrl.make("CartPole-v1", max_steps_in_episode=12)
    exported = to_gymnasium(env)
    obs, info = exported.reset(seed=5)
    assert info == {}
    _, state = exported._episode
    flags = []
    for t in range(12):
        action = t % 2
        state, after = env.step(jax.random.key(0), state, jnp.int32(action), env.params)  # CartPole draws nothing in a step
        obs, reward, terminated, truncated, _ = exported.step(action)
        np.testing.assert_allclose(obs, after.obs, rtol=1e-5, atol=1e-6)
        assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
        flags.append((terminated, truncated))
    assert flags == [(False, False)] * 11 + [(False, True)]


def test_a_seed_fixes_the_episodes_and_what_is_drawn_in_them():
    env = jaxrl.make("PointMass", noise_scale=0.3)

    def play(seed):
        exported = to_gymnasium(env)
        parts = [exported.reset(seed=seed)[0], exported.step(np.zeros(2))[0], exported.step(np.zeros(2))[0]]
        return np.stack([*parts, exported.reset()[0], exported.step(np.zeros(2))[0]])

    np.testing.assert_array_equal(play(0), play(0))
    assert not np.isclose(play(0), play(1)).any()
    first = play(0)
    assert not np.isclose(first[0], first[3]).any(), "a reset without a seed begins another episode"
    assert not np.isclose(first[1] - first[0], first[2] - first[1]).any(), "every step has noise of its own"


def test_what_outlives_an_episode_goes_on_in_what_is_exported_until_the_next_seed():
    exported = to_gymnasium(episode_statistics(endless(reward=2.0, limit=3)))

    def episodes():
        return int(find_state(exported._episode[1], EpisodeStatistics).episodes)

    exported.reset(seed=0)
    for played in range(3):
        assert episodes() == played
        while not exported.step(0)[3]:
            pass
        exported.reset()
    assert float(find_state(exported._episode[1], EpisodeStatistics).last_return) == 6.0
    exported.reset(seed=0)
    assert episodes() == 0


def test_copies_of_one_environment_are_compiled_once():
    env = endless()
    before = bridge._step._cache_size()
    for _ in range(3):
        exported = to_gymnasium(env)
        exported.reset(seed=0)
        exported.step(1)
        exported.step(0)
    assert bridge._step._cache_size() == before + 1


def test_terminated_wins_in_what_is_exported():
    env = countdown(limit=1)
    step = env.step
    both = env._replace(step=lambda *args: (lambda s, out: (s, out._replace(truncated=out.terminated)))(*step(*args)))
    exported = to_gymnasium(both)
    exported.reset(seed=0)
    assert exported.step(0)[2:4] == (True, False)


def test_wrong_use_of_what_is_exported_is_refused():
    exported = to_gymnasium(endless())
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        exported.step(0)
    exported.reset(seed=0)
    with pytest.raises(ValueError, match="action 2 is not one of 0 … 1"):
        exported.step(2)
