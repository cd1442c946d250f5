"""`unroll` against a hand-written loop, and what it must never do at the end of an episode."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl
from jaxrl.resets import reset_scheme
from jaxrl.rollout import RolloutCarry, play_episodes, unroll, zero_stats
from jaxrl.types import Agent, Box, Discrete, Environment, Noise, Step
from tests.problems import countdown, dqn_learner, endless


class HP(NamedTuple):
    scale: float = 1.0


def counting_agent():
    """Carries the number of steps since the episode began, and acts by noise."""

    def explore(policy_params, obs, carry, noise_t, hparams, iteration):
        return noise_t, carry + 1, {"seen": carry}

    return Agent(
        hparams=HP(),
        init=lambda key, obs, hparams: (),
        noise=lambda key, num_steps, num_envs: Noise(jax.random.randint(key, (num_steps, num_envs), 0, 2, jnp.int32)),
        policy=lambda state: (),
        explore=explore,
        exploit=lambda policy_params, obs, carry, key: (jnp.zeros(len(carry), jnp.int32), carry + 1),
        update=lambda state, rollout, noise, hparams, iteration: (state, {}),
        initial_carry=lambda num_envs: jnp.zeros(num_envs, jnp.int32),
    )


def play(env, num_steps=8, num_envs=2):
    learner = jaxrl.make_learner(env, counting_agent(), num_envs=num_envs, rollout_length=num_steps)
    state = jax.jit(learner.init)(jax.random.key(0), HP())
    noise = learner.noise(jax.random.key(1))
    carry = RolloutCarry(state.env, state.obs, state.carry, zero_stats(num_envs))
    fresh_episode = reset_scheme(env, (num_steps, num_envs), None).episode
    run = jax.jit(lambda carry, noise: unroll(env, learner.agent, (), carry, noise, fresh_episode, HP(), jnp.int32(0)))
    return run(carry, noise.rollout), noise


def test_no_observation_of_the_next_episode_is_ever_a_successor():
    (_, rollout), _ = play(countdown(3, reset_value=1000.0))
    done = np.asarray(rollout.terminated)
    assert done[2].all()
    assert done[5].all()
    assert np.asarray(rollout.next_obs)[..., -1].max() == 0.0  # a reset observation would show 1000
    assert (np.asarray(rollout.obs)[[0, 3, 6], :, -1] == 1000.0).all()
    np.testing.assert_array_equal(np.argmax(rollout.next_obs[..., :4], axis=-1)[:6, 0], [1, 2, 3, 1, 2, 3])


def test_the_carry_starts_afresh_with_the_episode():
    (carry, rollout), _ = play(countdown(3))
    np.testing.assert_array_equal(rollout.carry[:, 0], [0, 1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(rollout.extras["seen"], rollout.carry)
    np.testing.assert_array_equal(carry.carry, [2, 2])


def test_an_episode_that_a_time_limit_ends_resets_the_carry_too():
    (_, rollout), _ = play(endless(limit=3))
    np.testing.assert_array_equal(np.flatnonzero(rollout.truncated[:, 0]), [2, 5])
    np.testing.assert_array_equal(rollout.carry[:, 0], [0, 1, 2, 0, 1, 2, 0, 1])


def test_fresh_episodes_start_with_a_fresh_carry_and_count_the_first_alone():
    """Where every environment starts afresh each iteration, whatever was carried before; later episodes fill up the rollout."""
    agent = counting_agent()._replace(fresh_episodes=True)
    learner = jaxrl.make_learner(countdown(3), agent, num_envs=2, rollout_length=8)
    state, noise = learner.init(jax.random.key(0), HP()), learner.noise(jax.random.key(1))
    carry = RolloutCarry(state.env, state.obs, state.carry + 40, zero_stats(2))
    for _ in range(2):
        fresh_episode = reset_scheme(learner.env, (2,), None).episode
        carry, rollout = unroll(learner.env, agent, (), carry, noise.rollout, fresh_episode, HP(), jnp.int32(0))
        np.testing.assert_array_equal(rollout.carry[:, 0], [0, 1, 2, 0, 1, 2, 0, 1])
    np.testing.assert_array_equal(carry.stats.finished, [2, 2])
    np.testing.assert_array_equal(carry.stats.finished_return, [6.0, 6.0])


def test_a_policy_carries_its_state_through_evaluation():
    """`exploit` is given the carry that it returned in the step before, from the initial one on."""
    agent = counting_agent()._replace(exploit=lambda params, obs, carry, key: (carry % 2, carry + 1))
    learner = jaxrl.make_learner(countdown(5), agent, num_envs=2, rollout_length=1)
    actions = lambda recorded, t, step: recorded.at[t].set(step.action)
    start = lambda env_state, obs: jnp.full((5, 3), -1, jnp.int32)
    over, found = play_episodes(jax.random.key(0), learner.env, learner.agent, (), actions, start, num_episodes=3, max_steps=9)
    assert over.all()
    np.testing.assert_array_equal(found, np.tile([[0], [1], [0], [1], [0]], 3))


def test_termination_wins_where_both_flags_are_set():
    env = countdown(3)
    both = env._replace(step=lambda *args: (lambda s, out: (s, out._replace(truncated=out.terminated)))(*env.step(*args)))
    (_, rollout), _ = play(both)
    assert not np.any(rollout.truncated)
    np.testing.assert_array_equal(np.flatnonzero(rollout.terminated[:, 0]), [2, 5])


def test_statistics_count_finished_episodes_alone():
    (carry, _), _ = play(countdown(3))
    stats = carry.stats
    np.testing.assert_array_equal(stats.finished, [2, 2])
    np.testing.assert_array_equal(stats.finished_return, [6.0, 6.0])
    np.testing.assert_array_equal(stats.finished_length, [6.0, 6.0])
    np.testing.assert_array_equal(stats.episode_return, [2.0, 2.0])
    np.testing.assert_array_equal(stats.episode_length, [2, 2])


def test_unroll_equals_a_loop_over_single_environments():
    env = jaxrl.make("CartPole-v1")
    (_, rollout), noise = play(env, num_steps=40)
    assert np.any(rollout.terminated)  # and goes on in the next episode
    learner = jaxrl.make_learner(env, counting_agent(), num_envs=2, rollout_length=40)
    state = learner.init(jax.random.key(0), HP())
    step = jax.jit(env.step)
    for b in range(2):
        env_state, obs = jax.tree.map(lambda x, b=b: x[b], (state.env, state.obs))
        for t in range(40):
            np.testing.assert_allclose(rollout.obs[t, b], obs, rtol=1e-5, atol=1e-6)
            env_state, out = step(noise.rollout.env[t, b], env_state, noise.rollout.act[t, b], env.params)
            np.testing.assert_allclose(rollout.next_obs[t, b], out.obs, rtol=1e-5, atol=1e-6)
            assert rollout.reward[t, b] == out.reward
            assert rollout.terminated[t, b] == out.terminated
            obs = out.obs
            if out.terminated | out.truncated:
                env_state, obs = jax.tree.map(lambda x, b=b, t=t: x[t, b], noise.rollout.reset.steps)


def test_small_observations_stay_small_in_the_rollout():
    """Planes of bool come back as bool, bit for bit."""

    class State(NamedTuple):
        planes: jax.Array

    def step(key, state, action, params):
        planes = jnp.roll(state.planes, 1)
        return State(planes), Step(planes, jnp.float32(0.5), jnp.bool_(False), jnp.bool_(False))

    planes = jnp.arange(15).reshape(3, 5) % 3 == 0
    env = Environment(
        lambda key, params: (State(planes), planes), step, (), Box(False, True, (3, 5), np.bool_), Discrete(2), "planes"
    )
    (_, rollout), _ = play(env, num_steps=3)
    assert rollout.obs.dtype == jnp.bool_
    np.testing.assert_array_equal(rollout.obs[1, 0], jnp.roll(planes, 1))


def test_evaluate_plays_whole_episodes_and_marks_endless_ones():
    learner = dqn_learner(countdown(7))
    state = jax.jit(learner.init)(jax.random.key(0), learner.agent.hparams)
    np.testing.assert_array_equal(jaxrl.evaluate(jax.random.key(1), learner, state, num_episodes=3), [7.0, 7.0, 7.0])
    learner = dqn_learner(endless(limit=10))
    state = jax.jit(learner.init)(jax.random.key(0), learner.agent.hparams)
    cut = jaxrl.evaluate(jax.random.key(1), learner, state, num_episodes=2, max_steps=9)
    assert np.isnan(cut).all()


def test_evaluation_reads_what_a_saved_policy_holds():
    """`exploit` need not know that there is more."""
    learner = dqn_learner()
    plain = learner.agent
    agent = plain._replace(
        greedy=lambda params: {"only": params}, exploit=lambda policy, *rest: plain.exploit(policy["only"], *rest)
    )
    state = learner.init(jax.random.key(0), jax.tree.map(jnp.float32, plain.hparams))
    returns = [
        jaxrl.evaluate(jax.random.key(1), learner._replace(agent=each), state, num_episodes=3, max_steps=20)
        for each in (plain, agent)
    ]
    np.testing.assert_array_equal(*returns)


def test_evaluate_refuses_no_episodes():
    learner = dqn_learner(countdown())
    state = jax.jit(learner.init)(jax.random.key(0), learner.agent.hparams)
    with pytest.raises(ValueError, match="num_episodes must be at least 1, got 0"):
        jaxrl.evaluate(jax.random.key(1), learner, state, num_episodes=0)


def test_evaluate_refuses_a_batch_of_states_and_says_vmap():
    learner = dqn_learner(countdown())
    keys = jax.random.split(jax.random.key(0), 3)
    states = jax.jit(jax.vmap(lambda key: learner.init(key, jax.tree.map(jnp.float32, learner.agent.hparams))))(keys)
    with pytest.raises(
        ValueError, match=r"state of one run, .* batch of states \(statistics \[3, 4\], not \[4\]\): use jax.vmap"
    ):
        jaxrl.evaluate(jax.random.key(1), learner, states, num_episodes=2)
    returns = jax.vmap(lambda state: jaxrl.evaluate(jax.random.key(1), learner, state, num_episodes=2))(states)
    np.testing.assert_array_equal(returns, np.full((3, 2), 3.0))
