"""Loggers: what receives the metrics of an experiment while it trains, besides `metrics.csv`.

A logger is a record of two functions, so any program can have its own:

>>> seen = []
>>> mine = Logger(log=seen.extend, close=lambda: None)

`jaxrl.experiment.run(..., loggers=[mine])` calls it in a thread of its own.
"""

import importlib.util
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxrl._src.checks import check_choice
from jaxrl._src.numbers import shown

LOGGING = "logging.json"  # in a run folder: which loggers it has, and under which names they know the run
_MOST_RUNS = 64  # with curves of their own in TensorBoard, W&B and MLflow


class Row(NamedTuple):
    """What is known of a run, or of all seeds of a setting together, at a time."""

    run: str  # such as "seed 3", "seed 3 learning_rate 0.001", "IQM", or "IQM learning_rate 0.001"
    env_steps: int  # of each run
    total_env_steps: int  # of all runs together, which train in batches if they do not fit into memory; never decreases
    wall_seconds: float
    # The metrics of metrics.csv, and `greedy_return`, the mean return of an evaluation. Of an IQM `episode_return` and
    # `greedy_return`, and the ends of their 95 % intervals, `episode_return_low`, `episode_return_high`, and so on.
    values: dict[str, float]


class Logger(NamedTuple):
    """Where rows go. Both functions may raise anything, and take their time."""

    log: Callable[[Sequence[Row]], None]  # called first without rows, when the run folder is there, and then after each chunk
    close: Callable[[], None]  # called once, at the end, also of a run that is interrupted


def make_logger(name: str, run: Path) -> Logger:
    """The logger of that name: "tensorboard", "wandb" or "mlflow". Raises as these do, and ValueError for another name."""
    check_choice("log", name, tuple(LOGGERS))
    return LOGGERS[name](run)


def loggers_of(run: Path) -> list[str]:
    """The names of the loggers with which a run folder was trained."""
    return [name for name in _remembered(run) if name in LOGGERS]


def tensorboard(run: Path) -> Logger:
    """Event files for TensorBoard in `run/tensorboard`, with a folder for each run and each IQM.

    Rows that an interrupted process wrote after its last checkpoint are hidden when they are written again.

    Raises:
      ImportError: without tensorboardX.
    """
    _check_installed("tensorboardX", "tensorboard")
    writers: dict[str, Any] = {}

    def log(rows):
        from tensorboardX import SummaryWriter

        if not rows:
            _remember(run, "tensorboard", {})
        for row in rows:
            if row.run not in writers:
                folder = run / "tensorboard" / row.run
                before = len(list(folder.glob("events*")))  # of processes that were interrupted; names have only the second
                hidden = {"purge_step": row.env_steps} if before else {}
                writers[row.run] = SummaryWriter(str(folder), filename_suffix=f".{before}", **hidden)
            for name, value in row.values.items():
                writers[row.run].add_scalar(name, value, row.env_steps)
        for writer in writers.values():
            writer.flush()

    def close():
        for writer in writers.values():
            writer.close()

    return Logger(_of_few_runs(log), close)


def wandb(run: Path) -> Logger:
    """A run of Weights & Biases with the name of the run folder, and metrics such as "seed 3/loss" and "IQM/episode_return".

    The environment variables of W&B, such as WANDB_PROJECT (by default jaxrl) and WANDB_MODE=offline, are respected. A resumed
    run continues that of W&B, which ignores what it has already.

    Raises:
      ImportError: without wandb.
      ValueError: if W&B is used online and nobody is logged in.
    """
    _check_installed("wandb", "wandb")
    import wandb as package

    if os.environ.get("WANDB_MODE", "online") not in ("offline", "disabled", "dryrun") and not package.api.api_key:
        raise ValueError("nobody is logged in to W&B: run `wandb login`, or set WANDB_MODE=offline")
    live: list[Any] = []

    def log(rows):
        if not live:
            name = _remembered(run).get("wandb", {}).get("id") or secrets.token_hex(8)
            settings = package.Settings(silent=True, console="off")
            live.append(
                package.init(
                    project=os.environ.get("WANDB_PROJECT", "jaxrl"), name=run.name, dir=str(run), id=name, resume="allow",
                    config=_options(run), settings=settings, reinit="create_new",
                )
            )  # fmt: skip
            live[0].define_metric("*", step_metric="env_steps")
            _remember(run, "wandb", {"id": name})
        if rows:  # of one chunk, so of one time
            values = {f"{row.run}/{name}": value for row in rows for name, value in row.values.items()}
            times = {"env_steps": rows[0].env_steps, "wall_seconds": rows[0].wall_seconds}
            live[0].log({**times, **values}, step=rows[0].total_env_steps)

    def close():
        for open_run in live:
            open_run.finish()

    return Logger(_of_few_runs(log), close)


