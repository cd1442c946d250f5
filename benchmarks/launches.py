"""Count the kernels of training programs on an NVIDIA H200 and a TPU v5e, compiled ahead of time without the devices.

XLA compiles for a described device, without a driver. The figures are exact: kernels per iteration, host synchronisations,
collectives, memory. `scripts/test-aot.sh` installs the two compilers and tests the counts, and this prints them:

    scripts/test-aot.sh --print

A kernel launch on a GPU takes 2 to 4 µs, which dominates the time of small networks. A TPU runs the whole program without the
host, so for a TPU instructions are counted.
"""

import functools
import importlib.util
import re
import sys
import time
from collections import Counter
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import jaxrl

# From the data sheet of the device, in XLA's format.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  memory_bandwidth: 4800000000000 l2_cache_size: 62914560 device_memory_size: 150000000000
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA" device_description_str: "NVIDIA H200"
dnn_version_info { major: 9 minor: 7 } runtime_version { major: 12 minor: 8 patch: 0 }
"""
COMPILERS = {"h200": "jax_plugins.xla_cuda12", "v5e:2x2": "libtpu"}  # any other topology of TPUs as the last
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "copy-done", "async-done"}
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute", "collective-broadcast")


def available(device: str) -> bool:
    """Whether the compiler for this device is installed."""
    try:
        return importlib.util.find_spec(COMPILERS["h200" if device == "h200" else "v5e:2x2"]) is not None
    except ModuleNotFoundError:  # the parent package is missing
        return False


@functools.cache  # two descriptions of one device would be two devices
def described_devices(device: str) -> list:
    if device == "h200":
        return topologies.get_topology_desc("gpu", "cuda", target_config=H200, topology="1x1x1").devices
    hosts = {"chips_per_host_bounds": (1, 1, 1)} if device.endswith(":1x1") else {}  # by default 2 × 2 chips
    return topologies.get_topology_desc(device, platform="tpu", **hosts).devices


def compile_for(device: str, fn: Callable, *args):
    """Compile `fn` for the described devices, with the leading axis of every argument sharded; `args` may be shapes."""
    mesh = Mesh(np.array(described_devices(device)), ("seeds",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("seeds"))
    shapes = jax.eval_shape(lambda *a: a, *args)
    return jax.jit(fn, in_shardings=spread, out_shardings=spread).lower(*shapes).compile()


def compile_seeds(device: str, train: Callable, seeds: int, num_shards: int = 1):
    """Compile a run of many seeds, each in `num_shards` shards, as `jaxrl.vectorize` lays it out on the described devices."""
    devices = described_devices(device)
    mesh = Mesh(np.array(devices).reshape(-1, num_shards), ("seeds", "envs"), axis_types=(AxisType.Auto,) * 2)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), seeds))
    run = jax.jit(
        jaxrl.vectorize(train, devices=devices, num_shards=num_shards), in_shardings=NamedSharding(mesh, PartitionSpec("seeds"))
    )
    return run.lower(keys).compile()


def computations(text: str) -> dict[str, list[tuple[str, str]]]:
    """The instructions of every computation, each as (operation, line); the entry computation is named ENTRY."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = None
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        instruction = re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = (?:\([^=]*?\)|\S+) ([\w\-]+)\(", line)
        if head and name is None:
            name = "ENTRY" if head[1] else head[2]
            found[name] = []
        elif line.startswith("}"):
            name = None
        elif instruction and name is not None:
            found[name].append((instruction[1], line))
    return found


def loops(text: str) -> list[dict]:
    """Every loop with its depth, trip count, kernels of one iteration (inner loops unrolled), and host synchronisations.

    A branch or a loop of unknown length makes the host wait for the GPU.
    """
    bodies, out = computations(text), []

    def count(name: str, depth: int) -> tuple[int, int]:
        kernels = syncs = 0
        for operation, line in bodies.get(name, ()):
            if operation == "while":
                trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                body = re.search(r"body=%?([\w.\-]+)", line)
                inner, inner_syncs = count(body[1], depth + 1) if body else (0, 0)
                inner_syncs += trips is None
                out.append({"depth": depth, "trips": int(trips[1]) if trips else None, "kernels": inner, "syncs": inner_syncs})
                kernels += inner * (int(trips[1]) if trips else 1)
                syncs += inner_syncs
            elif operation == "call":
                callee = re.search(r"to_apply=%?([\w.\-]+)", line)
                inner, inner_syncs = count(callee[1], depth) if callee else (0, 0)
                kernels, syncs = kernels + inner, syncs + inner_syncs
            elif operation == "conditional":
                kernels, syncs = kernels + 1, syncs + 1
            elif operation not in FREE:
                kernels += 1
        return kernels, syncs

    count("ENTRY", 0)
    return sorted(out, key=lambda loop: (loop["depth"], -loop["kernels"]))


def deepest(loops: list[dict], trips: int) -> int:
    """Kernels of one turn of the loop with this many trips that lies deepest."""
    return max((loop for loop in loops if loop["trips"] == trips), key=lambda loop: loop["depth"])["kernels"]


def collectives(text: str) -> list[str]:
    """The collective operations, which make devices wait for each other."""
    return sorted(
        {operation for body in computations(text).values() for operation, _ in body if operation.startswith(COLLECTIVES)}
    )


def collectives_of_loops(text: str) -> list[tuple[int, str, str]]:
    """Every collective operation: the number of loops around it, its kind, and the groups of devices that take part in it."""
    bodies, out = computations(text), []

    def find(name: str, depth: int) -> None:
        for operation, line in bodies.get(name, ()):
            called = re.search(r"(?:body|to_apply)=%?([\w.\-]+)", line)
            if operation in ("while", "call") and called:
                find(called[1], depth + (operation == "while"))
            elif operation.startswith(COLLECTIVES) and not operation.endswith("-done"):
                groups = re.search(r"replica_groups=(\S+?),? [a-z_]+=", line)
                out.append((depth, operation.removesuffix("-start"), groups[1] if groups else ""))

    find("ENTRY", 0)
    return sorted(out)


# --- training programs; with `num_shards`, each shard has the sizes of the run with one


def dqn(env_name: str = "CartPole-v1", num_shards: int = 1, prioritized: bool = False, **network_options) -> Callable:
    """A run with 10 environments, batch 128, MLP 120-84: ten logging intervals of 640 iterations each, in blocks of 64."""
    env = jaxrl.make(env_name)
    network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=(120, 84), **network_options)
    sizes = {"batch_size": 128 * num_shards, "capacity": 10_000 * num_shards}
    agent = jaxrl.agents.dqn(network, env.action_space, warmup=64, prioritized=prioritized, **sizes)
    learner = jaxrl.make_learner(env, agent, num_envs=10 * num_shards, rollout_length=1)
    return lambda key: jaxrl.train(key, learner, 6_400, log_every=640)


