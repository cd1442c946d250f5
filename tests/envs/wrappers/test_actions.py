"""Actions: what is executed, seen through an environment that shows it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from jaxrl.envs import wrappers as w
from jaxrl.spaces import split_action_mask
from jaxrl.types import Box, Dict, Discrete, MultiDiscrete
from tests.envs.wrappers.problems import check_types, echo, episodes, jit, rollout_of, room, walk

SPACE = Box([-2.0, 0.1], [-1.0, 1e6], (2,))


def executed(env, actions) -> np.ndarray:
    state, _ = env.reset(jax.random.key(0), env.params)
    return np.stack([env.step(jax.random.key(0), state, jnp.asarray(action), env.params)[1].obs for action in actions])


def test_rescaled_actions_reach_both_bounds_exactly_and_no_further():
    env = w.rescale_actions(echo(SPACE))
    below, low, middle, high, above = executed(env, np.float32([[-3, -3], [-1, -1], [0, 0], [1, 1], [3, 3]]))
    for shown, bound in ((below, SPACE.low), (low, SPACE.low), (high, SPACE.high), (above, SPACE.high)):
        np.testing.assert_array_equal(shown, bound)
    np.testing.assert_allclose(middle, (SPACE.low + SPACE.high) / 2)
    assert (env.action_space.low == -1).all()
    assert (env.action_space.high == 1).all()


def test_clipped_actions_are_the_nearest_in_the_space():
    env = w.clip_actions(echo(SPACE))
    actions = np.float32([[-5, 5], [-1.5, 0], [7, 2e6]])
    np.testing.assert_array_equal(executed(env, actions), np.clip(actions, SPACE.low, SPACE.high))
    assert not env.action_space.bounded


@settings(deadline=None, max_examples=30)
@drawn(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=3), st.floats(0.125, 50, width=32), st.integers(2, 4))
def test_a_grid_has_every_combination_and_its_bounds(low, extent, bins):
    low = np.float32(low)
    space = Box(low, low + np.float32(extent), low.shape)
    grid = w.action_grid(space, bins)
    assert grid.shape == (bins ** len(low), len(low))
    assert grid.dtype == np.float32
    assert len(np.unique(grid, axis=0)) == len(grid)
    np.testing.assert_array_equal(grid[0], space.low)
    np.testing.assert_array_equal(grid[-1], space.high)
    for values, a, b in zip(grid.T, space.low, space.high, strict=True):
        np.testing.assert_array_equal(np.unique(values), np.linspace(a, b, bins, dtype=np.float32))


@pytest.mark.parametrize("shape", [(), (2,), (2, 1)])
def test_each_discrete_action_executes_its_own_and_none_other(shape):
    space = Box(-1, 3, shape)
    table = w.action_grid(space, 3)
    env = w.discretize_actions(echo(space), table)
    assert env.action_space == Discrete(len(table))
    np.testing.assert_array_equal(executed(env, np.arange(len(table), dtype=np.int32)), table)


@functools.cache
def sticky_rollouts() -> tuple[np.ndarray, np.ndarray]:
    """Actions given and executed, each `[3, B, T]`, for the probabilities 0, 1/4 and 1: a traced, batched parameter."""
    env = w.sticky_actions(echo(Discrete(1000)))

    def episode(probability, key, actions):
        params = env.params._replace(probability=probability)
        state, _ = env.reset(key, params)

        def step(state, key_and_action):
            state, after = env.step(key_and_action[0], state, key_and_action[1], params)
            return state, after.obs

        return jax.lax.scan(step, state, (jax.random.split(key, 40), actions))[1]

    actions = np.random.default_rng(0).integers(0, 1000, (50, 40)).astype(np.int32)
    rollouts = jax.vmap(jax.vmap(episode, (None, 0, 0)), (0, None, None))
    shown = jit(rollouts)(jnp.array([0.0, 0.25, 1.0]), jax.random.split(jax.random.key(0), 50), actions)
    return np.broadcast_to(actions, shown.shape), np.asarray(shown)


def test_sticky_actions_at_0_and_at_1():
    given, shown = sticky_rollouts()
    np.testing.assert_array_equal(shown[0], given[0])
    np.testing.assert_array_equal(shown[2], np.broadcast_to(given[2, :, :1], given[2].shape))


def test_sticky_actions_repeat_what_was_executed_as_often_as_they_say():
    given, shown = (x[1] for x in sticky_rollouts())
    np.testing.assert_array_equal(shown[:, 0], given[:, 0])
    again = (shown[:, 1:] == shown[:, :-1]) & (shown[:, 1:] != given[:, 1:])
    assert np.all(again | (shown[:, 1:] == given[:, 1:]))
    chance = 0.25 * (1 - 1 / 1000)  # the new action may be the old one
    assert abs(again.mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / again.size)


def test_stickiness_does_not_outlive_an_episode():
    """Each episode begins with the action that was given."""
    transitions = rollout_of("sticky_actions").transitions
    for b in range(transitions.reward.shape[1]):
        for episode in episodes(transitions, b):
            expected = np.clip(episode.obs[0] + episode.action[0] + np.float32(0.25), -4, 4)
            np.testing.assert_allclose(episode.next_obs[0], expected, atol=1e-6)


def test_repeated_actions_equal_a_loop_by_hand():
    """Two steps of the walk for each action; the episode ends inside a repeat, by the time limit of 5 or beyond 2."""
    transitions = rollout_of("action_repeat").transitions
    lengths = []
    for b in range(transitions.reward.shape[1]):
        for episode in episodes(transitions, b):
            position, time = episode.obs[0].astype(np.float64), 0
            for i, action in enumerate(episode.action):
                reward, terminated, truncated = 0.0, False, False
                for _ in range(2):
                    if not (terminated or truncated):
                        position, time = np.clip(position + action + 0.25, -4, 4), time + 1
                        reward += position[0] + 10 * position[1]
                        terminated, truncated = position[0] > 2, time >= 5
                np.testing.assert_allclose(episode.next_obs[i], position, atol=1e-5)
                np.testing.assert_allclose(episode.reward[i], reward, atol=1e-4)
                assert (episode.terminated[i], episode.truncated[i]) == (terminated, truncated and not terminated)
            lengths.append(time)
    assert 5 in lengths  # three actions, the last of them cut short
    assert transitions.terminated.any()


def test_integers_may_be_observed_through_repeats():
    check_types(w.action_repeat(echo(Discrete(3)), 2))


def test_bins_of_each_dimension_reach_the_bounds_exactly():
    env = w.discretize_actions(echo(SPACE), 3)
    assert env.action_space == MultiDiscrete((3, 3))
    low, high, mixed = executed(env, np.int32([[0, 0], [2, 2], [1, 0]]))
    np.testing.assert_array_equal(low, SPACE.low)
    np.testing.assert_array_equal(high, SPACE.high)
    np.testing.assert_allclose(mixed, [-1.5, 0.1], rtol=1e-6)
    matrix = w.discretize_actions(echo(Box(-1, 3, (2, 2))), 5)
    np.testing.assert_array_equal(executed(matrix, np.int32([[0, 1, 2, 4]]))[0], [[-1, 0], [1, 3]])


# --- with action masks: entry t mod n of the room's mask is False at step t, and an illegal action pays -100


def legal_actions(mask: np.ndarray, nvec: tuple[int, ...]) -> list[np.ndarray]:
    """The legal choices of each component."""
    return [np.flatnonzero(part) for part in np.split(mask, np.cumsum(nvec)[:-1])]


def legal_episode(env, seed: int, num_steps: int = 40, choose=None):
    """Actions that are legal when they are given, and the rewards of one long episode."""
    rng, step = np.random.default_rng(seed), jax.jit(env.step)
    space = env.action_space
    nvec = (space.n,) if isinstance(space, Discrete) else space.nvec
    state, obs = env.reset(jax.random.key(seed), env.params)
    given, rewards, executed = [], [], []
    for i in range(num_steps):
        choices = legal_actions(np.asarray(obs["action_mask"]), nvec)
        action = np.int32([rng.choice(c) if choose is None else choose(c, i) for c in choices]).reshape(space.shape)
        state, out = step(jax.random.key(i), state, jnp.asarray(action), env.params)
        obs = out.obs
        given.append(action)
        rewards.append(float(out.reward))
        executed.append(np.asarray(getattr(state, "action", action)))
    return np.array(given), np.array(rewards), np.array(executed)


def long_room(action_space):
    """The room, without an end."""
    env = room(action_space, limit=1000)
    return env._replace(params=env.params._replace(drift=np.float32(0.0)))


@pytest.mark.parametrize("space", [Discrete(4), MultiDiscrete((2, 3)), MultiDiscrete((2,))])
@pytest.mark.parametrize("probability", [0.5, 1.0])
def test_a_sticky_action_that_is_illegal_is_not_executed(space, probability):
    """And the agent's own is executed in its place; where the last action is legal, it sticks as ever."""
    env = w.sticky_actions(long_room(space), probability)
    given, rewards, executed = legal_episode(env, 0)
    np.testing.assert_array_equal(rewards, 0.0)
    nvec = (space.n,) if isinstance(space, Discrete) else space.nvec
    stuck = 0
    for t in range(1, len(given)):
        mask = np.arange(sum(nvec)) != t % sum(nvec)
        components = zip(np.atleast_1d(executed[t - 1]), legal_actions(mask, nvec), strict=True)
        legal = all(component in choices for component, choices in components)
        expected = [given[t]] if not legal else [executed[t - 1]] if probability == 1 else [given[t], executed[t - 1]]
        assert any(np.array_equal(executed[t], x) for x in expected)
        stuck += not np.array_equal(executed[t], given[t])
    assert stuck > 3 or space == MultiDiscrete((2,))  # there one choice is legal at each step


