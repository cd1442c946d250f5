"""The workloads, their sizes, and the implementations that run each.

This module is plain data, so that the parent process imports neither jax nor any implementation.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Workload(NamedTuple):
    """A training run or a rollout. An iteration is `num_envs * rollout_length` environment steps and at most one update.

    An update is one gradient step, or with PPO and PQN all of an iteration: `num_epochs * num_minibatches` gradient steps.
    """

    name: str  # one of NAMES
    env: str
    seeds: int
    num_envs: int  # environments per seed
    rollout_length: int
    updates: int  # iterations per seed, without the warm-up
    warmup: int = 0  # iterations that only act and store
    batch_size: int = 0
    capacity: int = 0
    target_update_period: int = 1  # updates between two syncs of the target network
    tau: float = 1.0  # weight of the online parameters in a sync
    hidden: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    num_epochs: int = 1
    num_minibatches: int = 1

    @property
    def gradient_steps(self) -> int:
        """Gradient steps of a seed, as its optimizer counts them."""
        return self.updates * self.num_epochs * self.num_minibatches

    @property
    def env_steps(self) -> int:
        """Environment steps of all seeds together, warm-up included."""
        return self.seeds * self.num_envs * self.rollout_length * (self.warmup + self.updates)


NAMES = ("dqn", "reinforce", "rollout", "breakout", "ppo", "pqn", "sac")

# An implementation is a module of `implementations`; after a slash, a layout of seeds other than its default.
OURS = {
    "dqn": ("jaxrl", "floor"),
    "reinforce": ("jaxrl", "floor", "gymnax", "gymnax/vectorize"),
    "rollout": ("jaxrl", "gymnax"),
    "breakout": ("jaxrl", "floor"),
    "ppo": ("jaxrl", "floor"),
    "pqn": ("jaxrl", "floor"),
    "sac": ("jaxrl", "floor"),
}
PEERS = {
    "dqn": ("rejax", "rejax/vectorize", "jaxnasium", "jaxnasium/vectorize"),
    "reinforce": ("rejax", "rejax/vectorize", "jaxnasium", "jaxnasium/vectorize"),
    "rollout": (),
    "breakout": ("rejax", "rejax/vectorize"),
    "ppo": ("rejax", "rejax/vectorize", "jaxnasium", "jaxnasium/vectorize"),
    "pqn": ("rejax", "rejax/vectorize", "jaxnasium", "jaxnasium/vectorize"),
    "sac": ("rejax", "rejax/vectorize", "jaxnasium", "jaxnasium/vectorize"),
}
ONE_SEED = {
    "dqn": ("sb3", "sbx"),
    "reinforce": ("sb3",),
    "ppo": ("sb3", "sbx"),
    "sac": ("sb3", "sbx"),
}  # these cannot train several seeds at once


def layout_of(implementation: str) -> str:
    """The layout of its seeds: "vectorize" as in jaxrl, "vmap" as its own users use it, "process" for one seed in Python."""
    own = {"jaxrl": "vectorize", "floor": "vectorize", "sb3": "process", "sbx": "process"}
    name, _, layout = implementation.partition("/")
    return layout or own.get(name, "vmap")


def dqn(seeds: int, capacity: int, updates: int) -> Workload:
    """10 environments, batch 128, MLP 120-84, one update an iteration; the warm-up fills one batch."""
    return Workload(
        "dqn", "CartPole-v1", seeds, 10, 1, updates, warmup=13, batch_size=128, capacity=capacity, tau=0.01, hidden=(120, 84)
    )


def reinforce(seeds: int, num_envs: int, rollout_length: int, updates: int) -> Workload:
    return Workload("reinforce", "CartPole-v1", seeds, num_envs, rollout_length, updates, hidden=(64, 64))


def rollout(num_envs: int, num_steps: int) -> Workload:
    """Random actions, no network, no learning."""
    return Workload("rollout", "CartPole-v1", 1, num_envs, 32, num_steps // 32)


def breakout(seeds: int, capacity: int, warmup: int, updates: int) -> Workload:
    """The sizes of rejax's published benchmark of a million steps, with the network of the MinAtar paper."""
    sizes = {"batch_size": 100, "capacity": capacity, "target_update_period": 1_000, "hidden": (128,), "channels": (16,)}
    return Workload("breakout", "Breakout-MinAtar", seeds, 1, 1, updates, warmup=warmup, **sizes)


def ppo(seeds: int, num_envs: int, rollout_length: int, updates: int) -> Workload:
    """4 epochs of 4 minibatches, policy and value MLP 64-64."""
    return Workload(
        "ppo", "CartPole-v1", seeds, num_envs, rollout_length, updates, hidden=(64, 64), num_epochs=4, num_minibatches=4
    )


def pqn(seeds: int, updates: int) -> Workload:
    """32 environments × 64 steps, 2 epochs of 16 minibatches, MLP 64-64 with LayerNorm."""
    return Workload("pqn", "CartPole-v1", seeds, 32, 64, updates, hidden=(64, 64), num_epochs=2, num_minibatches=16)


def sac(seeds: int, capacity: int, updates: int) -> Workload:
    """One environment, batch 256, MLP 256-256, one update an iteration; the warm-up fills one batch."""
    sizes = {"batch_size": 256, "capacity": capacity, "tau": 0.005, "hidden": (256, 256)}
    return Workload("sac", "Pendulum-v1", seeds, 1, 1, updates, warmup=256, **sizes)


