"""Measure choices inside an update on a CPU: `python benchmarks/updates.py`, or `taskset -c 0 python …` for one core.

First, REINFORCE's update from rollouts of 128 steps, in microbatches of several sizes and in a single batch. Second, the forward
and backward pass of a network over the same observations with one leading axis and with two. Third, complete runs of DQN on
MinAtar's Breakout, with convolutions as matrix products of patches and as XLA's convolutions. Times are medians of interleaved
runs.
"""

import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax
import jax.numpy as jnp

import jaxrl
from benchmarks.implementations.jaxrl import train_of
from benchmarks.resets import measure
from benchmarks.workloads import breakout
from jaxrl import networks
from jaxrl._src import microbatches
from jaxrl.networks import layers
from jaxrl.types import Transition
from jaxrl.vectorization import compiler_options

STEPS = 128
SIZES = (64, 128, 256, 512, 1024, None)  # None: a single batch
CASES = ((64, (64, 64), 20), (64, (256, 256), 4), (1024, (64, 64), 2))  # environments, hidden layers, updates


def compiled(fn: Callable, *args) -> Callable:
    """Compile as `vectorize` does. The result ignores the key that `measure` passes, and runs with `args`."""
    program = jax.jit(fn, compiler_options=compiler_options(jax.devices())).lower(*args).compile()
    return lambda key: program(*args)


def reinforce_updates(num_envs: int, hidden: tuple[int, int], updates: int, size: int | None) -> Callable:
    """Consecutive updates from the same rollout."""
    microbatches._MICROBATCH = size or STEPS * num_envs
    env = jaxrl.make("CartPole-v1")
    network = networks.policy(env.observation_space, env.action_space, value=True, hidden=hidden)
    agent = jaxrl.agents.reinforce(network, env.action_space, mode="continuing", baseline="value")
    keys = jax.random.split(jax.random.key(0), 4)
    obs, next_obs = (jax.random.normal(key, (STEPS, num_envs, 4)) for key in keys[:2])
    action = jax.random.randint(keys[2], (STEPS, num_envs), 0, 2)
    never = jnp.zeros((STEPS, num_envs), bool)
    rollout = Transition(obs, action, jnp.ones((STEPS, num_envs)), never, never, next_obs, (), action)

    def run(state, rollout):
        def step(state, iteration):
            return agent.update(state, rollout, (), agent.hparams, iteration)[0], None

        return jax.lax.scan(step, state, jnp.arange(updates, dtype=jnp.int32))[0]

    return compiled(run, agent.init(keys[3], obs[0], agent.hparams), rollout)


def gradients(shape: tuple[int, ...], num: int) -> Callable:
    """`num` gradient steps on the mean square of a policy's logits and values, for observations of a shape."""
    env = jaxrl.make("CartPole-v1")
    network = networks.policy(env.observation_space, env.action_space, value=True)
    obs = jax.random.normal(jax.random.key(0), shape)

    def loss(params, obs):
        return sum(jnp.mean(jnp.square(x)) for x in network.apply(params, obs))

    def run(params, obs):
        def step(params, _):
            return jax.tree.map(lambda x, g: x - 1e-3 * g, params, jax.grad(loss)(params, obs)), None

        return jax.lax.scan(step, params, None, length=num)[0]

    return compiled(run, network.init(jax.random.key(1), obs), obs)


def breakout_run(convolution: Callable, updates: int) -> Callable:
    layers._convolve = convolution
    return compiled(train_of(breakout(1, 2_000, 100, updates)), jax.random.key(0))


def main() -> None:
    print(f"| REINFORCE, ms an update, rows in a microbatch | {' | '.join(map(str, SIZES[:-1]))} | whole |")
    print("|---" * (1 + len(SIZES)) + "|")
    for num_envs, hidden, updates in CASES:
        seconds = measure([reinforce_updates(num_envs, hidden, updates, size) for size in SIZES])
        times = " | ".join(f"{1e3 * s / updates:.1f}" for s in seconds)
        print(f"| {STEPS} × {num_envs}, MLP {hidden[0]}-{hidden[1]} | {times} |", flush=True)
    shapes, updates = ((STEPS * 64, 4), (STEPS, 64, 4)), 20
    seconds = measure([gradients(shape, updates) for shape in shapes])
    print(f"\n| forward and back, ms, observations | {' | '.join(map(str, shapes))} |\n|---|---|---|")
    print(f"| MLP 64-64 | {' | '.join(f'{1e3 * s / updates:.1f}' for s in seconds)} |", flush=True)
    updates = 200
    by_xla = lambda dtype, *args, **kwargs: jax.lax.conv_general_dilated(*args, **kwargs)
    convolutions = {"patches": layers._convolve, "XLA's": by_xla}
    seconds = measure([breakout_run(convolution, updates) for convolution in convolutions.values()])
    print(f"\n| Breakout, ms an update | {' | '.join(convolutions)} |\n|---|---|---|")
    print(f"| DQN | {' | '.join(f'{1e3 * s / updates:.2f}' for s in seconds)} |")


if __name__ == "__main__":
    main()
