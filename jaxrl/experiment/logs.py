"""What loggers receive, and the threads in which they do: a logger that is slow or fails never stops or slows training."""

import queue
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxrl._src.numbers import shown
from jaxrl.experiment import folder
from jaxrl.experiment.config import Config
from jaxrl.experiment.divergence import metrics_of, not_finite
from jaxrl.experiment.evaluations import EVALUATION, mean_by_group, run_numbers
from jaxrl.experiment.loggers import Logger, Row
from jaxrl.experiment.notes import Note
from jaxrl.experiment.statistics import iqm, iqm_interval
from jaxrl.experiment.trainers import Chunk

_WAITING = 256  # chunks that may wait for a logger
_TIMEOUT = 30.0  # seconds that a logger has at the end
_RESAMPLED = 200_000  # seeds that are drawn for all intervals after a chunk
_MOST_SETTINGS = 64  # with an IQM, which is computed between chunks

Log = Callable[[int, float, Chunk, Any], None]  # (total_env_steps, wall_seconds, chunk, mean returns of an evaluation or None)


@contextmanager
def logging(loggers: Sequence[Logger], config: Config, out: Path) -> Iterator[Log]:
    """Yield a function that passes what is known after a chunk to all loggers, and does not wait for them."""
    if not loggers:
        yield lambda *args: None
        return
    with ExitStack() as stack:
        threads = []
        for logger in loggers:
            threads.append(in_background(logger))
            stack.callback(threads[-1].close)
        rows_of = Rows(config, out)
        for thread in threads:
            thread.log([])

        waiting = []

        def log(total, seconds, chunk, means):
            waiting.append(rows_of(total, seconds, chunk, means))
            if chunk.states is None:  # the threads begin when the program runs again, not while there is work between its calls
                return
            for rows in waiting:
                for thread in threads:
                    thread.log(rows)
            waiting.clear()

        yield log


def in_background(logger: Logger, *, waiting: int = _WAITING, timeout: float = _TIMEOUT) -> Logger:
    """A logger that calls another one in a thread.

    What that one cannot take is dropped. A note says so once, with the reason, and another one at the end how much it was.

    Args:
      logger: the other one.
      waiting: the number of calls that may wait for it.
      timeout: seconds that it has at the end.
    """
    calls: queue.Queue[Any] = queue.Queue(waiting)
    dropped, reasons, noted = [0], [], [False]

    def work():
        while (rows := calls.get()) is not None:
            try:
                logger.log(rows)
            except (Exception, SystemExit) as error:
                dropped[0] += len(rows)
                reasons.append(f"it raised {_describe(error)}")
        try:
            logger.close()
        except (Exception, SystemExit) as error:
            reasons.append(f"it raised {_describe(error)}")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def note():
        if reasons and not noted[0]:
            noted[0] = True
            warnings.warn(f"a logger does not take all rows ({reasons[0]}); training goes on", Note, stacklevel=3)

    def log(rows):
        try:
            calls.put_nowait(rows)
        except queue.Full:
            dropped[0] += len(rows)
            reasons.append("it is too slow")
        note()

    def close():
        end = time.monotonic() + timeout
        try:
            calls.put(None, timeout=timeout)
            thread.join(end - time.monotonic() if end > time.monotonic() else 0)
        except queue.Full:
            pass
        if thread.is_alive():
            dropped[0] += sum(len(rows) for rows in list(calls.queue) if rows)
            reasons.append(f"it has not finished {timeout:g} s after the end of training")
        note()
        if dropped[0]:
            warnings.warn(f"{dropped[0]:,} rows did not reach a logger; metrics.csv has all of them", Note, stacklevel=2)

    return Logger(log, close)