def reinforce(num_shards: int = 1, baseline: str = "value") -> Callable:
    """A run with 16 environments × 32 steps, or 500 without a learned value: ten logging intervals of ten iterations each."""
    env = jaxrl.make("CartPole-v1")
    network = jaxrl.networks.policy(env.observation_space, env.action_space, value=baseline == "value")
    mode, num_steps = ("continuing", 32) if baseline == "value" else ("episodic", 500)
    agent = jaxrl.agents.reinforce(network, env.action_space, mode=mode, baseline=baseline)
    learner = jaxrl.make_learner(env, agent, num_envs=16 * num_shards, rollout_length=num_steps)
    return lambda key: jaxrl.train(key, learner, 100, log_every=10)


def a2c(num_shards: int = 1) -> Callable:
    """A run with 16 environments × 32 steps: ten rows of metrics of ten iterations each."""
    env = jaxrl.make("CartPole-v1")
    agent = jaxrl.agents.a2c(jaxrl.networks.policy(env.observation_space, env.action_space, value=True), env.action_space)
    learner = jaxrl.make_learner(env, agent, num_envs=16 * num_shards, rollout_length=32)
    return lambda key: jaxrl.train(key, learner, 100, log_every=10)


def ppo(num_shards: int = 1, **agent_options) -> Callable:
    """A run of 4 environments × 128 steps, 4 epochs × 4 minibatches: ten rows of metrics of ten iterations each."""
    env = jaxrl.make("CartPole-v1")
    network = jaxrl.networks.policy(env.observation_space, env.action_space, value=True)
    agent = jaxrl.agents.ppo(network, env.action_space, num_epochs=4, num_minibatches=4, **agent_options)
    learner = jaxrl.make_learner(env, agent, num_envs=4 * num_shards, rollout_length=128)
    return lambda key: jaxrl.train(key, learner, 100, log_every=10)


