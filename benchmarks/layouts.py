"""Measure layouts of seeds for `vectorize` on this machine, in µs per update and seed: `python benchmarks/layouts.py`.

Each layout runs in its own process, because the number of CPU devices is fixed when JAX starts. Times are medians of five runs
after compilation.
"""

import argparse
import statistics
import subprocess
import sys
import time

LAYOUTS = ((1, 1, 1), (1, 16, 16), (2, 16, 1), (2, 16, 2), (2, 16, 8))  # devices, seeds, seeds in a group


def measure(algorithm: str, devices: int, seeds: int, group: int) -> float:
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    import jaxrl

    env = jaxrl.make("CartPole-v1")
    if algorithm == "dqn":
        network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=(120, 84))
        agent = jaxrl.agents.dqn(network, env.action_space, batch_size=128, capacity=10_000, warmup=100)
        learner, num = jaxrl.make_learner(env, agent, num_envs=10, rollout_length=1), 1_000
    else:
        network = jaxrl.networks.policy(env.observation_space, env.action_space, value=True)
        agent = jaxrl.agents.reinforce(network, env.action_space, mode="continuing", baseline="value")
        learner, num = jaxrl.make_learner(env, agent, num_envs=16, rollout_length=32), 100
    train = jaxrl.vectorize(lambda key: jaxrl.train(key, learner, num), batch_size=group)
    keys = jax.random.split(jax.random.key(0), seeds)
    jax.block_until_ready(train(keys))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(train(keys))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) / (num * seeds) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=4, help="measure one layout: ALGORITHM DEVICES SEEDS GROUP")
    options = parser.parse_args()
    if options.one:
        print(f"{measure(options.one[0], *map(int, options.one[1:])):.1f}")
        return
    print("| | devices | seeds | seeds in a group | µs per update and seed |\n|---|---|---|---|---|")
    for algorithm in ("dqn", "reinforce"):
        for layout in LAYOUTS:
            command = [sys.executable, __file__, "--one", algorithm, *map(str, layout)]
            micros = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            print(f"| {algorithm} | {' | '.join(map(str, layout))} | {micros} |", flush=True)


if __name__ == "__main__":
    main()
