"""A study: two algorithms on two environments, each with a sweep of its learning rate, and what is more than noise.

Every pair of an environment and an algorithm is one run folder, in which one program trains all seeds and learning rates. Start
the script again after any interruption: finished folders are kept, and unfinished ones continue from their last checkpoint.

    python scripts/examples/sweep.py runs/study
    python scripts/examples/sweep.py runs/smoke --seeds 2 --steps 4000
"""

import argparse
import itertools
from pathlib import Path

from jaxrl import experiment, presets
from jaxrl.experiment import comparison, folder
from jaxrl.vectorization import use_all_cores

ENVIRONMENTS = ("CartPole-v1", "Acrobot-v1")
ALGORITHMS = ("dqn", "ppo")
LEARNING_RATES = [3e-4, 1e-3, 3e-3]


def train(out: Path, algorithm: str, env: str, *, seeds: int, steps: int | None) -> None:
    """Train all seeds and learning rates, or what is left of them."""
    if folder.is_finished(out):
        print(f"{out}: finished before")
    elif (out / folder.CONFIG).exists():
        print(f"{out}: resuming")
        experiment.resume(out)
    else:
        print(f"{out}: training")
        settings = presets.tuned(algorithm, env)
        settings = settings if steps is None else presets.override(settings, steps=steps)
        sweep = {"learning_rate": LEARNING_RATES}
        experiment.run(experiment.Config(env=env, settings=settings, seeds=seeds, sweep=sweep), out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the study")
    parser.add_argument("--seeds", type=int, default=16, help="seeds of each setting (default: 16)")
    parser.add_argument("--steps", type=int, help="environment steps of each run (default: those of the preset)")
    options = parser.parse_args()
    use_all_cores()  # seeds run side by side on the cores of a CPU
    runs = []
    for env, algorithm in itertools.product(ENVIRONMENTS, ALGORITHMS):
        runs.append(options.out / f"{algorithm}-{env}")
        train(runs[-1], algorithm, env, seeds=options.seeds, steps=options.steps)
    found = comparison.compare(runs)
    for entry in found.entries:
        summary = entry.summary
        print(f"{entry.config.env:12} {entry.label:36} {summary.iqm:8.2f}  [{summary.low:.2f}, {summary.high:.2f}]")
    differences = [comparison.sentence(pair) for pair in found.pairs if pair.more_than_noise]
    print("\n".join(differences) or "No difference is more than noise; more seeds may show one.")


if __name__ == "__main__":
    main()
