"""Craftax against itself. It compiles for minutes: one program of each kind."""

import jax
import jax.numpy as jnp
import pytest

import jaxrl
from tests.envs.suites.common import assert_contained, assert_same, check_types, play_beside, reinforce, returns_before_and_after

pytest.importorskip("craftax")
NAME = "Craftax-Classic-Symbolic-v1"


def test_steps_equal_craftaxs_and_death_is_no_time_limit():
    from craftax.craftax_env import make_craftax_env_from_name

    limit = 60
    env = jaxrl.make(f"craftax/{NAME}", max_steps_in_episode=limit)
    check_types(env)
    theirs = make_craftax_env_from_name(NAME, auto_reset=False)
    params = theirs.default_params.replace(max_timesteps=limit)

    def step(key, state, action):
        obs, after, reward, done, _ = theirs.step(key, state.inner, action, params)
        return obs, reward, done & (after.timestep < limit), after.timestep >= limit

    ours, their, fresh = play_beside(env, step, num_envs=8)
    obs, reward, terminated, truncated = ours
    assert_same((obs, reward, terminated & ~truncated, truncated), their)
    assert truncated.any()
    assert_contained(env, obs)
    assert_contained(env, fresh)


def test_dying_terminates_also_at_the_time_limit():
    env = jaxrl.make(f"craftax/{NAME}", max_steps_in_episode=1)
    state, _ = jax.jit(env.reset)(jax.random.key(0), env.params)
    dying = state._replace(inner=state.inner.replace(player_health=jnp.zeros_like(state.inner.player_health)))
    step = jax.jit(env.step)
    flags = [step(jax.random.key(1), s, jnp.int32(0), env.params)[1] for s in (state, dying)]
    assert [(bool(out.terminated), bool(out.truncated)) for out in flags] == [(False, True), (True, True)]


def test_wrong_names_and_parameters_are_refused():
    with pytest.raises(ValueError, match="unknown environment 'craftax/Craftax-v1'; did you mean craftax/Craftax"):
        jaxrl.make("craftax/Craftax-v1")
    with pytest.raises(ValueError, match="has no parameter max_timestep; it has max_timesteps"):
        jaxrl.make(f"craftax/{NAME}", max_timestep=3)


def test_reinforce_finds_more_achievements_than_random_actions():
    env = jaxrl.make(f"craftax/{NAME}", max_steps_in_episode=100)
    learner = reinforce(env, num_envs=64, rollout_length=100, mode="episodic", baseline="mean", normalize_advantage=True)
    before, after = returns_before_and_after(learner, 100, seeds=1, learning_rate=1e-3, entropy_coef=0.01)
    assert (after > before + 0.5).all()
