"""Measure environments of other suites, and Gymnasium's in both directions, in CPU time: `python benchmarks/suites.py`.

The first table has one environment of each suite that is installed: the size of what its extra installs, the time to compile a
reset and 100 random steps of 16 environments, and random steps per second. `scripts/test-suites.sh brax` makes a virtual
environment with brax in `.venv-suites/brax`.

The second is for CartPole-v1: a random step of Gymnasium's and of jaxrl's as a `gymnasium.Env`, and a step of DQN, learning
included, with Gymnasium's in a loop on the host and with jaxrl's in one program.
"""

import statistics
import time
from collections.abc import Callable
from importlib import metadata

import gymnasium
import jax
import numpy as np
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import jaxrl
from jaxrl.envs.validation.random_play import random_actions
from jaxrl.experiment import train_on_host

EXAMPLES = (
    "brax/ant",
    "craftax/Craftax-Classic-Symbolic-v1",
    "jumanji/Snake-v1",
    "pgx/tic_tac_toe",
    "playground/CartpoleBalance",
    "xminigrid/MiniGrid-Empty-8x8",
)
NUM_ENVS, STEPS, TURNS = 16, 100, 5
GYMNASIUM_STEPS, DQN_STEPS, DQN_ENVS = 5_000, 16_000, 8


def megabytes(extra: str) -> float:
    """What `jaxrl[extra]` installs and `jaxrl` does not."""
    added = needed("jaxrl", frozenset({extra})) - needed("jaxrl")
    files = [file for name in added for file in metadata.files(name) or [] if file.locate().is_file()]
    return sum(file.locate().stat().st_size for file in files) / 1e6


def needed(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """The installed packages that a package with these extras needs, and that these need in turn."""
    found, left = set(), [(name, extras)]
    while left:
        name, extras = left.pop()
        for requirement in map(Requirement, metadata.requires(name) or []):
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            child = canonicalize_name(requirement.name), frozenset(requirement.extras)
            if child not in found:
                found.add(child)
                left.append(child)
    return {name for name, _ in found}


def cpu_seconds(fn: Callable[[], object]) -> float:
    """CPU seconds of one call, over all cores."""
    start = time.process_time()
    jax.block_until_ready(fn())
    return time.process_time() - start


def median(fn: Callable[[], object]) -> float:
    """The median of `TURNS` calls after a first one, which may compile."""
    fn()
    return statistics.median(cpu_seconds(fn) for _ in range(TURNS))


def compile_and_step(name: str) -> tuple[float, float]:
    """CPU seconds to compile, and for a step of one environment."""
    env = jaxrl.make(name)

    def play(key, actions):
        reset_key, step_key = jax.random.split(key)
        state, obs = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, NUM_ENVS), env.params)

        def step(state, x):
            return jax.vmap(env.step, (0, 0, 0, None))(jax.random.split(x[0], NUM_ENVS), state, x[1], env.params)

        return obs, jax.lax.scan(step, state, (jax.random.split(step_key, STEPS), actions))

    key, actions = jax.random.key(0), random_actions(np.random.default_rng(0), env.action_space, (STEPS, NUM_ENVS))
    lowered = jax.jit(play).lower(key, actions)
    start = time.process_time()
    program = lowered.compile()
    seconds = time.process_time() - start
    return seconds, median(lambda: program(key, actions)) / (NUM_ENVS * STEPS)


def gymnasium_step(env: gymnasium.Env) -> float:
    """CPU seconds of a step with random actions, resets included."""

    def play():
        env.reset(seed=0)
        for _ in range(GYMNASIUM_STEPS):
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            if terminated or truncated:
                env.reset()

    return median(play) / GYMNASIUM_STEPS


def dqn_step(name: str) -> float:
    """CPU seconds of an environment step of DQN, with an update of 64 transitions for every eight of them."""
    env = jaxrl.make(name)
    network = jaxrl.networks.q_network(env.observation_space, env.action_space)
    agent = jaxrl.agents.dqn(network, env.action_space, batch_size=64, capacity=20_000)
    learner = jaxrl.make_learner(env, agent, num_envs=DQN_ENVS, rollout_length=1)
    key, num_iterations = jax.random.key(0), DQN_STEPS // DQN_ENVS
    if name.startswith("gymnasium/"):
        train = lambda: train_on_host(key, learner, num_iterations)[1]
    else:
        program = jax.jit(lambda key: jaxrl.train(key, learner, num_iterations)[1])
        train = lambda: program(key)
    return median(train) / ((num_iterations + agent.warmup) * DQN_ENVS)


def main() -> None:
    print("| environment | MB | CPU seconds to compile | steps per CPU second |\n|---|---|---|---|")
    for name in EXAMPLES:
        try:
            seconds, step = compile_and_step(name)
        except ImportError:
            continue
        print(f"| {name} | {megabytes(name.split('/')[0]):.0f} | {seconds:.0f} | {1 / step:,.0f} |", flush=True)
    theirs = gymnasium_step(gymnasium.make("CartPole-v1"))
    print(f"| gymnasium/CartPole-v1 | {megabytes('gymnasium'):.0f} | none | {1 / theirs:,.0f} |")
    print(f"\n| CartPole-v1 | µs of CPU time a step |\n|---|---|\n| Gymnasium | {1e6 * theirs:.1f} |", flush=True)
    ours = jaxrl.envs.to_gymnasium(jaxrl.make("CartPole-v1"))
    print(f"| `to_gymnasium` | {1e6 * gymnasium_step(ours):.0f} |", flush=True)
    print(f"| DQN on the host | {1e6 * dqn_step('gymnasium/CartPole-v1'):.0f} |", flush=True)
    print(f"| DQN in one program | {1e6 * dqn_step('CartPole-v1'):.1f} |", flush=True)


if __name__ == "__main__":
    main()