def pqn(num_shards: int = 1) -> Callable:
    """A run of 32 environments × 64 steps, 2 epochs × 16 minibatches, MLP 64-64 with LayerNorm, Adam: ten rows of metrics."""
    env = jaxrl.make("CartPole-v1")
    network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=(64, 64), layer_norm=True)
    agent = jaxrl.agents.pqn(network, env.action_space, num_epochs=2, num_minibatches=16, optimizer=jaxrl.optimizers.adam)
    learner = jaxrl.make_learner(env, agent, num_envs=32 * num_shards, rollout_length=64)
    return lambda key: jaxrl.train(key, learner, 100, log_every=10)


def sac(num_shards: int = 1, target_network: bool = True, **network_options) -> Callable:
    """A run of one environment, batch 256, MLP 256-256: ten rows of metrics of 640 iterations each, in blocks of 64."""
    env = jaxrl.make("Pendulum-v1")
    network = jaxrl.networks.actor_critic(env.observation_space, env.action_space, **network_options)
    sizes = {"batch_size": 256 * num_shards, "capacity": 10_000 * num_shards}
    agent = jaxrl.agents.sac(network, env.action_space, warmup=64, target_network=target_network, **sizes)
    learner = jaxrl.make_learner(env, agent, num_envs=num_shards, rollout_length=1)
    return lambda key: jaxrl.train(key, learner, 6_400, log_every=640)


def td3(num_shards: int = 1) -> Callable:
    """A run of one environment, two steps and two critic updates an iteration, batch 256, MLP 256-256; ten rows as for SAC."""
    env = jaxrl.make("Pendulum-v1")
    network = jaxrl.networks.deterministic_actor_critic(env.observation_space, env.action_space)
    sizes = {"batch_size": 256 * num_shards, "capacity": 10_000 * num_shards}
    agent = jaxrl.agents.td3(network, env.action_space, warmup=64, **sizes)
    learner = jaxrl.make_learner(env, agent, num_envs=num_shards, rollout_length=2)
    return lambda key: jaxrl.train(key, learner, 6_400, log_every=640)


def openai_es(num_shards: int = 1) -> Callable:
    """A run of 64 policies × 500 steps, MLP 64-64: ten rows of metrics of ten iterations each."""
    env = jaxrl.make("CartPole-v1")
    network = jaxrl.networks.policy(env.observation_space, env.action_space)
    agent = jaxrl.agents.openai_es(network, env.action_space)
    learner = jaxrl.make_learner(env, agent, num_envs=64 * num_shards, rollout_length=500)
    return lambda key: jaxrl.train(key, learner, 100, log_every=10)


PROGRAMS = {
    "DQN, 10 envs, batch 128, MLP 120-84": dqn,
    "REINFORCE, 16 envs × 32, value baseline": reinforce,
    "PPO, 4 envs × 128, 4 epochs × 4 minibatches": ppo,
    "PQN, 32 envs × 64, 2 epochs × 16 minibatches": pqn,
    "SAC, 1 env, batch 256, MLP 256-256": sac,
    "TD3, 1 env × 2, batch 256, MLP 256-256": td3,
    "OpenAI-ES, 64 policies × 500": openai_es,
}
# What changes the number of collectives.
ALSO_IN_SHARDS = {
    "A2C, 16 envs × 32": a2c,
    "REINFORCE with the baseline 'mean'": functools.partial(reinforce, baseline="mean"),
    "DQN with prioritized replay": functools.partial(dqn, prioritized=True),
    "PPO with normalised observations": functools.partial(ppo, normalize_observations=True),
    "PPO with normalised rewards": functools.partial(ppo, normalize_rewards=True),
    "CrossQ": functools.partial(sac, target_network=False, batch_renorm=True),
}
ALSO_PRINTED = {
    "DQN in bfloat16": functools.partial(dqn, dtype="bfloat16"),
    "DQN on MinAtar's Breakout, with planes stored as bits": functools.partial(dqn, "Breakout-MinAtar", channels=(16,)),
}


