"""Run folders as training leaves them, made without training."""

import numpy as np

from jaxrl.experiment import Config, folder
from jaxrl.experiment.csv_file import CsvFile
from jaxrl.experiment.evaluations import write_evaluation
from jaxrl.presets import DEFAULTS, override

_SIZES = {
    "dqn": {"capacity": 64, "batch_size": 8, "warmup_steps": 40},
    "ppo": {},
}


def write_run(path, means, *, algorithm="dqn", spread=1.0, evaluate=True, times=4, episodes=3, random_seed=0, **fields):
    """Write config.json, metrics.csv and evaluation.csv.

    Args:
      path: the folder, which is made.
      means: the mean return of each combination of the swept values.
      algorithm: "dqn" or "ppo".
      spread: standard deviation of the seeds.
      evaluate: whether to write evaluation.csv.
      times: number of rows in the metrics of each run.
      episodes: number of episodes in an evaluation.
      random_seed: of the returns.
      fields: of `Config`.
    """
    settings = override(DEFAULTS[algorithm], steps=2000, network={"hidden": (8,)}, agent=_SIZES[algorithm])
    config = Config(**({"env": "CartPole-v1", "settings": settings, "seeds": 8} | fields))
    rng = np.random.default_rng(random_seed)
    path.mkdir(parents=True)
    config.save(path / folder.CONFIG)
    finals = (np.asarray(means, float)[:, None] + spread * rng.normal(size=(len(config.combinations), config.seeds))).ravel()
    with CsvFile(path / folder.METRICS) as file:
        for t in range(1, times + 1):
            file.write(
                identifier | {"env_steps": 500 * t, "wall_seconds": 1.5 * t, "episode_return": final * t / times, "loss": 1 / t}
                for identifier, final in zip(config.identifiers(), finals, strict=True)
            )
    if evaluate:
        write_evaluation(path, config, 500 * times, finals[:, None] + rng.normal(size=(config.num_runs, episodes)) / 100)
    return config


def keep_rows(path, keep):
    """Remove the rows of a CSV file for which `keep(seed, env_steps)` is false, as a run leaves it that was interrupted."""
    header, *lines = path.read_text().splitlines(keepends=True)
    columns = header.strip().split(",")
    place = [columns.index(name) for name in ("seed", "env_steps")]
    kept = [line for line in lines if keep(*(int(float(line.split(",")[i])) for i in place))]
    path.write_text("".join([header, *kept]))
