"""Terminal output of a run: progress during training, and tables at the end."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from jaxrl._src.tables import print_table
from jaxrl.experiment.config import Config
from jaxrl.experiment.divergence import describe
from jaxrl.experiment.evaluations import mean_of_ended
from jaxrl.experiment.statistics import iqm, iqm_interval
from jaxrl.experiment.training import Progress, Result
from jaxrl.experiment.tuning import Found

_SECONDS_BETWEEN_LINES = 10.0
Report = Callable[[Progress], None]


@contextlib.contextmanager
def progress(config: Config) -> Iterator[Report]:
    """Yield a function that reports progress: a bar in a terminal, and lines elsewhere, such as in a file."""
    name = f"{config.settings.algorithm} on {config.env_title}, {_num_runs(config)}"
    if Console().is_terminal:
        with _bar(name) as report:
            yield report
    else:
        yield _lines(name)


def _lines(name: str) -> Report:
    """Print a line when compilation begins, after the first chunk, at most every ten seconds after that, and at the end."""
    printed_at = -_SECONDS_BETWEEN_LINES

    def report(progress: Progress) -> None:
        nonlocal printed_at
        finished = progress.env_steps == progress.total_env_steps
        if finished or progress.seconds - printed_at >= _SECONDS_BETWEEN_LINES or printed_at == 0.0:
            printed_at = progress.seconds
            share = progress.env_steps / progress.total_env_steps
            print(f"{name}: {share:.0%} {_speed(progress)}, return {_mean_return(progress)}", flush=True)

    return report


class _Name(ProgressColumn):
    """The name of the runs, which is shortened where the terminal is narrow; the numbers are not."""

    def render(self, task: Task) -> Text:
        return Text(task.description, no_wrap=True, overflow="ellipsis")


def _columns() -> Sequence[ProgressColumn]:
    numbers = "{task.percentage:>3.0f}% {task.fields[speed]} return {task.fields[mean]} left"
    return _Name(), BarColumn(bar_width=12), TextColumn(numbers), TimeRemainingColumn(compact=True)


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Report]:
    """A bar with steps per second, mean return and time left."""
    with contextlib.ExitStack() as stack:
        bar = Bar(*_columns())
        task = bar.add_task(name, total=None, speed="", mean="–")

        def report(progress: Progress) -> None:
            if not bar.live.is_started:  # the first report comes after the input is checked, so no error follows the bar
                stack.enter_context(bar)
            bar.update(
                task,
                completed=progress.env_steps,
                total=progress.total_env_steps,
                speed=_speed(progress),
                mean=_mean_return(progress),
            )

        yield report


def _num_runs(config: Config) -> str:
    return "1 run" if config.num_runs == 1 else f"{config.num_runs} runs"


def _speed(progress: Progress) -> str:
    return f"{progress.env_steps / progress.seconds:,.0f} steps/s" if progress.env_steps else "compiling"


def _mean_return(progress: Progress) -> str:
    mean = "–" if np.isnan(progress.episode_return) else f"{progress.episode_return:z.1f}"
    return mean + (f" ({progress.num_diverged} NaN)" if progress.num_diverged else "")


def summary(result: Result, out: Path) -> None:
    """Print the returns of the policies, the speed, and the contents of the run folder."""
    config = result.config
    table = returns_table(config, result.evaluation_returns, "greedy return")
    console = Console()
    print_table(table, console)
    if result.diverged:
        console.print(describe(result.diverged), highlight=False, soft_wrap=True)
    total = result.env_steps * config.num_runs
    share = result.evaluation_seconds / result.seconds
    evaluations = f"; evaluations took {share:.1%}" if result.evaluation_seconds else ""
    console.print(
        f"{_num_runs(config)} of {result.env_steps:,} environment steps in {result.seconds:.1f} s "
        f"({total / result.seconds:,.0f} steps/s, compilation included{evaluations})\n"
        f"{out}: {', '.join(sorted(path.name + '/' * path.is_dir() for path in out.iterdir()))}",
        highlight=False,
        soft_wrap=True,
    )


def returns_table(config: Config, returns: np.ndarray, title: str) -> Table:
    """A table of returns `[num_runs, episodes]`, with a row for each combination of the swept values.

    It shows the IQM, with two seeds or more its confidence interval, the median and the worst of the seeds' mean returns. Seeds
    whose return is NaN are counted, and left out of all but the last.
    """
    table = Table(title=f"{config.settings.algorithm} on {config.env_title}: {title}")
    by_combination = mean_of_ended(returns).reshape(-1, config.seeds)
    nan = ["NaN seeds"] if np.isnan(by_combination).any() else []
    for column in (*config.swept, "seeds", *nan, "IQM", "95 % interval", "median", "worst seed"):
        table.add_column(column, justify="right", no_wrap=column not in config.swept)
    for combination, seeds in zip(config.combinations, by_combination, strict=True):
        finite = seeds[~np.isnan(seeds)]
        # One seed says nothing about noise.
        interval = "{:z.2f} … {:z.2f}".format(*iqm_interval(finite)) if len(finite) > 1 else "–"
        middle = (iqm(finite), np.median(finite)) if len(finite) else (np.nan, np.nan)
        worst = "NaN" if len(finite) < len(seeds) else f"{seeds.min():z.2f}"
        counts = (str(len(seeds)), *([str(len(seeds) - len(finite))] if nan else []))
        numbers = (f"{middle[0]:z.2f}", interval, f"{middle[1]:z.2f}", worst)
        table.add_row(*(f"{v:g}" for v in combination.values()), *counts, *numbers)
    return table


def search_table(found: Found, rows: int = 10) -> Table:
    """A table of the best settings of a search: those that were trained longest first, then by their mean score."""
    config, trials = found.config, found.trials
    ranked = sorted(trials, key=lambda trial: (trial.env_steps, np.nan_to_num(trial.score, nan=-np.inf)), reverse=True)
    shown = f", the best {rows} of {len(trials)} settings" if len(trials) > rows else ""
    table = Table(title=f"{config.settings.algorithm} on {config.env_title}: greedy return{shown}")
    for column in (*trials[0].hparams, "env steps", "seeds", "mean", "worst seed"):
        table.add_column(column, justify="right", no_wrap=column not in trials[0].hparams)
    for trial in ranked[:rows]:
        numbers = (f"{trial.env_steps:,}", str(len(trial.scores)), f"{trial.score:z.2f}", f"{trial.scores.min():z.2f}")
        table.add_row(*(f"{value:g}" for value in trial.hparams.values()), *numbers)
    return table