def workloads(platform: str, quick: bool) -> list[Workload]:
    """All workloads of a platform ("cpu", "gpu" or "tpu"), small ones first."""
    if quick:
        dqns = [dqn(seeds, 10_000, 100) for seeds in (1, 4)]
        reinforces = [reinforce(seeds, 16, 32, 20) for seeds in (1, 4)]
        rollouts = [rollout(num_envs, num_steps) for num_envs, num_steps in ((8, 3_200), (256, 320))]
        ppos, pqns = [ppo(seeds, 4, 128, 10) for seeds in (1, 4)], [pqn(seeds, 5) for seeds in (1, 4)]
        sacs = [sac(seeds, 10_000, 50) for seeds in (1, 4)]
        return [*rollouts, *reinforces, *dqns, breakout(1, 2_000, 100, 50), *ppos, *pqns, *sacs]
    steps = {2**n: max(640, 2**22 // 2**n) for n in (3, 6, 8, 11, 14)}
    if platform == "cpu":
        rollouts = [rollout(num_envs, n) for num_envs, n in steps.items()]
        dqns = [dqn(seeds, n, 250 if seeds > 128 else 1_000) for n in (10_000, 100_000) for seeds in (1, 16, 128, 512)]
        small = [reinforce(seeds, 16, 32, 300) for seeds in (1, 16, 128)]
        large = [reinforce(seeds, 64, 128, 10 if seeds > 16 else 40) for seeds in (1, 16, 128)]
        breakouts = [breakout(seeds, 100_000, 500, 500) for seeds in (1, 4)]
        ppos = [ppo(seeds, 4, 128, {1: 100, 16: 40, 128: 10}[seeds]) for seeds in (1, 16, 128)]
        ppos += [ppo(seeds, 64, 128, 2 if seeds > 16 else 10) for seeds in (1, 16, 128)]
        pqns = [pqn(seeds, {1: 20, 16: 6, 128: 2}[seeds]) for seeds in (1, 16, 128)]
        # An update takes a core 7 ms: 128 seeds would take hours, and 16 show what a batch of seeds changes.
        sacs = [sac(seeds, capacity, 300 if seeds == 1 else 60) for capacity in (10_000, 100_000) for seeds in (1, 16)]
    else:
        # Runs of about a third of a second on an H200, so that all of them fit into ten minutes with the time to compile.
        rollouts = [rollout(num_envs, min(n, 48_000)) for num_envs, n in steps.items()]  # a step takes 5 to 10 µs
        dqns = [dqn(seeds, 10_000, n) for seeds, n in {1: 5_000, 16: 5_000, 128: 2_500, 1_024: 500, 4_096: 150}.items()]
        dqns += [dqn(seeds, 100_000, n) for seeds, n in {1: 5_000, 128: 2_500}.items()]
        small = [reinforce(seeds, 16, 32, n) for seeds, n in {1: 700, 16: 700, 128: 400, 1_024: 150}.items()]
        large = [reinforce(seeds, 64, 128, n) for seeds, n in {1: 150, 128: 60}.items()]
        breakouts = [breakout(seeds, 100_000, 1_000, n) for seeds, n in {1: 5_000, 50: 1_000}.items()]
        ppos = [ppo(seeds, 4, 128, n) for seeds, n in {1: 80, 16: 80, 128: 50, 1_024: 20}.items()]
        ppos += [ppo(seeds, 64, 128, n) for seeds, n in {1: 60, 128: 20}.items()]
        pqns = [pqn(seeds, n) for seeds, n in {1: 60, 16: 60, 128: 30, 1_024: 10}.items()]
        sacs = [sac(seeds, 10_000, n) for seeds, n in {1: 2_500, 16: 2_000, 128: 500}.items()]
        sacs += [sac(1, 100_000, 2_500)]
    return [*rollouts, *small, *large, *dqns, *breakouts, *ppos, *pqns, *sacs]


def entries(workload: Workload, platform: str, jaxrl_only: bool) -> Iterator[tuple[str, Workload]]:
    """The implementations of a workload, each with its own workload: peers make fewer updates in the longest ones."""
    for implementation in OURS[workload.name]:
        if implementation != "gymnax/vectorize" or platform == "cpu":
            yield implementation, workload
    if jaxrl_only:
        return
    crowded = workload.seeds >= 128
    share = 5 if crowded or (workload.seeds > 1 and workload.capacity > 10_000) else 1
    for implementation in PEERS[workload.name]:
        # On one GPU, and for one seed on any device, `vectorize` is the same as `jit(vmap)`.
        if implementation.endswith("/vectorize") and (platform != "cpu" or workload.seeds == 1):
            continue
        if implementation == "jaxnasium/vectorize" and crowded:
            continue  # this would take an hour; 16 seeds show the effect of the layout
        yield implementation, workload._replace(updates=max(workload.updates // share, min(workload.updates, 10)))
    if workload.seeds == 1 and platform == "cpu":  # they would not use another device
        for implementation in ONE_SEED.get(workload.name, ()):
            slow = workload.name in ("ppo", "sac")  # these step their environments in Python
            yield implementation, workload._replace(updates=max(workload.updates // 10, 10)) if slow else workload
