"""Gymnasium in both directions: spaces, true successors, seeds, and its own checker on exported environments."""

import inspect
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

import jaxrl
from jaxrl.envs import from_gymnasium, to_gymnasium, wrappers
from jaxrl.envs.suites import gymnasium as bridge
from jaxrl.envs.wrappers import EpisodeStatistics, episode_statistics, find_state
from jaxrl.spaces import Box, Dict, Discrete, MultiDiscrete, spec
from jaxrl.types import Environment, Step
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


def bits(*values):
    return np.array(values, np.bool_)


def ints(*values, dtype=np.int32):
    return np.array(values, dtype)


INT32 = (-(2**31), 2**31 - 1)
OBSERVATIONS = {  # their space, a batch of theirs, our space, the batch in it
    "shifted": (spaces.Discrete(3, start=-1), ints(-1, 1), Discrete(3), ints(0, 2)),
    "float64": (spaces.Box(-1, 1, (2,), np.float64), np.array([[0.5, 1]]), Box(-1, 1, (2,)), np.float32([[0.5, 1]])),
    "wide bounds": (spaces.Box(-1e300, 5, (), np.float64), np.array([2.0]), Box(-np.inf, 5, ()), np.float32([2])),
    "bytes": (spaces.Box(0, 255, (1, 2), np.uint8), np.uint8([[[7, 8]]]), Box(0, 255, (1, 2), np.uint8), np.uint8([[[7, 8]]])),
    "int64": (spaces.Box(*INT32, (), np.int64), np.array([3, INT32[0]]), Box(*INT32, (), np.int32), ints(3, INT32[0])),
    "wide int64": (
        spaces.Box(0, 2**62, (1,), np.int64),
        np.array([[1_700_000_000_000]]),
        Box(0, 2.0**62, (1,)),
        np.float32([[1_700_000_000_000]]),
    ),
    "one above int32": (spaces.Box(0, 2**31, (), np.int64), np.array([2**31]), Box(0, 2.0**31, ()), np.float32([2.0**31])),
    "uint64": (
        spaces.Box(0, 2**32 - 1, (), np.uint64),
        np.uint64([2**32 - 1]),
        Box(0, 2**32 - 1, (), np.uint32),
        np.uint32([2**32 - 1]),
    ),
    "bool": (spaces.Box(0, 1, (2,), np.bool_), bits([True, False]), Box(0, 1, (2,), np.bool_), bits([True, False])),
    "bits": (spaces.MultiBinary((1, 2)), np.int8([[[1, 0]]]), Box(False, True, (1, 2), np.bool_), bits([[True, False]])),
    "numbers": (spaces.MultiDiscrete([3, 2], start=[1, -1]), ints([3, 0], [1, -1]), MultiDiscrete((3, 2)), ints([2, 1], [0, 0])),
    "table": (spaces.MultiDiscrete([[3, 2], [4, 5]]), ints([[2, 1], [0, 4]]), MultiDiscrete((3, 2, 4, 5)), ints([2, 1, 0, 4])),
    "nested": (
        spaces.Dict(b=spaces.Dict(c=spaces.Discrete(2, start=1)), a=spaces.Tuple([spaces.MultiBinary(2), spaces.Box(0, 1, ())])),
        {"b": {"c": ints(2, 1)}, "a": (np.int8([[1, 0], [0, 0]]), np.float32([0.5, 1]))},
        Dict({"a": Dict({"0": Box(False, True, (2,), np.bool_), "1": Box(0, 1, ())}), "b": Dict({"c": Discrete(2)})}),
        {"b": {"c": ints(1, 0)}, "a": {"0": bits([True, False], [False, False]), "1": np.float32([0.5, 1])}},
    ),
}


