"""Reproduce the results of the presets: `python scripts/presets.py [--seeds 32] [--rows dqn-CartPole-v1-100000 …]`.

Trains every row with seeds that were not used for tuning, plays each final policy greedily for 100 episodes, and prints the
table of the README: IQM with its 95 % bootstrap confidence interval, median and worst of the seeds' mean returns.
"""

import argparse
import json
import tempfile
from pathlib import Path

from jaxrl.vectorization import use_all_cores

ROWS = (
    ("c51", "CartPole-v1", 500_000),
    ("c51", "MountainCar-v0", 500_000),
    ("dqn", "CartPole-v1", 100_000),
    ("dqn", "CartPole-v1", 500_000),
    ("dqn", "Acrobot-v1", 200_000),
    ("dqn", "MountainCar-v0", 500_000),
    ("qr_dqn", "CartPole-v1", 50_000),
    ("qr_dqn", "Acrobot-v1", 100_000),
    ("rainbow", "CartPole-v1", 100_000),
    ("reinforce", "CartPole-v1", 500_000),
    ("reinforce", "Acrobot-v1", 500_000),
    ("reinforce", "PointMass", 500_000),
    ("reinforce", "PointMass", 2_000_000),
)


def result(algorithm: str, env: str, steps: int, seeds: int, first_seed: int) -> dict:
    """The numbers for one row of the table."""
    from jaxrl import presets
    from jaxrl.experiment import Config, evaluate_policies, run
    from jaxrl.experiment.statistics import iqm, iqm_interval

    config = Config(env=env, settings=presets.tuned(algorithm, env, steps), seeds=seeds, seed=first_seed)
    with tempfile.TemporaryDirectory() as folder:
        done = run(config, Path(folder) / "run")
    returns = evaluate_policies(config, done.policies, num_episodes=100).mean(axis=1)
    low, high = iqm_interval(returns)
    return {
        "algorithm": algorithm, "env": env, "env_steps": done.env_steps, "seeds": seeds, "iqm": float(iqm(returns)),
        "low": float(low), "high": float(high), "median": float(sorted(returns)[seeds // 2]), "worst": float(returns.min()),
        "seconds": done.seconds, "returns": [round(float(r), 2) for r in returns],
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    lines = [
        "| preset | environment steps | IQM | 95 % interval | median | worst seed | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['algorithm']}, {r['env']} | {r['env_steps']:,} | {r['iqm']:.1f} | {r['low']:.1f} … {r['high']:.1f} "
            f"| {r['median']:.1f} | {r['worst']:.1f} | {r['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--first-seed", type=int, default=1000)
    parser.add_argument("--rows", nargs="*", default=["-".join(map(str, row)) for row in ROWS], help="ALGORITHM-ENV-STEPS")
    parser.add_argument("--out", type=Path, help="a file to which the rows are appended as JSON, one on each line")
    options = parser.parse_args()
    use_all_cores()
    rows = []
    for name in options.rows:
        algorithm, _, rest = name.partition("-")
        env, _, steps = rest.rpartition("-")
        rows.append(result(algorithm, env, int(steps), options.seeds, options.first_seed))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        if options.out:
            with options.out.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
    print("\n" + table(rows))


if __name__ == "__main__":
    main()
