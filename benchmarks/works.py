"""What is measured: the works, their sizes, and who takes part in which.

Everything here is plain data, so that the parent process needs neither jax nor any contestant.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Work(NamedTuple):
    """One thing to do. An iteration is `num_envs * rollout_length` environment steps, and one update where there is one."""

    name: str  # "dqn", "reinforce", "rollout" or "breakout"
    env: str
    seeds: int
    num_envs: int  # of each seed
    rollout_length: int
    updates: int  # iterations of each seed, the warm-up not counted
    warmup: int = 0  # iterations that only act and store
    batch_size: int = 0
    capacity: int = 0
    target_period: int = 1  # updates between two syncs of the target network
    tau: float = 1.0  # share of the online parameters at a sync
    hidden: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()

    @property
    def env_steps(self) -> int:
        """Of all seeds together."""
        return self.seeds * self.num_envs * self.rollout_length * (self.warmup + self.updates)


NAMES = ("dqn", "reinforce", "rollout", "breakout")

# A contestant is a module of `contestants` and, after a slash, a layout other than its users' own.
OURS = {
    "dqn": ("jaxrl", "floor"),
    "reinforce": ("jaxrl", "floor", "gymnax", "gymnax/vectorize"),
    "rollout": ("jaxrl", "gymnax"),
    "breakout": ("jaxrl", "floor"),
}
PEERS = {
    "dqn": ("rejax", "rejax/vectorize", "jaxnasium", "jaxnasium/vectorize"),
    "reinforce": ("rejax", "rejax/vectorize", "jaxnasium", "jaxnasium/vectorize"),
    "rollout": (),
    "breakout": ("rejax", "rejax/vectorize"),
}
ONE_SEED = {"dqn": ("sb3", "sbx"), "reinforce": ("sb3",)}  # these have no way to train several at once


def layout_of(contestant: str) -> str:
    """How its seeds are laid out: "vectorize" as ours, "vmap" as its own users do, "process": one seed, no program."""
    own = {"jaxrl": "vectorize", "floor": "vectorize", "sb3": "process", "sbx": "process"}
    name, _, layout = contestant.partition("/")
    return layout or own.get(name, "vmap")


def dqn(seeds: int, capacity: int, updates: int) -> Work:
    """10 environments, batch 128, MLP 120-84, one update an iteration; the warm-up just fills a batch."""
    return Work(
        "dqn", "CartPole-v1", seeds, 10, 1, updates, warmup=13, batch_size=128, capacity=capacity, tau=0.01, hidden=(120, 84)
    )


def reinforce(seeds: int, num_envs: int, rollout_length: int, updates: int) -> Work:
    return Work("reinforce", "CartPole-v1", seeds, num_envs, rollout_length, updates, hidden=(64, 64))


def rollout(num_envs: int, num_steps: int) -> Work:
    """Random actions, no network, no learning."""
    return Work("rollout", "CartPole-v1", 1, num_envs, 32, num_steps // 32)


def breakout(seeds: int, capacity: int, warmup: int, updates: int) -> Work:
    """The sizes that rejax published (its benchmark of a million steps), with the network of the MinAtar paper."""
    sizes = {"batch_size": 100, "capacity": capacity, "target_period": 1_000, "hidden": (128,), "channels": (16,)}
    return Work("breakout", "Breakout-MinAtar", seeds, 1, 1, updates, warmup=warmup, **sizes)


def works(platform: str, quick: bool) -> list[Work]:
    """Everything that is measured on a platform ("cpu", "gpu" or "tpu"), small things first."""
    if quick:
        dqns = [dqn(seeds, 10_000, 100) for seeds in (1, 4)]
        reinforces = [reinforce(seeds, 16, 32, 20) for seeds in (1, 4)]
        rollouts = [rollout(num_envs, num_steps) for num_envs, num_steps in ((8, 3_200), (256, 320))]
        return [*rollouts, *reinforces, *dqns, breakout(1, 2_000, 100, 50)]
    rollouts = [rollout(2**n, max(640, 2**22 // 2**n // 32 * 32)) for n in (3, 6, 8, 11, 14)]
    if platform == "cpu":
        dqns = [dqn(seeds, n, 250 if seeds > 128 else 1_000) for n in (10_000, 100_000) for seeds in (1, 16, 128, 512)]
        small = [reinforce(seeds, 16, 32, 300) for seeds in (1, 16, 128)]
        large = [reinforce(seeds, 64, 128, 10 if seeds > 16 else 40) for seeds in (1, 16, 128)]
        breakouts = [breakout(seeds, 100_000, 500, 500) for seeds in (1, 4)]
    else:
        seeds_of_all = (1, 16, 128, 512, 1024, 4096)
        dqns = [dqn(seeds, capacity, 10_000) for capacity in (10_000, 100_000) for seeds in seeds_of_all]
        sizes_of_all = ((16, 32, 1_000), (64, 128, 200))
        small, large = ([reinforce(seeds, *sizes) for seeds in seeds_of_all] for sizes in sizes_of_all)
        breakouts = [breakout(seeds, 100_000, 1_000, 999_000) for seeds in (1, 50)]
    return [*rollouts, *small, *large, *dqns, *breakouts]


def entries(work: Work, platform: str, jaxrl_only: bool) -> Iterator[tuple[str, Work]]:
    """Who takes part, and with what: peers do fewer updates of the largest works, which would take them hours."""
    for contestant in OURS[work.name]:
        if contestant != "gymnax/vectorize" or platform == "cpu":
            yield contestant, work
    if jaxrl_only:
        return
    crowded = work.seeds >= 128
    share = 50 if work.updates > 100_000 else 5 if crowded or (work.seeds > 1 and work.capacity > 10_000) else 1
    for contestant in PEERS[work.name]:
        # On one GPU `vectorize` is the same `jit(vmap)`, and for one seed anywhere.
        if contestant.endswith("/vectorize") and (platform != "cpu" or work.seeds == 1):
            continue
        if contestant == "jaxnasium/vectorize" and crowded:
            continue  # with 16 seeds it shows what that layout does; this would be an hour more
        yield contestant, work._replace(updates=max(work.updates // share, min(work.updates, 10)))
    if work.seeds == 1:
        for contestant in ONE_SEED.get(work.name, ()):
            yield contestant, work
