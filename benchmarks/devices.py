"""Measure how training scales with the number of devices: one agent over two of them, and many seeds.

    python benchmarks/devices.py              # on the CPU: two devices, one thread each
    python benchmarks/devices.py --seeds 10000
    python benchmarks/devices.py --accelerator  # on the GPUs or TPUs of this machine, one against all

Each program is compiled once, and then the layouts take turns, so that a busy machine slows down all of them. The figure is the
median over the turns. An idle machine is needed: with two devices, two cores.
"""

import argparse
import os
import statistics
import time


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accelerator", action="store_true", help="use the default backend's devices, not two CPU devices")
    parser.add_argument("--num-envs", type=int, default=2048, help="environments of the one agent")
    parser.add_argument("--rollout-length", type=int, default=64, help="steps of each environment between two updates")
    parser.add_argument("--iterations", type=int, default=4, help="iterations in a turn")
    parser.add_argument("--seeds", type=int, default=0, help="also train this many seeds of a small DQN")
    parser.add_argument("--turns", type=int, default=5, help="number of times that each layout is measured")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if not args.accelerator:  # before JAX starts; one thread for each device, as a device is then one core
        flags = " --xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + flags
        os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    import jaxrl

    if not args.accelerator:
        jax.config.update("jax_num_cpu_devices", 2)
    devices = jax.devices()
    env = jaxrl.make("CartPole-v1")
    spaces = env.observation_space, env.action_space

    def seconds(run, *inputs) -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(*inputs))
        return time.perf_counter() - start

    def compare(name: str, steps: int, layouts: dict, keys: jax.Array) -> None:
        for run in layouts.values():
            seconds(run, keys)  # compiles
        turns = [{layout: seconds(run, keys) for layout, run in layouts.items()} for _ in range(args.turns)]
        median = {layout: statistics.median(turn[layout] for turn in turns) for layout in layouts}
        first = next(iter(median.values()))
        for layout, took in median.items():
            print(f"{name}, {layout}: {steps / took:,.0f} steps/s, {first / took:.2f} times the first", flush=True)

    agent = jaxrl.agents.ppo(jaxrl.networks.policy(*spaces, value=True), env.action_space)
    learner = jaxrl.make_learner(env, agent, num_envs=args.num_envs, rollout_length=args.rollout_length)
    train = lambda key: jaxrl.train(key, learner, args.iterations)[1]
    one = {
        "1 device": jaxrl.vectorize(train, devices=devices[:1]),
        f"{len(devices)} devices": jaxrl.vectorize(train, num_shards=len(devices)),
    }
    steps = args.iterations * args.num_envs * args.rollout_length
    compare(f"PPO, {args.num_envs} envs x {args.rollout_length}", steps, one, jax.random.split(jax.random.key(0), 1))

    if args.seeds:
        network = jaxrl.networks.q_network(*spaces, hidden=(16,))
        small = jaxrl.agents.dqn(network, env.action_space, batch_size=16, capacity=64, warmup=4)
        many = jaxrl.make_learner(env, small, num_envs=4, rollout_length=1)
        train_seed = lambda key: jaxrl.train(key, many, 100)[1]
        layouts = {
            "1 device": jaxrl.vectorize(train_seed, devices=devices[:1]),
            f"{len(devices)} devices": jaxrl.vectorize(train_seed),
        }
        compare(f"DQN, {args.seeds} seeds", args.seeds * 400, layouts, jax.random.split(jax.random.key(0), args.seeds))


if __name__ == "__main__":
    main()
