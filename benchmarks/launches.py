"""Count what a training program launches on an H200, compiled ahead of time, without one.

The figures are exact and do not vary: kernels of one iteration, host syncs, collectives, memory. It needs
XLA's CUDA compiler in an environment of its own, no driver and no GPU:

    python -m venv /tmp/aot
    /tmp/aot/bin/pip install -e . "jax-cuda12-plugin==$(python -c 'import jax; print(jax.__version__)')" nvidia-cuda-nvcc-cu12
    /tmp/aot/bin/python benchmarks/launches.py

A kernel is an instruction of a computation that runs on the device: not a parameter, a tuple, a bitcast
or a constant. A branch, and a loop of unknown length, make the host wait.
"""

import os
import re

os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np

import jaxrl

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
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "copy-done", "async-done"}


def compile_for_h200(fn, *args):
    """Compile `fn` for one H200; `args` are arrays or their shapes."""
    from jax.experimental import topologies

    device = topologies.get_topology_desc("gpu", "cuda", target_config=H200, topology="1x1x1").devices[0]
    mesh = jax.sharding.Mesh(np.array([device]), ("seeds",))
    here = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    shapes = jax.eval_shape(lambda *a: a, *args)
    return jax.jit(fn, in_shardings=here, out_shardings=here).lower(*shapes).compile()


def computations(text: str) -> dict[str, list[tuple[str, str]]]:
    """The instructions of every computation, each as (operation, line); the entry goes by the name ENTRY."""
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
    """Every loop with its depth, trips, the kernels of one turn (inner loops counted out), and host syncs."""
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


def programs() -> dict:
    """The training programs that are counted, each over a batch of keys."""
    env = jaxrl.make("CartPole-v1")
    q_network = jaxrl.networks.q_network(env.observation_space, env.action_space, hidden=(120, 84))
    dqn = jaxrl.agents.dqn(q_network, env.action_space, batch_size=128, capacity=10_000, warmup=64)
    dqn_learner = jaxrl.make_learner(env, dqn, num_envs=10, rollout_length=1)
    policy = jaxrl.networks.policy(env.observation_space, env.action_space, value=True)
    reinforce = jaxrl.agents.reinforce(policy, env.action_space, mode="continuing", baseline="value")
    reinforce_learner = jaxrl.make_learner(env, reinforce, num_envs=16, rollout_length=32)
    return {
        "DQN, 10 envs, batch 128, MLP 120-84": lambda key: jaxrl.train(key, dqn_learner, 6_400, log_every=640),
        "REINFORCE, 16 envs × 32, value baseline": lambda key: jaxrl.train(key, reinforce_learner, 100, log_every=10),
    }


def lambda_returns(r_t, discount_t, v_tm1, v_t):
    return jaxrl.returns.lambda_returns(r_t, discount_t, v_t, 0.95)


def advantages(r_t, discount_t, v_tm1, v_t):
    return jaxrl.returns.generalized_advantage_estimation(r_t, discount_t, v_tm1, v_t, 0.95)


def main() -> None:
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 16))
    for name, train in programs().items():
        compiled = compile_for_h200(jax.vmap(train), keys)
        print(f"{name}, 16 seeds: {compiled.memory_analysis().temp_size_in_bytes / 2**20:.1f} MiB of temporaries")
        for loop in loops(compiled.as_text()):
            print(f"  depth {loop['depth']}: {loop['trips']} turns of {loop['kernels']} kernels, {loop['syncs']} host syncs")
    for name, function in {"lambda_returns": lambda_returns, "generalized_advantage_estimation": advantages}.items():
        for num_steps in (32, 128, 512, 4096):
            x = jax.ShapeDtypeStruct((num_steps, 2048), np.float32)
            entry = computations(compile_for_h200(function, x, x, x, x).as_text())["ENTRY"]
            print(f"{name}, T = {num_steps}: {sum(operation not in FREE for operation, _ in entry)} kernels")


if __name__ == "__main__":
    main()
