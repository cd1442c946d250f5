"""Compare resets with gymnax's, and measure what a pool of resets saves: `python benchmarks/resets.py`.

The workload is CartPole-v1 with random actions, in jitted scans of the same number of steps, interleaved in one process. jaxrl
runs its driver and `unroll`, which draw fresh episodes before each rollout. gymnax runs its `step` under `vmap`, which resets in
every step: once with keys and actions drawn step by step, and once with both drawn before each rollout, so that only the resets
differ. All of them pass the transitions of a rollout, with true successors, to the same function.

The second table is for a CartPole whose reset takes 50 steps: with a fresh episode for every step, and with a pool.
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import gymnax
import jax
import jax.numpy as jnp

import jaxrl
from jaxrl.types import Agent, Environment, Noise

ROLLOUT, TURNS = 32, 15
ITERATIONS = {1: 1024, 64: 256, 2048: 32}  # by number of environments: some tenths of a second each
RESET_STEPS, POOL = 50, 16


class HParams(NamedTuple):
    """No hyperparameters."""


def consume(transitions) -> jax.Array:
    """Sum all numbers of a rollout, so that none of them can be optimised away."""
    return sum(jnp.sum(x, dtype=jnp.float32) for x in jax.tree.leaves(transitions))


def random_agent(num_actions: int) -> Agent:
    """An agent whose noise is its actions, and whose update only reads the rollout."""
    return Agent(
        hparams=HParams(),
        init=lambda key, obs, hparams: (),
        noise=lambda key, num_steps, num_envs: Noise(jax.random.randint(key, (num_steps, num_envs), 0, num_actions), ()),
        policy=lambda state: (),
        explore=lambda policy_params, obs, carry, noise_t, hparams, iteration: (noise_t, carry, ()),
        exploit=lambda policy_params, obs, carry, key: (jnp.zeros(len(obs), jnp.int32), carry),
        update=lambda state, rollout, noise, hparams, iteration: (state, {"sum": consume(rollout)}),
    )


def slow_reset(env: Environment) -> Environment:
    """An environment whose reset takes `RESET_STEPS` random steps, even if these end an episode."""

    def reset(key, params):
        reset_key, action_key, step_key = jax.random.split(key, 3)
        actions = jax.random.randint(action_key, (RESET_STEPS,), 0, env.action_space.n)

        def step(carry, x):
            state, after = env.step(x[0], carry[0], x[1], params)
            return (state, after.obs), None

        xs = jax.random.split(step_key, RESET_STEPS), actions
        return jax.lax.scan(step, env.reset(reset_key, params), xs)[0]

    return env._replace(reset=reset)


def ours(num_envs: int, num: int, env: Environment, reset_pool: int | None = None) -> Callable:
    """A function of a key that runs `num` iterations of `num_envs` environments from fixed initial states."""
    agent = random_agent(env.action_space.n)
    learner = jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=ROLLOUT, reset_pool=reset_pool)
    start = learner.init(jax.random.key(0), HParams())
    return jax.jit(lambda key: jaxrl.advance(start._replace(key=key), 0, learner, num, log_every=num)[1]["sum"])


def theirs(num_envs: int, ahead: bool) -> Callable:
    """The same with gymnax; `ahead`: draw keys and actions before each rollout."""
    env, params = gymnax.make("CartPole-v1")
    start = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(0), num_envs), params)

    def draw(key, shape):
        action_key, step_key = jax.random.split(key)
        return jax.random.split(step_key, shape), jax.random.randint(action_key, shape, 0, env.num_actions)

    def step(carry, x):
        obs, state = carry
        keys, action = x if ahead else draw(x, (num_envs,))
        after = jax.vmap(env.step, (0, 0, 0, None))(keys, state, action, params)
        next_obs, state, reward, terminated, truncated, info = after
        return (next_obs, state), (obs, action, reward, terminated, truncated, info["final_observation"])

    def iterate(carry, key):
        xs = draw(key, (ROLLOUT, num_envs)) if ahead else jax.random.split(key, ROLLOUT)
        carry, transitions = jax.lax.scan(step, carry, xs)
        return carry, consume(transitions)

    def run(key):
        obs, state = start
        state = state.replace(time=jnp.asarray(state.time, jnp.int32))
        return jnp.mean(jax.lax.scan(iterate, (obs, state), jax.random.split(key, ITERATIONS[num_envs]))[1])

    return jax.jit(run)


def measure(functions: list[Callable]) -> list[float]:
    """Median seconds of `TURNS` calls of each function, taken in turns and in alternating order."""
    for fn in functions:
        jax.block_until_ready(fn(jax.random.key(0)))
    turns = [(fn, []) for fn in functions]
    for i in range(TURNS):
        for fn, times in turns[:: 1 if i % 2 else -1]:
            start = time.perf_counter()
            jax.block_until_ready(fn(jax.random.key(i)))
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for _, times in turns]


def main() -> None:
    env = jaxrl.make("CartPole-v1")
    print("| environments | jaxrl, ns a step | gymnax | ratio | gymnax, drawn ahead | ratio |\n|---|---|---|---|---|---|")
    for num_envs, iterations in ITERATIONS.items():
        seconds = measure([ours(num_envs, iterations, env), theirs(num_envs, ahead=False), theirs(num_envs, ahead=True)])
        mine, natural, ahead = (1e9 * s / (iterations * ROLLOUT * num_envs) for s in seconds)
        row = f"| {num_envs} | {mine:.0f} | {natural:.0f} | {natural / mine:.2f} | {ahead:.0f} | {ahead / mine:.2f} |"
        print(row, flush=True)
    print(f"\n| environments, a reset of {RESET_STEPS} steps | ns a step | with a pool of {POOL} | ratio |\n|---|---|---|---|")
    for num_envs, most in ITERATIONS.items():
        iterations = most // 16  # each step costs about fifty times as much
        seconds = measure([ours(num_envs, iterations, slow_reset(env), pool) for pool in (None, POOL)])
        every, pooled = (1e9 * s / (iterations * ROLLOUT * num_envs) for s in seconds)
        print(f"| {num_envs} | {every:.0f} | {pooled:.0f} | {every / pooled:.1f} |", flush=True)


if __name__ == "__main__":
    main()
