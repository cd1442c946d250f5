"""Actions: what is executed, seen through an environment that shows it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from jaxrl.envs import wrappers as w
from jaxrl.types import Box, Discrete
from tests.envs.wrappers.problems import check_types, echo, episodes, jit, played, walk

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
def play_sticky() -> tuple[np.ndarray, np.ndarray]:
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
    play = jax.vmap(jax.vmap(episode, (None, 0, 0)), (0, None, None))
    shown = jit(play)(jnp.array([0.0, 0.25, 1.0]), jax.random.split(jax.random.key(0), 50), actions)
    return np.broadcast_to(actions, shown.shape), np.asarray(shown)


def test_sticky_actions_at_0_and_at_1():
    given, shown = play_sticky()
    np.testing.assert_array_equal(shown[0], given[0])
    np.testing.assert_array_equal(shown[2], np.broadcast_to(given[2, :, :1], given[2].shape))


def test_sticky_actions_repeat_what_was_executed_as_often_as_they_say():
    given, shown = (x[1] for x in play_sticky())
    np.testing.assert_array_equal(shown[:, 0], given[:, 0])
    again = (shown[:, 1:] == shown[:, :-1]) & (shown[:, 1:] != given[:, 1:])
    assert np.all(again | (shown[:, 1:] == given[:, 1:]))
    chance = 0.25 * (1 - 1 / 1000)  # the new action may be the old one
    assert abs(again.mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / again.size)


def test_stickiness_does_not_outlive_an_episode():
    """Each episode begins with the action that was given."""
    transitions = played("sticky_actions").transitions
    for b in range(transitions.reward.shape[1]):
        for episode in episodes(transitions, b):
            expected = np.clip(episode.obs[0] + episode.action[0] + np.float32(0.25), -4, 4)
            np.testing.assert_allclose(episode.next_obs[0], expected, atol=1e-6)


def test_repeated_actions_equal_a_loop_by_hand():
    """Two steps of the walk for each action; the episode ends inside a repeat, by the time limit of 5 or beyond 2."""
    transitions = played("action_repeat").transitions
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


def test_numbers_may_be_observed_through_repeats():
    check_types(w.action_repeat(echo(Discrete(3)), 2))


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
        (lambda: w.action_grid(Box(0, 1, (17,)), 3), ValueError, r"3\^17 actions, more than 65536; use fewer bins, or"),
        (lambda: w.discretize_actions(echo(SPACE), [[0.0]]), ValueError, r"actions must be \[N, 2\], got \[1, 1\]"),
        (lambda: w.discretize_actions(echo(SPACE), [[-1, 1], [0, 1]]), ValueError, r"action 1, \[0\. 1\.\], is not in Box"),
        (lambda: w.sticky_actions(walk(), 1.5), ValueError, r"probability must lie in \[0, 1\], got 1.5"),
        (lambda: w.sticky_actions(walk(), "often"), TypeError, "probability must be a number, got 'often'"),
        (lambda: w.action_repeat(walk(), 0), ValueError, "num_repeats must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_mend(wrap, error, message):
    with pytest.raises(error, match=message):
        wrap()