def test_an_agent_that_gives_an_illegal_action_is_not_corrected():
    env = w.sticky_actions(long_room(Discrete(3)), 0.0)
    state, _ = env.reset(jax.random.key(0), env.params)
    assert env.step(jax.random.key(0), state, jnp.int32(0), env.params)[1].reward == -100


@pytest.mark.parametrize(("action", "lengths"), [(3, [3, 2, 2, 2]), (1, [1, 2, 2])])
def test_repeats_end_where_the_action_has_become_illegal(action, lengths):
    """At step t, action t mod 4 is illegal: action 3 at steps 3, 7, …, action 1 at 1, 5, …; the agent then changes."""
    env = w.action_repeat(room(Discrete(4), limit=1000), 3)
    env = env._replace(params=dataclasses.replace(env.params, env=env.params.env._replace(drift=np.float32(1e-3))))
    state, obs = env.reset(jax.random.key(0), env.params)
    taken, time = [], 0
    for _ in lengths:
        chosen = action if obs["action_mask"][action] else (action + 2) % 4
        state, out = env.step(jax.random.key(0), state, jnp.int32(chosen), env.params)
        obs = out.obs
        taken.append(int(state.time) - time)
        np.testing.assert_allclose(out.reward, taken[-1] * 1e-3 * (1 + chosen), rtol=1e-5)
        time = int(state.time)
    assert taken == lengths


