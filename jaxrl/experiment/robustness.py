"""Plots of robustness: returns as a function of a parameter of the environment."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxrl.experiment.pictures import new_figure, save
from jaxrl.experiment.statistics import robustness_curve


def plot_robustness(
    path: Path | str,
    parameter: str,
    values: Sequence[float],
    returns: Mapping[str, np.ndarray],
    *,
    trained_on: Mapping[str, Sequence[float]] | None = None,
) -> Path:
    """Write a plot with a robustness curve for each set of runs: the IQM over the seeds with its 95 % bootstrap interval.

    Args:
      path: of the picture; the format is PNG if it has no suffix.
      parameter: name of the parameter.
      values: those with which the runs were evaluated, `[N]`, positive for a logarithmic axis.
      returns: for each label the returns `[S, N]`, one for each seed and value, such as the means over episodes of
        `jaxrl.evaluate_over_params`.
      trained_on: for a label the value on which its runs were trained, `[x]`, or the ends of their range, `[low, high]`.

    Raises:
      ImportError: without matplotlib.
      ValueError: if the shapes do not fit, or the file cannot be written.
    """
    order = np.argsort(values)  # a line goes from left to right
    x = np.asarray(values, float)[order]
    for label, runs in returns.items():
        if np.ndim(runs) != 2 or np.shape(runs)[1] != len(x):
            raise ValueError(f"the returns of {label!r} must be [seeds, {len(x)}], got {list(np.shape(runs))}")
    figure = new_figure(8, 4.5)
    axes = figure.add_subplot()
    known = np.concatenate([np.ravel(runs) for runs in returns.values()])
    known = known[np.isfinite(known)]
    lowest, highest = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    for i, (label, runs) in enumerate(returns.items()):
        curve = robustness_curve(np.asarray(runs)[:, order])
        (line,) = axes.plot(x, curve.value, "o-", markersize=4, linewidth=2, label=f"{label} ({len(runs)} seeds)")
        axes.fill_between(x, curve.low, curve.high, color=line.get_color(), alpha=0.25, linewidth=0)
        if trained := list((trained_on or {}).get(label, ())):
            height = np.full(len(trained), lowest - 0.04 * (i + 1) * (highest - lowest))
            axes.plot(trained, height, "|-", color=line.get_color(), linewidth=3, markersize=10)
    if x[0] > 0 and x[-1] > 10 * x[0]:
        axes.set_xscale("log")
    axes.set_xlabel(f"{parameter}" + (" (bars: trained on)" if trained_on else ""))
    axes.set_ylabel("greedy return (IQM, 95 % interval)")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return save(figure, Path(path))
