r"""Search settings of an algorithm on an environment at random: how the presets were found.

It also varies structure, such as the number of environments, for which a program is compiled each time; `jaxrl tune` searches
hyperparameters alone, in one program.

Settings start from the preset, or else the defaults, and `NAME=RANGE` changes them. `1e-4:1e-2` is log-uniform, `[1, 2, 4]` a
list of choices. A name is a field of `Settings` (`num_envs`), or an entry of a group (`hparams.tau`, `agent.batch_size`,
`network.hidden`, `schedules.epsilon_fraction`). Hyperparameters and schedules are data: `--trials` combinations train in one
program. Everything else is structure: `--programs` combinations are compiled. Seeds are below 16; presets are measured on others.

    python scripts/search.py a2c CartPole-v1 --steps 500000 hparams.learning_rate=1e-3:3e-2 hparams.entropy_coef=1e-4:0.03 \
        hparams.gae_lambda='[0.9, 0.95, 1.0]' rollout_length='[8, 32]' --programs 2
    python scripts/search.py c51 CartPole-v1 --steps 100000 hparams.learning_rate=1e-4:3e-3 hparams.tau=1e-3:0.1
    python scripts/search.py ddpg Pendulum-v1 --steps 20000 hparams.learning_rate=3e-4:3e-3 hparams.exploration_noise=0.05:0.5
    python scripts/search.py dqn CartPole-v1 --steps 50000 hparams.learning_rate=1e-4:1e-2 hparams.tau=1e-3:0.1 \
        schedules.epsilon_fraction='[0.1, 0.3, 0.5]' agent.updates_per_iteration='[1, 2, 4]' --programs 3
    python scripts/search.py iqn Acrobot-v1 --steps 100000 hparams.learning_rate=1e-4:3e-3 hparams.tau=1e-3:0.1
    python scripts/search.py openai_es CartPole-v1 --steps 500000 hparams.learning_rate=1e-2:0.3 hparams.noise_std=0.03:0.3 \
        num_envs='[32, 64, 128]' --programs 3
    python scripts/search.py ppo CartPole-v1 --steps 500000 hparams.learning_rate=1e-4:1e-2 hparams.entropy_coef=1e-4:0.03 \
        hparams.gae_lambda='[0.9, 0.95, 0.98]' num_envs='[4, 16]' agent.num_epochs='[4, 10]' --programs 4
    python scripts/search.py pqn CartPole-v1 --steps 500000 hparams.learning_rate=1e-4:3e-3 hparams.q_lambda='[0.3, 0.65, 0.95]' \
        schedules.epsilon_fraction='[0.1, 0.3, 0.5]' num_envs='[16, 32]' --programs 2
    python scripts/search.py qr_dqn Acrobot-v1 --steps 100000 --episodes 1000 --seeds 12 --trials 8 \
        hparams.learning_rate='[7e-4, 1.4e-3, 2e-3]'
    python scripts/search.py rainbow CartPole-v1 --steps 100000 hparams.learning_rate=1e-4:3e-3 hparams.tau=1e-3:0.1
    python scripts/search.py recurrent_ppo CartPole-v1 --wrap partial_observation:1,0,1,0 --steps 1000000 \
        hparams.learning_rate=1e-4:1e-2 hparams.entropy_coef=1e-4:0.03 rollout_length='[32, 128]' --programs 2
    python scripts/search.py reinforce PointMass --steps 500000 hparams.learning_rate=3e-4:3e-2 hparams.entropy_coef='[0, 0.01]' \
        rollout_length='[25, 50]' --programs 2
    python scripts/search.py sac Pendulum-v1 --steps 20000 hparams.learning_rate=3e-4:3e-3 hparams.tau=3e-3:0.03 \
        agent.batch_size='[128, 256]' --programs 2
    python scripts/search.py td3 Pendulum-v1 --steps 20000 hparams.learning_rate=3e-4:3e-3 hparams.tau=3e-3:0.03 \
        hparams.exploration_noise=0.05:0.5 hparams.target_noise=0.05:0.5
"""

import argparse
import ast
import dataclasses
import math
import random
import time
from typing import Any

from jaxrl.vectorization import use_all_cores

DATA = ("hparams", "schedules")