def test_with_masks_every_repeat_may_be_a_single_step():
    assert w.action_repeat(room(limit=7), 3).params.max_steps_in_episode == 7
    assert w.action_repeat(walk(7), 3).params.max_steps_in_episode == 3


def test_flattened_actions_are_the_combinations_and_so_is_their_mask():
    nvec = (2, 3, 2)
    env = w.flatten_actions(room(MultiDiscrete(nvec)))
    assert env.action_space == Discrete(12)
    state, obs = env.reset(jax.random.key(0), env.params)
    for t in range(3):
        parts = np.split(np.arange(7) != t, np.cumsum(nvec)[:-1])
        expected = [all(parts[i][c] for i, c in enumerate(combination)) for combination in np.ndindex(nvec)]
        np.testing.assert_array_equal(obs["action_mask"], expected)
        assert set(obs) == set(env.observation_space) == set(room().observation_space)
        assert 0 < sum(expected) < 12
        for action, legal in enumerate(expected):
            reward = env.step(jax.random.key(0), state, jnp.int32(action), env.params)[1].reward
            assert (reward == -100) == (not legal)
        state, out = env.step(jax.random.key(0), state, jnp.int32(np.flatnonzero(expected)[0]), env.params)
        obs = out.obs
    shown = executed(w.flatten_actions(echo(MultiDiscrete(nvec))), np.arange(12, dtype=np.int32))
    np.testing.assert_array_equal(shown, list(np.ndindex(nvec)))


