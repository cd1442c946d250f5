"""gymnax alone: its own vectorised step, which resets by itself, with random actions; no agent, nothing stored."""

import gymnax
import jax
import jax.numpy as jnp

from benchmarks.program import Job, compiled_job, keys_of
from benchmarks.works import Work


def stepping_of(work: Work):
    env, params = gymnax.make(work.env)
    reset, step = jax.vmap(env.reset, (0, None)), jax.vmap(env.step, (0, 0, 0, None))

    def play(key):
        key, reset_key = jax.random.split(key)
        obs, state = reset(jax.random.split(reset_key, work.num_envs), params)

        def one(carry, _):
            _, state, key, total = carry
            key, action_key, step_key = jax.random.split(key, 3)
            actions = jax.random.randint(action_key, (work.num_envs,), 0, env.num_actions)
            obs, state, reward, *_ = step(jax.random.split(step_key, work.num_envs), state, actions, params)
            return (obs, state, key, total + reward), None

        carry = (obs, state, key, jnp.zeros(work.num_envs))
        (obs, _, _, total), _ = jax.lax.scan(one, carry, None, work.updates * work.rollout_length)
        # CartPole gives 1 a step, so the rewards count the steps.
        return jnp.round(jnp.mean(total) / work.rollout_length).astype(jnp.int32), obs

    return play


def prepare(work: Work, layout: str) -> Job:
    return compiled_job(lambda: stepping_of(work), keys_of(work.seeds), work, layout, dict)
