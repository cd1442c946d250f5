"""Steps that may end an episode, against gymnax's own, and what a pool of resets saves: `python benchmarks/resets.py`.

CartPole-v1 with random actions, whole jitted scans of the same number of steps, interleaved in one process. jaxrl: the driver
and `unroll`, which take fresh episodes from noise drawn ahead. gymnax: its `step` under `vmap`, which makes a fresh episode
at every step, once with keys and actions drawn in the loop, step by step, and once with them drawn ahead of each rollout, so
that the resets alone differ. All give a rollout's transitions, with true successors, to the same function.

The second table is of a CartPole whose reset plays 50 steps: with a fresh episode for every step, and with a pool.
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
ITERATIONS = {1: 1024, 64: 256, 2048: 32}  # by environments: some tenths of a second each
RESET_STEPS, POOL = 50, 16


class HParams(NamedTuple):
    """None."""


def consume(transitions) -> jax.Array:
    """Something that needs every number of a rollout."""
    return sum(jnp.sum(x, dtype=jnp.float32) for x in jax.tree.leaves(transitions))


def random_agent(num_actions: int) -> Agent:
    """Its noise is its actions, and its update reads the rollout and learns nothing."""
    return Agent(
        hparams=HParams(),
        init=lambda key, obs, hparams: (),
        noise=lambda key, num_steps, num_envs: Noise(jax.random.randint(key, (num_steps, num_envs), 0, num_actions), ()),
        policy=lambda state: (),
        explore=lambda policy_params, obs, carry, noise_t, hparams, iteration: (noise_t, carry, ()),
        exploit=lambda policy_params, obs, carry, key: (jnp.zeros(len(obs), jnp.int32), carry),
        update=lambda state, rollout, noise, hparams, iteration: (state, {"sum": consume(rollout)}),
    )


def expensive_reset(env: Environment) -> Environment:
    """The same, but an episode begins after `RESET_STEPS` random steps, whatever they came to."""

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
    """A function of a key: `num` iterations of `num_envs` environments from states that were drawn before."""
    agent = random_agent(env.action_space.n)
    learner = jaxrl.make_learner(env, agent, num_envs=num_envs, rollout_length=ROLLOUT, reset_pool=reset_pool)
    start = learner.init(jax.random.key(0), HParams())
    return jax.jit(lambda key: jaxrl.advance(start._replace(key=key), 0, learner, num, log_every=num)[1]["sum"])


def theirs(num_envs: int, ahead: bool) -> Callable:
    """The same by gymnax; `ahead`: keys and actions of a rollout are drawn before it."""
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
    """Seconds of each: the median of `TURNS` calls, taken in turns, every other time from the last to the first."""
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
        iterations = most // 16  # of fifty times the workload
        seconds = measure([ours(num_envs, iterations, expensive_reset(env), pool) for pool in (None, POOL)])
        every, pooled = (1e9 * s / (iterations * ROLLOUT * num_envs) for s in seconds)
        print(f"| {num_envs} | {every:.0f} | {pooled:.0f} | {every / pooled:.1f} |", flush=True)


if __name__ == "__main__":
    main()
