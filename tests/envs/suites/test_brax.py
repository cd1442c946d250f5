"""brax's environments against brax's own EpisodeWrapper, step by step."""

import numpy as np
import pytest

import jaxrl
from jaxrl.envs.suites.adapter import lenient
from tests.envs.suites.common import (
    assert_same,
    beside_episode_wrapper,
    check_types,
    play_beside,
    reinforce,
    returns_before_and_after,
)

envs = pytest.importorskip("brax.envs")
LIMIT = 15


@pytest.mark.parametrize(("name", "kwargs"), [("inverted_pendulum", {}), ("ant", {"backend": "spring"})], ids=["pendulum", "ant"])
def test_steps_equal_braxs(name, kwargs):
    env = jaxrl.make(f"brax/{name}", max_steps_in_episode=LIMIT, **kwargs)
    check_types(env)
    assert str(env.action_space).startswith("Box(-1 … 1")
    with lenient():
        theirs = envs.create(name, episode_length=LIMIT, auto_reset=False, **kwargs)
    ours, their, _ = play_beside(env, beside_episode_wrapper(theirs))
    ours = (*ours[:3], ours[3] & ~ours[2])  # terminated wins, as it does in brax
    assert_same(ours, their, rtol=1e-4, atol=1e-4)
    assert ours[3].any()
    assert ours[2].any() or name != "inverted_pendulum"


def test_brax_without_a_time_limit_and_wrong_input():
    from jaxrl.envs.suites.brax import from_brax

    env = jaxrl.make("brax/inverted_pendulum", max_steps_in_episode=None)
    assert env.params.max_steps_in_episode is None
    with pytest.raises(ValueError, match=r"unknown environment 'brax/Ant'; did you mean brax/ant"):
        jaxrl.make("brax/Ant")
    with lenient():
        wrapped = envs.create("inverted_pendulum")
    with pytest.raises(TypeError, match="bare brax environment, got the wrapper AutoResetWrapper"):
        from_brax(wrapped)


def test_reinforce_keeps_the_pendulum_up_longer():
    """A run that has learned may lose it again at this rate: so the mean gain of eight must be above four standard errors."""
    env = jaxrl.make("brax/inverted_pendulum", max_steps_in_episode=100)
    learner = reinforce(env, num_envs=16, rollout_length=100, mode="episodic", baseline="mean")
    before, after = returns_before_and_after(learner, 60, seeds=8, learning_rate=1e-2)
    gain = after - before
    assert gain.mean() > 4 * gain.std(ddof=1) / np.sqrt(gain.size)
