"""Measure the presets: `python scripts/presets.py [--missing] [--rows 'ppo-*' dqn-CartPole-v1-100000 …]`.

Trains every row with seeds that were not used for tuning, plays each final policy greedily for 100 episodes or more, and writes
the seeds' mean returns to `benchmarks/results/presets.jsonl`, one line for each row. `scripts/choosing.py` makes the tables of
the documentation from that file.
"""

import argparse
import dataclasses
import fnmatch
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl import __version__, presets
from jaxrl.experiment.statistics import iqm, iqm_interval
from jaxrl.vectorization import use_all_cores

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "presets.jsonl"
FIRST_SEED = 1000  # presets are tuned on seeds below
EPISODES = 100
MANY_EPISODES = {"Acrobot-v1": 1_000, "Pendulum-v1": 1_000, "PointMass": 10_000}  # where 100 are too few to tell policies apart
NO_VELOCITIES = ("partial_observation:1,0,1,0",)  # of CartPole
SEEDS = {  # where it is not 32, since a run takes minutes
    ("c51", "CartPole-v1"): 16,
    ("c51", "MountainCar-v0"): 16,
    ("dqn", "MountainCar-v0"): 16,
    ("dqn", "Breakout-MinAtar"): 8,
    ("iqn", "CartPole-v1"): 16,
    ("pqn", "Breakout-MinAtar"): 8,
    ("qr_dqn", "Acrobot-v1"): 16,
    ("rainbow", "CartPole-v1"): 16,
    ("sac", "MountainCarContinuous-v0"): 16,
    ("sac", "PointMass"): 16,
}


class Row(NamedTuple):
    """A row of the results: an algorithm on an environment, with the settings of the preset, or else the defaults."""

    algorithm: str
    env: str
    steps: int
    seeds: int = 32
    wrappers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.algorithm}-{'+'.join((self.env, *self.wrappers))}-{self.steps}"

    @property
    def episodes(self) -> int:
        return MANY_EPISODES.get(self.env, EPISODES)

    @property
    def settings(self) -> presets.Settings:
        tuned = presets.tuned(self.algorithm, self.env, self.steps)
        return tuned or dataclasses.replace(presets.default_settings(self.algorithm), steps=self.steps)


TUNED = tuple(
    Row(algorithm, env, settings.steps, SEEDS.get((algorithm, env), 32))
    for (algorithm, env), all_settings in presets.PRESETS.items()
    for settings in all_settings
)
ROWS = (
    *TUNED,
    Row("reinforce", "PointMass", 2_000_000),
    Row("ppo", "CartPole-v1", 1_000_000, 16, wrappers=NO_VELOCITIES),
    Row("recurrent_ppo", "CartPole-v1", 1_000_000, 16, wrappers=NO_VELOCITIES),
    Row("ppo", "MemoryChain-bsuite", 500_000),
    Row("recurrent_ppo", "MemoryChain-bsuite", 100_000),
)


def flat_settings(row: Row) -> dict[str, str]:
    """Every setting as text, such as `{"agent.batch_size": "128"}`."""
    flat = {}
    for name, value in dataclasses.asdict(row.settings).items():
        inner = {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
        flat |= {k: str(v) for k, v in inner.items()}
    return flat


def is_current(row: Row, result: dict | None) -> bool:
    """Whether there is a result, measured with the settings of today. Options that did not exist then do not count."""
    if result is None or result.get("episodes", EPISODES) != row.episodes:
        return False
    now = flat_settings(row)
    return all(now.get(name, value) == value for name, value in result["settings"].items())


def read(path: Path = RESULTS) -> dict[str, dict]:
    """The results in the file, by the names of their rows."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {result["row"]: result for result in map(json.loads, lines)}


def write(result: dict, path: Path = RESULTS) -> None:
    """Add a result to the file, in place of an earlier one of the same row."""
    results = read(path) | {result["row"]: result}
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text("".join(json.dumps(results[name], sort_keys=True) + "\n" for name in sorted(results)))
    new.replace(path)


def measure(row: Row, *, first_seed: int = FIRST_SEED) -> dict[str, Any]:
    """Train and evaluate a row. Seconds are of compilation and training, for all seeds."""
    import jax

    from jaxrl.experiment import Config, evaluate_policies, run

    config = Config(row.env, row.settings, row.wrappers, seeds=row.seeds, seed=first_seed, eval_every="none")
    times = []
    with tempfile.TemporaryDirectory() as folder:
        done = run(config, Path(folder) / "run", report=lambda _: times.append((time.perf_counter(), time.process_time())))
    wall, cpu = np.subtract(times[-1], times[0])
    returns = evaluate_policies(config, done.policies, num_episodes=row.episodes).mean(axis=1)
    device = jax.devices()[0]
    return {
        "row": row.name,
        "algorithm": row.algorithm,
        "env": config.env_title,
        "env_steps": done.env_steps,
        "seeds": row.seeds,
        "first_seed": first_seed,
        "episodes": row.episodes,
        "returns": [round(float(x), 3) for x in returns],
        "wall_seconds": round(float(wall), 1),
        "cpu_seconds": round(float(cpu), 1),
        "device": f"{jax.device_count()} × {device.device_kind}",
        "versions": {"jaxrl": __version__, "jax": jax.__version__},
        "settings": flat_settings(row),
    }


def statistics(returns: Any) -> dict[str, float]:
    """IQM over the seeds with its 95 % bootstrap interval, median and worst."""
    returns = np.asarray(returns, np.float64)
    low, high = iqm_interval(returns)
    return {
        "iqm": float(iqm(returns)),
        "low": float(low),
        "high": float(high),
        "median": float(np.median(returns)),
        "worst": float(returns.min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["*"], help="names or patterns of rows, by default all; --list prints them")
    parser.add_argument("--missing", action="store_true", help="only rows without a result of the present settings")
    parser.add_argument("--list", action="store_true", help="print the names of the selected rows and run nothing")
    parser.add_argument("--seeds", type=int, help="number of seeds, in place of the row's own")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    options = parser.parse_args()
    selected = [row for row in ROWS if any(fnmatch.fnmatchcase(row.name, pattern) for pattern in options.rows)]
    if not selected:
        parser.error(f"no row is called {' or '.join(options.rows)}; there are {', '.join(row.name for row in ROWS)}")
    if options.missing:
        results = read(options.results)
        selected = [row for row in selected if not is_current(row, results.get(row.name))]
    use_all_cores()
    for row in selected:
        if options.list:
            print(row.name)
            continue
        result = measure(row if options.seeds is None else row._replace(seeds=options.seeds))
        write(result, options.results)
        numbers = "  ".join(f"{name} {value:.1f}" for name, value in statistics(result["returns"]).items())
        print(f"{row.name}: {numbers}  {result['cpu_seconds']:.0f} CPU seconds, {result['wall_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