def _describe(error: BaseException) -> str:
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class Rows:
    """The rows for loggers after each chunk: one for each run, and one for each setting of which all seeds are known.

    Args:
      config: the runs.
      out: the run folder; what it holds already is known.
    """

    def __init__(self, config: Config, out: Path):
        self._config = config
        self._names = [_name(identifier) for identifier in config.identifiers()]
        self._settings = [" ".join(["IQM", _name(combination)]).strip() for combination in config.combinations]
        self._latest = np.full(config.num_runs, np.nan)
        self._diverged = np.zeros(config.num_runs, bool)
        self._known: dict[tuple[str, int, int], dict[int, float]] = {}  # by metric, setting and steps: the value of each seed
        self._read(out)

    def __call__(self, total: int, seconds: float, chunk: Chunk, means: np.ndarray | None) -> list[Row]:
        runs, steps = range(chunk.runs.start, chunk.runs.stop), chunk.env_steps
        rows = []
        for i, run in enumerate(runs):
            values = {name: float(column[i]) for name, column in chunk.metrics.items()}
            if means is not None:
                values["greedy_return"] = float(means[i])
            rows.append(Row(self._names[run], steps, total, seconds, {k: v for k, v in values.items() if not np.isnan(v)}))
        joined = self._join_metrics(np.array(runs), steps, chunk.metrics)
        if means is not None:
            joined += self._join("greedy_return", runs, steps, means)
        by_setting: dict[int, dict[str, float]] = {}
        for setting, values in joined:
            by_setting.setdefault(setting, {}).update(values)
        return rows + [Row(self._settings[setting], steps, total, seconds, values) for setting, values in by_setting.items()]

    def _join_metrics(self, runs: np.ndarray, steps: int, metrics: Any) -> list[tuple[int, dict[str, float]]]:
        self._diverged[runs] |= not_finite(metrics)
        returns = metrics["episode_return"]
        self._latest[runs] = np.where(np.isnan(returns), self._latest[runs], returns)
        return self._join("episode_return", runs, steps, np.where(self._diverged[runs], np.nan, self._latest[runs]))

    def _join(self, metric: str, runs: Any, steps: int, values: Any) -> list[tuple[int, dict[str, float]]]:
        """Add values of runs, and return the IQMs of the settings that are complete with them."""
        found = []
        for run, value in zip(runs, values, strict=True):
            setting, seed = divmod(int(run), self._config.seeds)
            if setting >= _MOST_SETTINGS:
                continue
            known = self._known.setdefault((metric, setting, steps), {})
            known[seed] = float(np.float32(value))  # what metrics.csv gives back
            if len(known) == self._config.seeds:
                seeds = np.array(list(self._known.pop((metric, setting, steps)).values()))
                found.append((setting, self._estimate(metric, seeds[~np.isnan(seeds)])))
        return [(setting, values) for setting, values in found if values]

    def _estimate(self, metric: str, seeds: np.ndarray) -> dict[str, float]:
        if not len(seeds):
            return {}
        if len(seeds) == 1:
            return {metric: float(seeds[0])}
        drawn = len(seeds) * min(len(self._settings), _MOST_SETTINGS)
        low, high = iqm_interval(seeds, resamples=int(np.clip(_RESAMPLED / drawn, 100, 2000)))
        return {metric: float(iqm(seeds)), f"{metric}_low": float(low), f"{metric}_high": float(high)}

    def _read(self, out: Path) -> None:
        """What an interrupted process has written, up to where this one continues."""
        names = ("seed", *self._config.swept)
        for file, metric in ((folder.METRICS, "episode_return"), (EVALUATION, "greedy_return")):
            if not (out / file).is_file() or not (out / file).stat().st_size:
                continue
            columns = folder.read_table(out / file)
            of_run = run_numbers(self._config, [columns[name] for name in names])
            for steps in np.unique(columns["env_steps"]):
                at = columns["env_steps"] == steps
                runs = of_run[at]
                if metric == "episode_return":
                    metrics = metrics_of(self._config, columns)
                    self._join_metrics(runs, int(steps), {name: values[at] for name, values in metrics.items()})
                else:
                    means = mean_by_group(runs, columns["return"][at], self._config.num_runs)
                    self._join(metric, np.unique(runs), int(steps), means[np.unique(runs)])


def _name(identifier: dict[str, Any]) -> str:
    return " ".join(f"{name} {shown(value)}" for name, value in identifier.items())
