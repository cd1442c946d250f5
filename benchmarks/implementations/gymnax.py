"""gymnax alone: its own vectorised step, which resets by itself, with random actions; no agent, nothing stored."""

import gymnax
import jax
import jax.numpy as jnp

from benchmarks.program import Job, compiled_job, keys_of
from benchmarks.workloads import Workload


def stepping_of(workload: Workload):
    env, params = gymnax.make(workload.env)
    reset, step = jax.vmap(env.reset, (0, None)), jax.vmap(env.step, (0, 0, 0, None))

    def play(key):
        key, reset_key = jax.random.split(key)
        obs, state = reset(jax.random.split(reset_key, workload.num_envs), params)

        def one(carry, _):
            _, state, key, total = carry
            key, action_key, step_key = jax.random.split(key, 3)
            actions = jax.random.randint(action_key, (workload.num_envs,), 0, env.num_actions)
            obs, state, reward, *_ = step(jax.random.split(step_key, workload.num_envs), state, actions, params)
            return (obs, state, key, total + reward), None

        carry = (obs, state, key, jnp.zeros(workload.num_envs))
        (obs, _, _, total), _ = jax.lax.scan(one, carry, None, workload.updates * workload.rollout_length)
        # CartPole gives 1 a step, so the rewards count the steps.
        return jnp.round(jnp.mean(total) / workload.rollout_length).astype(jnp.int32), obs

    return play


def prepare(workload: Workload, layout: str) -> Job:
    return compiled_job(lambda: stepping_of(workload), keys_of(workload.seeds), workload, layout, dict)
