"""Learning curves and curves of evaluations: the IQM over seeds with its 95 % bootstrap interval."""

import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl._src.numbers import shown
from jaxrl.algorithms import algorithm
from jaxrl.experiment import folder
from jaxrl.experiment.config import Config, load_config
from jaxrl.experiment.divergence import metrics_of, not_finite
from jaxrl.experiment.evaluations import EVALUATION, Evaluations, has_evaluations, read_evaluations
from jaxrl.experiment.folder import CURVE, EVALUATION_CURVE, METRICS, read_metrics
from jaxrl.experiment.pictures import new_figure, save
from jaxrl.experiment.statistics import iqm, iqm_interval

_MAX_CURVES = 10  # with a colour of their own
_MAX_INSIDE = 60  # characters of a label in a legend inside the axes; longer ones would cover the curves
_MAX_BELOW = 75  # characters of a line in a legend below them


class Curve(NamedTuple):
    label: str
    env_steps: np.ndarray  # [T]
    returns: np.ndarray  # [T, S]; NaN where no episode has finished
    diverged: np.ndarray  # [S], bool: whether metrics of a seed became NaN or infinite
    behind: int = 0  # seeds that are not among the S, since they were not trained as long as the others


def read_curves(run: Path) -> list[Curve]:
    """One curve for each combination of the swept values in a run folder."""
    columns = read_metrics(run)
    config = load_config(run)
    for name in ("seed", "env_steps", "episode_return", *config.swept):
        if name not in columns:
            raise ValueError(f"{run / METRICS} has no column {name!r}")
    bad = not_finite(metrics_of(config, columns))
    curves = []
    for combination in config.combinations:
        selected = np.ones(len(columns["seed"]), bool)
        for name, value in combination.items():
            selected &= columns[name] == value
        steps, step_index = np.unique(columns["env_steps"][selected], return_inverse=True)
        seeds, seed_index = np.unique(columns["seed"][selected], return_inverse=True)
        returns, there = np.full((len(steps), len(seeds)), np.nan), np.zeros((len(steps), len(seeds)), bool)
        returns[step_index, seed_index] = columns["episode_return"][selected]
        there[step_index, seed_index] = True
        diverged = np.zeros(len(seeds), bool)
        np.logical_or.at(diverged, seed_index, bad[selected])
        curves.append(_curve(config, combination, steps, returns, there, diverged))
    return curves


def _curve(
    config: Config, combination: dict[str, float], steps: np.ndarray, returns: np.ndarray, there: np.ndarray, diverged: np.ndarray
) -> Curve:
    """The curve of the seeds that have come as far as any, from returns that are known where `there` is true, `[T, S]`.

    The runs of an interrupted experiment may have been trained in batches: the others would end before the curve does.
    """
    reached = there.any(axis=1)
    kept = there[reached][-1] if reached.any() else np.zeros(there.shape[1], bool)
    behind = config.seeds - int(kept.sum())
    return Curve(_label(config, combination), steps[reached], returns[reached][:, kept], diverged[kept], behind)


def read_evaluation_curves(run: Path) -> list[Curve]:
    """One curve of greedy returns for each combination of the swept values in a run folder.

    Raises:
      ValueError: if it is no run folder, or was not evaluated during training.
    """
    config = load_config(run)
    if not has_evaluations(run):
        raise ValueError(f"{run} has no evaluations: there is no {EVALUATION}, or it is empty")
    found = read_evaluations(run)
    if len(found.env_steps) < 2:
        raise ValueError(f"{run} has no evaluations during training: {EVALUATION} has only those after it")
    return curves_of_evaluations(config, found)


def curves_of_evaluations(config: Config, found: Evaluations) -> list[Curve]:
    """One curve of greedy returns for each combination of the swept values."""
    by_combination = lambda x: x.reshape(len(found.env_steps), -1, config.seeds).swapaxes(0, 1)
    none = np.zeros(config.seeds, bool)
    of_each = zip(config.combinations, by_combination(found.returns), by_combination(found.evaluated), strict=True)
    return [_curve(config, combination, found.env_steps, returns, there, none) for combination, returns, there in of_each]


def _label(config: Config, combination: dict[str, float]) -> str:
    title = f"{algorithm(config.settings.algorithm).title} on {config.env_title}"
    return ", ".join([title, *(f"{name}={shown(value)}" for name, value in combination.items())])


def read_all(runs: Sequence[Path], read: Callable[[Path], list[Curve]] = read_curves) -> list[Curve]:
    """The curves of run folders. A label names the folder too if a curve of another folder has the same label.

    Args:
      runs: run folders.
      read: `read_curves` or `read_evaluation_curves`.
    """
    curves = [(curve, title) for run, title in zip(runs, folder.titles(runs), strict=True) for curve in read(run)]
    times = Counter(curve.label for curve, _ in curves)
    named = lambda curve, title: curve._replace(label=f"{curve.label}, in {_drawn(title)}")
    return [named(curve, title) if times[curve.label] > 1 else curve for curve, title in curves]


def _drawn(name: str) -> str:
    """A name as matplotlib draws it: without formulas, and without the bytes of a path that are not UTF-8."""
    return name.encode("utf-8", "replace").decode().replace("$", r"\$")


def fill_forward(returns: np.ndarray) -> np.ndarray:
    """Replace each NaN of `[T, S]` (a logging interval in which no episode finished) by the seed's last known return."""
    known = np.where(np.isnan(returns), 0, np.arange(len(returns))[:, None])
    return np.take_along_axis(returns, np.maximum.accumulate(known, axis=0), axis=0)


