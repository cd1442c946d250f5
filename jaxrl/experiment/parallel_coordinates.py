"""Parallel coordinates: every setting of a search is a line through one axis for each hyperparameter, ending at its score."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxrl.experiment.pictures import new_figure, save

_MANY = 20  # a ratio from which values without a declared range are drawn on a logarithmic axis


_BOX = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.7}


class Trial(NamedTuple):
    """A setting that was tried, and how it did."""

    hparams: dict[str, float]
    env_steps: int  # of each run
    scores: np.ndarray  # [S], one for each seed

    @property
    def score(self) -> float:
        return float(np.mean(self.scores))


def plot(trials: Sequence[Trial], path: Path, *, log_axes: Mapping[str, bool] | None = None) -> Path:
    """Write the picture, and return its path. The colour of a line is its score, and the best line is thick.

    Settings that were trained for different lengths have an axis for it, and the best is among those trained longest. A setting
    without a finite score is grey.

    Args:
      trials: at least one, all with the same hyperparameters.
      path: a .png, or any other format of matplotlib.
      log_axes: whether the axis of a hyperparameter is logarithmic; by default if its values differ by a factor of 20.

    Raises:
      ImportError: without matplotlib.
      ValueError: if the file cannot be written.
    """
    columns, logs = _columns(trials), {**(log_axes or {}), "score": False}
    figure = new_figure(max(6.0, 2.2 * len(columns)), 5)
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    heights, ticks = zip(*(_axis(values, logs.get(name)) for name, values in columns.items()), strict=True)
    score = columns["score"]
    finite = np.isfinite(score)
    steps = np.array([trial.env_steps for trial in trials])
    order = np.lexsort((np.where(finite, score, -np.inf), steps))  # the best is drawn last
    norm = Normalize(*((score[finite].min(), score[finite].max()) if finite.any() else (0, 1)))
    colours = ScalarMappable(norm, "viridis")

    axes = figure.add_subplot()
    lines = np.stack([np.stack([np.arange(len(columns)), row], axis=1) for row in np.stack(heights, axis=1)])[order]
    paint = [colours.to_rgba(score[i], alpha=0.75) if finite[i] else (0.7, 0.7, 0.7, 0.6) for i in order]
    axes.add_collection(LineCollection(list(lines), colors=paint, linewidths=[*[1.0] * (len(order) - 1), 3.5]))
    for x, marks in enumerate(ticks):
        axes.axvline(x, color="0.3", linewidth=1, zorder=3)
        for height, text in marks:
            axes.annotate(text, (x, height), (4, 0), textcoords="offset points", va="center", fontsize=8, zorder=4, bbox=_BOX)
    axes.set_xlim(-0.05, len(columns) - 0.7)
    axes.set_ylim(-0.04, 1.04)
    axes.set_xticks(range(len(columns)), [name.replace("_", " ") for name in columns])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    figure.colorbar(colours, ax=axes, label="score: mean greedy return", pad=0.01)
    return save(figure, path)


def _columns(trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """The values of each axis, `[N]`."""
    columns = {name: np.array([trial.hparams[name] for trial in trials]) for name in trials[0].hparams}
    steps = np.array([float(trial.env_steps) for trial in trials])
    if len(set(steps)) > 1:
        columns["environment_steps"] = steps
    return columns | {"score": np.array([trial.score for trial in trials])}


def _axis(values: np.ndarray, log: bool | None) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """The heights of values on an axis from 0 to 1, and its ticks: heights and texts. Infinity is on top, NaN at the bottom."""
    infinite = values == np.inf
    heights, ticks = _finite_axis(values, log)
    if not infinite.any():
        return heights, ticks
    return np.where(infinite, 1.0, 0.85 * heights), [*((0.85 * height, text) for height, text in ticks), (1.0, "inf")]


def _finite_axis(values: np.ndarray, log: bool | None) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """The heights of finite values, 0 for others, and the ticks; logarithmic if `log`, or if that is None and the values fit."""
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(len(values)), []
    low, high = values[finite].min(), values[finite].max()
    if log is None:
        log = low > 0 and high / low >= _MANY
    if low == high:
        return np.where(finite, 0.5, 0.0), [(0.5, _short(low))]
    scale, inverse = (np.log, np.exp) if log else (lambda x: x, lambda x: x)
    bottom, top = scale(low), scale(high)
    heights = np.where(finite, (scale(np.where(finite, values, low)) - bottom) / (top - bottom), 0.0)
    return heights, [(float(h), _short(inverse(bottom + h * (top - bottom)))) for h in np.linspace(0, 1, 5)]


def _short(value: float) -> str:
    """Three digits, or all of them before the decimal point; exp(log(1000)) is a little less than 1,000."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