def masked(env):
    """An environment that shows a mask for its actions in a Box, which means nothing."""
    space = Dict({"x": env.observation_space, "action_mask": Box(False, True, (2,), np.bool_)})
    return env._replace(observation_space=space)


def test_a_mask_beside_actions_in_a_box_changes_nothing():
    assert split_action_mask(masked(walk()).observation_space)[1] is not None
    assert w.action_repeat(masked(walk(6)), 2).params.max_steps_in_episode == 3


@pytest.mark.parametrize(
    ("wrap", "error", "message"),
    [
        (
            lambda: w.rescale_actions(echo(Discrete(3))),
            ValueError,
            "rescale_actions needs actions in a Box of floats, got Discrete",
        ),
        (lambda: w.rescale_actions(w.clip_actions(walk())), ValueError, "rescale_actions needs finite bounds, got Box"),
        (lambda: w.clip_actions(echo(Discrete(3))), ValueError, "clip_actions needs actions in a Box of floats"),
        (lambda: w.action_grid(Box(0, np.inf, (1,)), 3), ValueError, "action_grid needs a Box with finite bounds"),
        (lambda: w.action_grid(SPACE, 1), ValueError, "bins must be at least 2, got 1"),
        (lambda: w.action_grid(Box(0, 1, (17,)), 3), ValueError, r"3\^17 actions, more than 65536; use fewer bins, give"),
        (lambda: w.discretize_actions(echo(SPACE), 1), ValueError, "discretize_actions: bins must be at least 2, got 1"),
        (lambda: w.discretize_actions(echo(SPACE), 2.5), TypeError, "discretize_actions: bins must be an int"),
        (lambda: w.discretize_actions(w.clip_actions(walk()), 3), ValueError, "discretize_actions needs finite bounds, got Box"),
        (lambda: w.discretize_actions(masked(walk()), 3), ValueError, "walk observes an action mask, .* remove the entry"),
        (lambda: w.flatten_actions(walk()), ValueError, "flatten_actions needs MultiDiscrete actions, got Box"),
        (lambda: w.flatten_actions(echo(MultiDiscrete((300, 300)))), ValueError, "has 90000 combinations, more than 65536"),
        (lambda: w.rescale_actions(room()), ValueError, r"rescale_actions needs actions in a Box of floats, got Discrete\(4\)"),
        (lambda: w.discretize_actions(echo(SPACE), [[0.0]]), ValueError, r"actions must be \[N, 2\], got \[1, 1\]"),
        (lambda: w.discretize_actions(echo(SPACE), [[-1, 1], [0, 1]]), ValueError, r"action 1, \[0\. 1\.\], is not in Box"),
        (lambda: w.sticky_actions(walk(), 1.5), ValueError, r"probability must lie in \[0, 1\], got 1.5"),
        (lambda: w.sticky_actions(walk(), "often"), TypeError, "probability must be a number, got 'often'"),
        (lambda: w.action_repeat(walk(), 0), ValueError, "num_repeats must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_fix(wrap, error, message):
    with pytest.raises(error, match=message):
        wrap()