def known_part(env_steps: np.ndarray, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of a curve from which on the returns of all seeds are known, without gaps. Seeds without any are left out.

    Args:
      env_steps: `[T]`.
      returns: `[T, S]`, NaN in intervals in which no episode of a seed finished.

    Returns:
      Environment steps `[T']` and returns `[T', S']`.
    """
    returns = fill_forward(returns)
    returns = returns[:, ~np.isnan(returns).all(axis=0)]
    known = ~np.isnan(returns).any(axis=1) & (returns.shape[1] > 0)
    return np.asarray(env_steps)[known], returns[known]


def _known(curve: Curve) -> Curve:
    """The known part of the curve, of the seeds that have not diverged."""
    steps, returns = known_part(curve.env_steps, curve.returns[:, ~curve.diverged])
    return curve._replace(env_steps=steps, returns=returns)


def draw(axes: Any, env_steps: np.ndarray, returns: np.ndarray, **style: Any) -> None:
    """Draw a learning curve on matplotlib's axes: the IQM over seeds, and with more than one seed its 95 % bootstrap interval.

    Args:
      axes: of a figure of your own.
      env_steps: `[T]`.
      returns: `[T, S]`, NaN in intervals in which no episode of a seed finished. The curve begins where each seed has a return;
        seeds without any are left out.
      style: of the line, for `axes.plot`, such as `label` and `color`.
    """
    steps, returns = known_part(env_steps, returns)
    (line,) = axes.plot(steps, _middle(returns), **_shape(steps) | {"linewidth": 2} | style)
    if returns.shape[1] > 1 and len(returns):
        axes.fill_between(steps, *iqm_interval(returns), color=line.get_color(), alpha=0.25, linewidth=0)
    axes.set_xlabel("environment steps")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1e6:g}M" if x >= 1e6 else f"{x / 1e3:g}k" if x >= 1 else f"{x:g}")
    axes.grid(alpha=0.3)


def _middle(returns: np.ndarray) -> np.ndarray:
    """The IQM `[T]` of returns `[T, S]`."""
    return iqm(returns) if returns.size else np.full(len(returns), np.nan)


def _shape(steps: np.ndarray) -> dict[str, Any]:
    """The style of a line, which would not be seen if it is a single point."""
    return {"marker": "o"} if len(steps) == 1 else {}


def draw_run(run: Path) -> None:
    """Draw the pictures of a run folder. The learning curve comes last and whole: a folder that has it is finished."""
    found = read_evaluations(run)
    if len(found.env_steps) > 1:  # there were evaluations during training
        plot(curves_of_evaluations(load_config(run), found), run / EVALUATION_CURVE, "greedy return")
    plot(read_curves(run), run / f"unfinished-{CURVE}").replace(run / CURVE)


def plot(curves: list[Curve], path: Path, what: str = "return of finished episodes") -> Path:
    """Write a plot of `what`, with a line and a band for each curve, and return its path. It is a PNG if `path` has no suffix.

    Of more than ten curves, the ten that end highest have colours and labels, and the others are thin and grey. Seeds that
    diverged, have no return at all, or were not trained as long as the others, are counted in the legend and left out of the
    line. Long labels are below the axes.

    Raises:
      ImportError: without matplotlib.
      ValueError: if the file cannot be written.
    """
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    known = [_known(curve) for curve in curves]
    middles = [_middle(curve.returns) for curve in known]
    last = [float(middle[-1]) if len(middle) and np.isfinite(middle[-1]) else -np.inf for middle in middles]
    best = set(np.argsort(last)[-_MAX_CURVES:].tolist())
    for i in sorted(best):
        draw(axes, known[i].env_steps, known[i].returns, label=f"{known[i].label} ({_seeds(known[i])})")
    others = [i for i in range(len(known)) if i not in best]
    for i in others:
        label = f"{len(others)} other{'s' * (len(others) > 1)}" if i == others[0] else None
        style = {"color": "0.75", "linewidth": 0.5, "zorder": 1} | _shape(known[i].env_steps)
        axes.plot(known[i].env_steps, middles[i], label=label, **style)
    axes.set_ylabel(f"{what} (IQM, 95 % interval)")
    axes.spines[["top", "right"]].set_visible(False)
    _add_legend(figure, axes)
    return save(figure, path)


def _add_legend(figure: Any, axes: Any) -> None:
    """Add a legend inside the axes, or if a label is long, below them in a figure that is higher by as much."""
    lines, labels = axes.get_legend_handles_labels()
    if max(map(len, labels), default=0) <= _MAX_INSIDE:
        axes.legend(frameon=False)
        return
    labels = [textwrap.fill(label, _MAX_BELOW, break_on_hyphens=False) for label in labels]
    figure.legend(lines, labels, loc="outside lower left", frameon=False)
    figure.set_figheight(figure.get_figheight() + 0.2 * len("\n".join(labels).splitlines()))  # inches


def _seeds(known: Curve) -> str:
    """How many seeds the line is of, and why it is not of the others."""
    num, diverged, behind = known.returns.shape[1], int(known.diverged.sum()), known.behind
    silent = len(known.diverged) - diverged - num
    counts = (diverged, "NaN"), (silent, "without a finished episode"), (behind, "not trained that far")
    missing = "".join(f", {count} {why}" for count, why in counts if count)
    of_all = f" of {len(known.diverged) + behind}" if missing else ""
    return f"{num} seed{'s' * (num != 1)}{of_all}{missing}"
