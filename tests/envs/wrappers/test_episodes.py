"""Time limits and episode statistics."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl.envs import wrappers as w
from tests.envs.wrappers.problems import constant, done, episodes, random_rollout, rollout_of, walk
from tests.problems import countdown, endless


def flags(env, num_steps):
    """(terminated, truncated) of the steps of one episode, as the environment gives them."""
    state, _ = env.reset(jax.random.key(0), env.params)
    seen = []
    for _ in range(num_steps):
        state, after = env.step(jax.random.key(0), state, jnp.int32(0), env.params)
        seen.append((bool(after.terminated), bool(after.truncated)))
    return seen


GOES_ON, TERMINATED, TRUNCATED = (False, False), (True, False), (False, True)


@pytest.mark.parametrize(
    ("env", "limit", "last"),
    [
        (lambda: countdown(3), 3, TERMINATED),  # on the same step: termination wins
        (lambda: countdown(3), 4, TERMINATED),
        (lambda: countdown(9), 3, TRUNCATED),
        (lambda: endless(limit=10**9), 3, TRUNCATED),  # there was none
        (lambda: endless(limit=3), 3, TRUNCATED),
        (lambda: endless(limit=3), 7, TRUNCATED),  # the limit inside comes first
    ],
)
def test_a_time_limit_truncates_and_never_terminates(env, limit, last):
    assert flags(w.time_limit(env(), limit), 3) == [GOES_ON, GOES_ON, last]


def test_a_time_limit_counts_from_the_start_of_each_episode():
    transitions = rollout_of("time_limit").transitions
    lengths = [len(e.reward) for b in range(3) for e in episodes(transitions, b) if done(e).any()]
    assert max(lengths) == 4
    assert not np.any(transitions.truncated & transitions.terminated)


def test_a_time_limit_may_be_traced():
    env = w.time_limit(constant(limit=100), 9)

    def last(limit):
        params = env.params._replace(max_steps=limit)
        state, _ = env.reset(jax.random.key(0), params)
        for _ in range(2):
            state, after = env.step(jax.random.key(0), state, jnp.int32(0), params)
        return after.truncated

    np.testing.assert_array_equal(jax.vmap(last)(jnp.arange(1, 5)), [True, True, False, False])
    built_inside = jax.eval_shape(lambda limit: w.time_limit(walk(), limit).params.max_steps_in_episode, jnp.int32(3))
    assert built_inside.dtype == jnp.int32


def test_the_smaller_of_two_limits_is_the_one_to_be_read():
    assert w.time_limit(walk(5), 3).params.max_steps_in_episode == 3
    assert w.time_limit(walk(5), 8).params.max_steps_in_episode == 5
    assert w.time_limit(endless(), 8).params.max_steps_in_episode == 8
    assert w.action_repeat(w.time_limit(walk(5), 8), 3).params.max_steps_in_episode == 2
    assert w.time_limit(w.action_repeat(walk(5), 3), 8).params.max_steps_in_episode == 2


def test_statistics_are_those_of_the_episodes():
    plain, counted = rollout_of("plain").transitions, rollout_of("episode_statistics")
    jax.tree.map(np.testing.assert_array_equal, counted.transitions, plain)
    statistics = w.find_state(counted.env_state, w.EpisodeStatistics)
    for b in range(3):
        *finished, under_way = episodes(plain, b)
        if done(under_way).any():
            finished, under_way = [*finished, under_way], under_way._replace(reward=np.zeros(0))
        np.testing.assert_allclose(statistics.episode_return[b], under_way.reward.sum(), rtol=1e-5, atol=1e-5)
        assert statistics.episode_length[b] == len(under_way.reward)
        np.testing.assert_allclose(statistics.last_return[b], finished[-1].reward.sum(), rtol=1e-5, atol=1e-5)
        assert statistics.last_length[b] == len(finished[-1].reward)
        assert statistics.episodes[b] == len(finished)


def test_before_the_first_end_there_is_no_last_return():
    state, _ = w.episode_statistics(walk()).reset(jax.random.key(0), walk().params)
    assert np.isnan(state.last_return)
    assert state.episodes == 0


def test_statistics_inside_are_of_the_rewards_there():
    outside = w.find_state(
        random_rollout(w.episode_statistics(w.scale_rewards(constant(), 10.0)), 6, 1).env_state, w.EpisodeStatistics
    )
    inside = w.find_state(
        random_rollout(w.scale_rewards(w.episode_statistics(constant()), 10.0), 6, 1).env_state, w.EpisodeStatistics
    )
    assert (outside.last_return, outside.episode_return) == (40.0, 20.0)
    assert (inside.last_return, inside.episode_return) == (4.0, 2.0)


def test_a_record_is_found_at_any_depth_and_missed_by_name():
    env = w.sticky_actions(w.normalize_observations(w.time_limit(walk(), 3)))
    state, _ = env.reset(jax.random.key(0), env.params)
    assert isinstance(w.find_state(state, w.NormalizedObservations).statistics, w.RunningStatistics)
    with pytest.raises(ValueError, match="there is no EpisodeStatistics in a StickyActions: wrap the environment in it"):
        w.find_state(state, w.EpisodeStatistics)


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (2.5, TypeError)])
def test_a_limit_is_a_positive_int(limit, error):
    with pytest.raises(error, match="max_steps must be"):
        w.time_limit(walk(), limit)
    if error is TypeError:
        with pytest.raises(error, match=r"max_steps must be an int, got .*float32\[\]"):
            jax.eval_shape(lambda limit: w.time_limit(walk(), limit).params, jnp.float32(limit))


def test_rewards_are_scaled_and_clipped():
    plain = rollout_of("plain").transitions
    scaled, clipped = rollout_of("scale_rewards").transitions, rollout_of("clip_rewards").transitions
    np.testing.assert_allclose(scaled.reward, 0.1 * plain.reward, rtol=1e-6)
    np.testing.assert_allclose(clipped.reward, np.clip(plain.reward, -1, 1), rtol=1e-6)
    for ours in (scaled, clipped):
        np.testing.assert_array_equal(ours.terminated, plain.terminated)
    assert np.abs(plain.reward).max() > 1


def test_what_changes_rewards_may_be_traced():
    def first_reward(x):
        env = w.clip_rewards(w.scale_rewards(w.normalize_rewards(constant(), discount=x, clip=x), x), -x, x)
        state, _ = env.reset(jax.random.key(0), env.params)
        return env.step(jax.random.key(0), state, jnp.int32(0), env.params)[1].reward

    np.testing.assert_allclose(jax.vmap(first_reward)(jnp.array([0.25, 1.0])), [0.0625, 1.0])


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda: w.scale_rewards(walk(), float("nan")), "scale must lie in .* got nan"),
        (lambda: w.clip_rewards(walk(), 2.0, 1.0), "low 2.0 is above high 1.0"),
    ],
)
def test_wrong_scales_and_bounds_are_refused(wrap, message):
    with pytest.raises(ValueError, match=message):
        wrap()


class HasEnv(NamedTuple):
    env: int


def test_an_environment_whose_own_state_has_a_field_env_ends_the_search():
    with pytest.raises(ValueError, match="there is no RunningStatistics in a HasEnv"):
        w.find_state(HasEnv(3), w.RunningStatistics)