def mlflow(run: Path) -> Logger:
    """A run of MLflow with the name of the run folder, and metrics such as "seed 3/loss" and "IQM/episode_return".

    The environment variables of MLflow, such as MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME (by default jaxrl), are respected.
    A resumed run continues that of MLflow, without the rows that it has already.

    Raises:
      ImportError: without mlflow.
    """
    _check_installed("mlflow", "mlflow")
    live: list[tuple[Any, str, bool]] = []
    last: dict[str, int] = {}  # the last step of a metric that MLflow has

    def log(rows):
        from mlflow.entities import Metric

        if not live:
            live.append(_begin_mlflow(run))
        client, name, continued = live[0]
        metrics = []
        for row in rows:
            for metric, value in row.values.items():
                key = re.sub(r"[^\w\-. /:]", "_", f"{row.run}/{metric}")
                if continued and key not in last:
                    last[key] = max((known.step for known in client.get_metric_history(name, key)), default=-1)
                if row.env_steps > last.get(key, -1):
                    metrics.append(Metric(key, value, int(1000 * time.time()), row.env_steps))
        for first in range(0, len(metrics), 1000):  # the most that MLflow takes at once
            client.log_batch(name, metrics=metrics[first : first + 1000])

    def close():
        for client, name, _ in live:
            client.set_terminated(name)

    return Logger(_of_few_runs(log), close)


def _begin_mlflow(run: Path) -> tuple[Any, str, bool]:
    """A client, the identifier of a run, and whether it continues or is new."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each table of a new database
    client = MlflowClient()
    name = _remembered(run).get("mlflow", {}).get("id")
    if name:
        client.update_run(name, status="RUNNING")
        return client, name, True
    title = os.environ.get("MLFLOW_EXPERIMENT_NAME", "jaxrl")
    experiment = client.get_experiment_by_name(title)
    identifier = experiment.experiment_id if experiment else client.create_experiment(title)
    name = client.create_run(identifier, run_name=run.name).info.run_id
    client.log_batch(name, params=[Param(key, str(value)[:500]) for key, value in _options(run).items()])
    _remember(run, "mlflow", {"id": name})
    return client, name, False


LOGGERS: dict[str, Callable[[Path], Logger]] = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}


def _check_installed(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ImportError(f"logging to {extra} needs {package}: pip install 'jaxrl[{extra}]'")


def _of_few_runs(log: Callable[[Sequence[Row]], None]) -> Callable[[Sequence[Row]], None]:
    """`log` without the curves of single runs past the first 64, which none of the web pages can show; the IQMs are of all."""
    known: set[str] = set()

    def few(rows):
        for row in rows:
            if len(known) < _MOST_RUNS and not row.run.startswith("IQM"):
                known.add(row.run)
        log([row for row in rows if row.run in known or row.run.startswith("IQM")])

    return few


def _options(run: Path) -> dict[str, Any]:
    """Every option of the runs by its name on the command line, so that a service can sort and filter by each."""
    from jaxrl.experiment.comparison import describe
    from jaxrl.experiment.config import load_config

    config = load_config(run)
    combinations = config.combinations
    swept = {name: " ".join(dict.fromkeys(shown(values[name]) for values in combinations)) for name in config.swept}
    others = ("seeds", "seed", "batch_size", "eval_every", "num_shards", "deterministic")
    return describe(config, swept) | {name: getattr(config, name) for name in others}


def _remembered(run: Path) -> dict[str, Any]:
    try:
        found = json.loads((run / LOGGING).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(run: Path, name: str, record: dict[str, Any]) -> None:
    new = run / f"{LOGGING}.new"
    new.write_text(json.dumps(_remembered(run) | {name: record}, indent=2) + "\n")
    new.replace(run / LOGGING)