def parse(text: str) -> tuple[str, Any]:
    """The name and its range: a pair of floats, or a list.

    >>> parse("hparams.tau=1e-3:0.1"), parse("num_envs=[4, 8]")
    (('hparams.tau', (0.001, 0.1)), ('num_envs', [4, 8]))
    """
    name, equals, values = text.partition("=")
    try:
        if ":" in values:
            low, high = (float(x) for x in values.split(":"))
            valid = 0 < low < high
            found: Any = (low, high)
        else:
            found = ast.literal_eval(values)
            valid = isinstance(found, list) and len(found) > 0
    except (ValueError, SyntaxError):
        valid = False
    if not equals or not valid:
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=LOW:HIGH with 0 < LOW < HIGH, or NAME='[VALUE, ...]'")
    return name, found


def draw(space: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """One value for each name."""
    choose = lambda r: rng.choice(r) if isinstance(r, list) else math.exp(rng.uniform(math.log(r[0]), math.log(r[1])))
    return {name: choose(values) for name, values in space.items()}


def changed(settings: Any, values: dict[str, Any]) -> Any:
    """The settings with other values. Raises ValueError for an unknown name."""
    from jaxrl.presets import override

    groups: dict[str, Any] = {}
    for name, value in values.items():
        group, dot, key = name.partition(".")
        if group not in {field.name for field in dataclasses.fields(settings)}:
            raise ValueError(f"unknown setting {name!r}; there are {', '.join(f.name for f in dataclasses.fields(settings))}")
        groups[group] = {**groups.get(group, {}), key: value} if dot else value
    return override(settings, **groups)


def train_all(settings: list[Any], env: Any, num_seeds: int, num_episodes: int) -> Any:
    """Mean returns `[len(settings), num_seeds]`, of settings that differ only in data: one program."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxrl.experiment import successive_halving
    from jaxrl.presets import build

    built = [build(each, env) for each in settings]
    hparams = jax.tree.map(lambda *x: jnp.stack([jnp.float32(value) for value in x]), *(each.hparams for each in built))
    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    _, rungs = successive_halving(
        keys,
        built[0].learner,
        hparams,
        num_iterations=built[0].num_iterations,
        factor=len(settings) + 1,  # all of them for the whole run
        num_episodes=num_episodes,
    )
    return rungs[0].scores[np.argsort(rungs[0].settings)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm")
    parser.add_argument("env")
    parser.add_argument("space", nargs="*", type=parse, metavar="NAME=RANGE")
    parser.add_argument("--steps", type=int, help="environment steps of each seed (default: the preset's)")
    parser.add_argument("--trials", type=int, default=16, help="combinations of data in each program (default: 16)")
    parser.add_argument("--programs", type=int, default=1, help="combinations of structure (default: 1)")
    parser.add_argument("--seeds", type=int, default=4, choices=range(1, 17), metavar="1 … 16", help="(default: 4)")
    parser.add_argument("--episodes", type=int, default=32, help="greedy ones, of each seed (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="of the search, not of the runs (default: 0)")
    parser.add_argument("--wrap", action="append", default=[], help="as for jaxrl train")
    options = parser.parse_intermixed_args()
    use_all_cores()
    from jaxrl import envs, presets
    from jaxrl.experiment.statistics import iqm
    from jaxrl.experiment.wrapping import wrap

    rng, space = random.Random(options.seed), dict(options.space)
    data = {name: values for name, values in space.items() if name.partition(".")[0] in DATA}
    structure = {name: values for name, values in space.items() if name not in data}
    base = presets.tuned(options.algorithm, options.env, options.steps) or presets.default_settings(options.algorithm)
    base = base if options.steps is None else dataclasses.replace(base, steps=options.steps)
    env, rows = wrap(envs.make(options.env), options.wrap), []
    for _ in range(options.programs):
        fixed = draw(structure, rng)
        trials = [fixed | draw(data, rng) for _ in range(options.trials)]
        started = time.perf_counter()
        returns = train_all([changed(base, trial) for trial in trials], env, options.seeds, options.episodes)
        found = [(float(iqm(x)), float(x.min()), trial) for x, trial in zip(returns, trials, strict=True)]
        rows += found
        print(f"best IQM {max(row[0] for row in found):.1f} of {fixed} in {time.perf_counter() - started:.0f} s", flush=True)
    print("\n      IQM      worst  settings")
    for middle, worst, trial in sorted(rows, key=lambda row: row[:2], reverse=True):
        shown = "  ".join(
            f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in trial.items()
        )
        print(f"{middle:9.2f}  {worst:9.2f}  {shown}")


if __name__ == "__main__":
    main()
