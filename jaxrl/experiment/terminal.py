"""What a run shows in the terminal: a bar while it goes on, tables when it is done."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from jaxrl.experiment import folder
from jaxrl.experiment.config import Config
from jaxrl.experiment.statistics import iqm, iqm_interval
from jaxrl.experiment.training import Progress, Result


@contextlib.contextmanager
def progress_bar(config: Config) -> Iterator[Callable[[Progress], None]]:
    """A bar with steps, steps/s, mean return and time left, moved by the reports that it yields a function for."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        TextColumn("{task.percentage:>3.0f}% {task.fields[speed]} return {task.fields[mean]} left"),
        TimeRemainingColumn(compact=True),
    )
    runs = f"{config.num_runs} runs"
    with contextlib.ExitStack() as stack:
        bar = Bar(*columns)
        task = bar.add_task(f"{config.settings.algorithm} on {config.env}, {runs}", total=None, speed="", mean="–")

        def report(progress: Progress) -> None:
            if not bar.live.is_started:  # with the first report: nothing can be wrong with the input any more
                stack.enter_context(bar)
            bar.update(
                task,
                completed=progress.env_steps,
                total=progress.total_env_steps,
                speed=f"{progress.env_steps / progress.seconds:,.0f} steps/s" if progress.env_steps else "compiling",
                mean="–" if progress.episode_return != progress.episode_return else f"{progress.episode_return:.1f}",
            )

        yield report


def summary(result: Result, out: Path) -> None:
    """Print the policies' returns, the speed, and what the run folder holds."""
    config = result.config
    table = returns_table(config, result.evaluation_returns, "greedy return")
    console = Console()
    console.print(table)
    total = result.env_steps * config.num_runs
    console.print(
        f"{config.num_runs} runs of {result.env_steps:,} environment steps in {result.seconds:.1f} s "
        f"({total / result.seconds:,.0f} steps/s, compilation included)\n"
        f"{out}: {folder.CONFIG}, {folder.METRICS}, {folder.CURVE}, {folder.POLICIES}/",
        highlight=False,
        soft_wrap=True,
    )


def returns_table(config: Config, returns: np.ndarray, title: str) -> Table:
    """One row for each setting, from returns `[num_runs, episodes]`: IQM over seeds with its interval, median, worst seed."""
    table = Table(title=f"{config.settings.algorithm} on {config.env}: {title}")
    for column in (*config.sweep, "seeds", "IQM", "95 % interval", "median", "worst seed"):
        table.add_column(column, justify="right")
    by_setting = np.mean(returns, axis=1).reshape(-1, config.seeds)
    for combination, seeds in zip(config.combinations, by_setting, strict=True):
        low, high = iqm_interval(seeds)
        numbers = (f"{iqm(seeds):.2f}", f"{low:.2f} … {high:.2f}", f"{np.median(seeds):.2f}", f"{seeds.min():.2f}")
        table.add_row(*(f"{v:g}" for v in combination.values()), str(config.seeds), *numbers)
    return table