def lambda_returns(r_t, discount_t, v_tm1, v_t):
    return jaxrl.returns.lambda_returns(r_t, discount_t, v_t, 0.95)


def advantages(r_t, discount_t, v_tm1, v_t):
    return jaxrl.returns.generalized_advantage_estimation(r_t, discount_t, v_tm1, v_t, 0.95)


def kernels_of(fn: Callable, *args) -> int:
    """The number of kernels of a function without loops on an H200."""
    entry = computations(compile_for("h200", fn, *args).as_text())["ENTRY"]
    return sum(operation not in FREE for operation, _ in entry)


def print_runs(device: str, seeds: int, programs: dict[str, Callable]) -> None:
    for name, program in programs.items():
        compiled = compile_seeds(device, program(), seeds)
        text, memory = compiled.as_text(), compiled.memory_analysis()
        held = memory.temp_size_in_bytes + memory.output_size_in_bytes
        found = ", ".join(collectives(text)) or "none"
        print(f"{name}, {seeds} seeds on {device}: {held / 2**20:.1f} MiB on each device, collectives: {found}")
        for loop in loops(text):
            iterations = f"{loop['trips']} iterations" if loop["trips"] else "an unknown number of iterations"
            syncs = f", {loop['syncs']} host syncs" if device == "h200" else ""
            print(f"  depth {loop['depth']}: {iterations} of {loop['kernels']} kernels{syncs}")


def print_shards(device: str, seeds: int, num_shards: int, programs: dict[str, Callable]) -> None:
    """The collectives and the memory of runs in shards; `seeds` and `num_shards` together use all devices."""
    for name, program in programs.items():
        started = time.perf_counter()
        compiled = compile_seeds(device, program(num_shards=num_shards) if num_shards > 1 else program(), seeds, num_shards)
        seconds, memory = time.perf_counter() - started, compiled.memory_analysis()
        held = (memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes) / 2**20
        found = Counter((depth, kind) for depth, kind, _ in collectives_of_loops(compiled.as_text()))
        listed = ", ".join(f"{count} {kind} in {depth} loops" for (depth, kind), count in sorted(found.items())) or "none"
        print(
            f"{name}; {seeds} seeds in {num_shards} shards on {device}: {held:.1f} MiB on each device, in {seconds:.0f} s; "
            f"{listed}",
            flush=True,
        )


def print_functions() -> None:
    for name, function in {"lambda_returns": lambda_returns, "generalized_advantage_estimation": advantages}.items():
        for num_steps in (32, 128, 512, 4096):
            x = jax.ShapeDtypeStruct((num_steps, 2048), np.float32)
            print(f"{name}, T = {num_steps}: {kernels_of(function, x, x, x, x)} kernels")


def main() -> None:
    found = [device for device in COMPILERS if available(device)]
    if not found:
        sys.exit("no compiler for these devices is installed: run scripts/test-aot.sh --print")
    for device in found:
        print_runs(device, 16 if device == "h200" else 64, PROGRAMS | ALSO_PRINTED)
    if "h200" in found:
        print_functions()
    if "v5e:2x2" in found:
        for seeds in (1, 16, 256, 1024):
            print_runs("v5e:1x1", seeds, {"DQN": dqn})
        print_shards("v5e:4x4", seeds=4, num_shards=4, programs=PROGRAMS | ALSO_IN_SHARDS)
        for seeds, num_shards in ((256, 1), (16, 16), (1, 256)):
            print_shards("v5e:16x16", seeds, num_shards, PROGRAMS)


if __name__ == "__main__":
    main()