@pytest.mark.parametrize(("space", "theirs", "expected", "ours"), OBSERVATIONS.values(), ids=OBSERVATIONS)
def test_observations_are_converted(space, theirs, expected, ours):
    converted_space, convert = bridge._observations(space)
    assert converted_space == expected
    converted = convert(theirs)
    assert jax.tree.structure(converted) == jax.tree.structure(ours)
    for x, y in zip(jax.tree.leaves(converted), jax.tree.leaves(ours), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
        assert not any(np.shares_memory(x, z) for z in jax.tree.leaves(theirs)), "a vector environment may reuse its arrays"


@pytest.mark.parametrize(
    ("space", "expected", "ours", "theirs"),
    [
        (spaces.Discrete(3, start=-1), Discrete(3), ints(0, 2), ints(-1, 1, dtype=np.int64)),
        (spaces.Box(-1, 1, (2,), np.float64), Box(-1, 1, (2,)), np.float32([[0.5, 1]]), np.array([[0.5, 1]])),
        (spaces.MultiDiscrete([3, 2], start=[1, -1]), MultiDiscrete((3, 2)), ints([2, 1]), ints([3, 0], dtype=np.int64)),
        (
            spaces.MultiDiscrete([[3, 2], [4, 5]]),
            MultiDiscrete((3, 2, 4, 5)),
            ints([2, 1, 0, 4]),
            ints([[2, 1], [0, 4]], dtype=np.int64),
        ),
        (spaces.MultiBinary((1, 2)), MultiDiscrete((2, 2)), ints([1, 0]), np.int8([[[1, 0]]])),
    ],
    ids=["shifted", "float64", "numbers", "table", "bits"],
)
def test_actions_are_converted(space, expected, ours, theirs):
    converted_space, convert = bridge._actions(space)
    assert converted_space == expected
    converted = convert(ours)
    assert converted.dtype == theirs.dtype
    np.testing.assert_array_equal(converted, theirs)
    assert space.contains(converted[0])


def test_what_does_not_fit_a_narrow_integer_is_an_error_and_does_not_wrap():
    for space in (spaces.Box(0, 9, (2,), np.int64), spaces.MultiDiscrete([9, 9])):
        _, convert = bridge._observations(space)
        with pytest.raises(ValueError, match=r"does not fit int32: 1700000000000.*its true bounds"):
            convert(np.array([[3, 1_700_000_000_000]]))


class Valve(gymnasium.Env):
    """Observations with a mask; it pays for what was wanted, a number for each part, and raises for an illegal part."""

    metadata = {"render_modes": []}  # noqa: RUF012
    action_space = spaces.MultiDiscrete([3, 2], start=[1, 10])
    observation_space = spaces.Dict(
        wanted=spaces.MultiDiscrete([3, 2], start=[1, 10]), action_mask=spaces.MultiBinary(5), time=spaces.Box(0, 9, (), np.int64)
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._observed(), {}

    def step(self, action):
        assert self.mask[action[0] - 1]
        assert self.mask[3 + action[1] - 10]
        reward, self.time = float((action == self.wanted).all()), self.time + 1
        return self._observed(), reward, False, self.time == 3, {}

    def _observed(self):
        self.wanted = self.np_random.integers([1, 10], [4, 12])
        self.mask = self.np_random.integers(0, 2, 5, np.int8)
        self.mask[[self.wanted[0] - 1, 3 + self.wanted[1] - 10]] = 1
        return {"wanted": self.wanted, "action_mask": self.mask, "time": np.int64(self.time)}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_dicts_come_as_dicts_of_batches(asynchronous):
    """The wanted action, legal and shifted to start at 0, earns its reward in each environment."""
    env = from_gymnasium(Valve, asynchronous=asynchronous)
    assert env.action_space == MultiDiscrete((3, 2))
    mask_space = Box(False, True, (5,), np.bool_)
    assert env.observation_space == Dict(
        {"wanted": MultiDiscrete((3, 2)), "action_mask": mask_space, "time": Box(0, 9, (), np.int32)}
    )
    with closing(env.params.open(2)) as envs:
        obs = envs.reset([0, 1])
        for time in range(3):
            assert {name: (x.shape, x.dtype) for name, x in obs.items()} == {
                "wanted": ((2, 2), np.int32), "action_mask": ((2, 5), np.bool_), "time": ((2,), np.int32)
            }  # fmt: skip
            assert obs["time"].tolist() == [time] * 2
            assert obs["action_mask"][[0, 1], obs["wanted"][:, 0]].all()
            before = jax.tree.map(np.copy, obs)
            after, reward, _, truncated = envs.step(obs["wanted"])
            assert reward.tolist() == [1, 1]
            assert truncated.tolist() == [time == 2] * 2
            jax.tree.map(np.testing.assert_array_equal, obs, before)  # of the step before, kept by whoever holds it
            obs = after
        assert not obs["action_mask"].all()
        assert obs["action_mask"].any(axis=-1).all()
        fresh = envs.reset(mask=np.array([False, True]))
        assert fresh["time"].tolist() == [3, 0]


def test_where_nothing_is_legal_everything_is():
    """In each part of an action by itself: there must be something to choose, also at the end of a game."""
    space, convert = bridge._observations(spaces.Dict(action_mask=spaces.MultiBinary(5)))
    masks = ints([0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], dtype=np.int8)
    for actions, wanted in (
        (MultiDiscrete((3, 2)), ([0, 1, 0, 1, 1], [1, 1, 1, 0, 1], [1] * 5)),
        (Discrete(5), ([0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [1] * 5)),
    ):
        converted = bridge._bool_mask(space, convert, actions)[1]({"action_mask": masks})
        np.testing.assert_array_equal(converted["action_mask"], ints(*wanted).astype(bool))


def test_a_mask_in_info_is_shown_by_a_wrapper():
    """As in docs/suites.md."""
    taxi = gymnasium.make("Taxi-v4")
    env = from_gymnasium(lambda: ShowMask(gymnasium.make("Taxi-v4")))
    assert env.observation_space == Dict({"observation": Discrete(500), "action_mask": Box(False, True, (6,), np.bool_)})
    with closing(env.params.open(1)) as envs:
        obs = envs.reset([3])
        their_obs, info = taxi.reset(seed=3)
        assert obs["observation"].tolist() == [their_obs]
        np.testing.assert_array_equal(obs["action_mask"], [info["action_mask"] == 1])
        action = int(np.flatnonzero(info["action_mask"])[0])
        obs = envs.step(ints(action))[0]
        their_obs, *_, info = taxi.step(action)
        assert obs["observation"].tolist() == [their_obs]
        np.testing.assert_array_equal(obs["action_mask"], [info["action_mask"] == 1])


class ShowMask(gymnasium.Wrapper):
    def __init__(self, env):
        super().__init__(env)
        mask = spaces.MultiBinary(int(env.action_space.n))
        self.observation_space = spaces.Dict(observation=env.observation_space, action_mask=mask)

    def reset(self, **kwargs):
        obs, info = self.env.reset(**kwargs)
        return {"observation": obs, "action_mask": info["action_mask"]}, info

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        return {"observation": obs, "action_mask": info["action_mask"]}, reward, terminated, truncated, info


def test_the_example_of_a_mask_is_that_of_the_page():
    page = (Path(__file__).parents[3] / "docs" / "suites.md").read_text()
    assert inspect.getsource(ShowMask).strip() in page


@pytest.mark.parametrize(
    ("role", "space", "fix"),
    [
        ("observation", spaces.Text(5), r"observation space Text\(.*FlattenObservation"),
        ("observation", spaces.Dict(a=spaces.Sequence(spaces.Discrete(2))), r"observation space Sequence\(.*FlattenObservation"),
        ("action", spaces.Tuple([spaces.Discrete(2)]), r"action space Tuple\(.*MultiDiscrete.*gymnasium\.ActionWrapper"),
        ("action", spaces.Dict(a=spaces.Discrete(2)), r"action space Dict\(.*gymnasium\.ActionWrapper"),
        (
            "observation",
            spaces.Dict(action_mask=spaces.MultiBinary(3)),
            r"\[n\] for Discrete\(n\).*\[3\].* for Discrete\(2\): rename",
        ),
        ("observation", spaces.Dict(action_mask=spaces.Tuple([spaces.MultiBinary(2)])), "got Dict.* for Discrete"),
    ],
)
def test_other_spaces_are_refused_with_the_fix(role, space, fix):
    class Odd(Counter):
        observation_space = space if role == "observation" else Counter.observation_space
        action_space = space if role == "action" else Counter.action_space

    with pytest.raises(ValueError, match=fix):
        from_gymnasium(Odd)


def test_a_host_environment_with_entries_can_be_traced_and_not_run():
    env = from_gymnasium(Valve)
    _, obs = jax.eval_shape(env.reset, jax.random.key(0), env.params)
    assert obs == spec(env.observation_space)
    _, after = jax.eval_shape(env.step, jax.random.key(0), (), jnp.zeros(2, jnp.int32), env.params)
    assert after.obs == spec(env.observation_space)
    with pytest.raises(TypeError, match=r"Valve runs on the host and cannot be compiled: train with .*train_on_host"):
        env.reset(jax.random.key(0), env.params)


def test_names_and_limits_are_gymnasiums():
    env = jaxrl.make("gymnasium/Pendulum-v1", g=5.0)
    assert env.name == "gymnasium/Pendulum-v1"
    assert env.params.max_steps_in_episode == 200
    assert str(env.action_space) == "Box(-2 … 2, [1], float32)"
    assert from_gymnasium(Counter).name == "Counter"
    with pytest.raises(ValueError, match=r"unknown environment 'gymnasium/CartPole-v9'; did you mean gymnasium/CartPole-v1"):
        jaxrl.make("gymnasium/CartPole-v9")
    with pytest.raises(ValueError, match=r"gymnasium/Cart Pole!: Malformed environment ID"):
        jaxrl.make("gymnasium/Cart Pole!")
    with pytest.raises(TypeError, match=r"make_env must be a function, such as .*; got 'CartPole-v1'"):
        from_gymnasium("CartPole-v1")


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


def dial():
    """A mask, a count and a nested entry. An action sets the dial to its first part, and pays the second."""
    entries = {"at": Discrete(3), "parts": MultiDiscrete((3, 2)), "half": Box(0, 1, ())}
    space = Dict({"seen": Dict(entries), "action_mask": Box(False, True, (5,), np.bool_)})

    def observe(action):
        mask = jnp.ones(5, jnp.bool_).at[action[0]].set(False)
        return {
            "seen": {"at": action[0], "parts": action, "half": jnp.float32(0.5) * action[0].astype(jnp.float32)},
            "action_mask": mask,
        }

    def reset(key, params):
        action = jax.random.randint(key, (2,), 0, 2)
        return action, observe(action)

    def step(key, state, action, params):
        return action, Step(observe(action), action[1].astype(jnp.float32), jnp.bool_(False), jnp.bool_(False))

    return Environment(reset, step, (), space, MultiDiscrete((3, 2)), "Dial-v0")


EXPORTED = [jaxrl.make("MountainCar-v0"), jaxrl.make("Breakout-MinAtar"), jaxrl.make("FrozenLake-misc"), bounded_point(), dial()]


@pytest.mark.parametrize("env", EXPORTED, ids=lambda env: env.name)
def test_exported_environments_pass_gymnasiums_checker_without_a_warning(env):
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


def test_exported_dicts_and_actions_of_several_parts():
    """There and back again the spaces are the same; and the observations are in the exported space."""
    env = dial()
    exported = to_gymnasium(env)
    assert exported.action_space == spaces.MultiDiscrete([3, 2])
    assert exported.observation_space["seen"]["parts"] == spaces.MultiDiscrete([3, 2])
    back = from_gymnasium(partial(to_gymnasium, env))
    assert (back.observation_space, back.action_space) == (env.observation_space, env.action_space)
    assert exported.reset(seed=0)[0] in exported.observation_space
    obs, reward, *_ = exported.step(np.array([2, 1]))
    assert obs in exported.observation_space
    assert reward == 1.0
    assert obs["seen"]["at"] == 2
    assert obs["seen"]["parts"].tolist() == [2, 1]
    assert obs["seen"]["half"] == 1.0
    assert obs["action_mask"].tolist() == [True, True, False, True, True]
    with pytest.raises(ValueError, match=r"Dial-v0: action \[2, 2\] is outside 0 … \[2, 1\]"):
        exported.step([2, 2])


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
    with pytest.raises(ValueError, match="action 2 is outside 0 … 1"):
        exported.step(2)
    with pytest.raises(ValueError, match=r"action 0\.9 is no integer, and the actions are Discrete"):
        exported.step(0.9)
    assert exported.step(1.0)[0] is not None


@pytest.mark.parametrize(("name", "id"), [("a/b/c", "a-b/c"), ("my.pkg/Env-v0", "my-pkg/Env-v0"), ("", "env"), ("x/", "x/env")])
def test_an_exported_name_is_one_that_gymnasium_allows(name, id):
    assert to_gymnasium(endless()._replace(name=name)).spec.id == id


def test_a_time_limit_of_any_type_is_exported():
    env = jaxrl.make("CartPole-v1")
    grid = wrappers.params_grid(env.params, max_steps_in_episode=[5, 9])
    assert to_gymnasium(wrappers.over_params(env, grid)).spec.max_episode_steps == 9
    traced = env._replace(params=env.params.replace(max_steps_in_episode=jnp.int32(20)))
    assert to_gymnasium(traced).spec.max_episode_steps == 20


class Narrow(gymnasium.Env):
    """Its bound in 64 bits is below that in 32."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Box(-0.1, 0.1, (1,), np.float64)
    closed = 0

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def close(self):
        Narrow.closed += 1


def test_an_action_at_a_bound_of_64_bits_is_within_it():
    env = from_gymnasium(Narrow)
    envs = env.params.open(1)
    envs.reset([0])
    envs.step(np.asarray(env.action_space.high)[None])
    envs.step(np.asarray(env.action_space.low)[None])
    envs.close()


def test_an_environment_whose_spaces_are_refused_is_closed():
    class Text(Narrow):
        observation_space = gymnasium.spaces.Text(3)

    before = Narrow.closed
    with pytest.raises(ValueError, match="Text"):
        from_gymnasium(Text)
    assert Narrow.closed == before + 1
