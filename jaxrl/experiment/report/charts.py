"""The charts of a report: their data for the script of the page, and pictures of the distribution over seeds."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl.experiment import folder, statistics
from jaxrl.experiment.comparison import MISSING, Entry
from jaxrl.experiment.config import Config
from jaxrl.experiment.curves import Curve, curves_of_evaluations, known_part, read_curves
from jaxrl.experiment.evaluations import EVALUATION, has_evaluations, read_evaluations
from jaxrl.experiment.report.elements import Element, element, table

NUM_COLORS = 8  # of report.css
# Lengths of dashes and of gaps, in pixels; every eight settings have others.
_DASHES: tuple[list[int], ...] = ([], [8, 4], [2, 3], [12, 3, 2, 3], [4, 8])
_MAX_DOTS = 200  # of a setting in the picture of the distribution
_MAX_ROWS = 12  # of a chart's table
_RESAMPLED = 1_000_000  # seeds in all resamples of a curve, at each time


class Line(NamedTuple):
    """A line with its band."""

    entry: int  # its number among all entries
    x: np.ndarray  # [T]
    estimates: statistics.Estimates  # [T]
    seeds: int  # of one there is no interval: the bounds are the value


class Chart(NamedTuple):
    name: str  # what the page calls it
    title: str
    x_label: str
    y_label: str
    lines: list[Line]


def learning_curves(entries: Sequence[Entry], env: str) -> Chart:
    """The IQM over seeds of the returns during training."""
    lines = _lines(entries, env, folder.METRICS, lambda config, run: read_curves(run))
    return Chart("curve", f"Learning curves on {env}", "environment steps", "return of finished episodes", lines)


def evaluation_curves(entries: Sequence[Entry], env: str) -> Chart:
    """The IQM over seeds of greedy returns, for runs that were evaluated more than once."""

    def read(config, run):
        found = read_evaluations(run) if has_evaluations(run) else None
        return curves_of_evaluations(config, found) if found is not None and len(found.env_steps) > 1 else None

    lines = _lines(entries, env, EVALUATION, read)
    return Chart("evaluation", f"Evaluations during training on {env}", "environment steps", "greedy return", lines)


def _lines(entries: Sequence[Entry], env: str, file: str, read: Callable[[Config, Path], list[Curve] | None]) -> list[Line]:
    """A line for each entry whose run has the file; `read` gives the curves of all combinations of a run, or None."""
    lines, curves = [], {}
    for i, entry in enumerate(entries):
        if entry.config.env_title != env or not (entry.run / file).is_file():  # a search keeps no metrics
            continue
        if entry.run not in curves:
            curves[entry.run] = read(entry.config, entry.run)
        of_run = curves[entry.run]
        if of_run is not None:
            lines.append(_line(i, of_run[entry.config.combinations.index(entry.combination)]))
    return [line for line in lines if len(line.x)]


def _line(entry: int, curve: Curve) -> Line:
    steps, returns = known_part(curve.env_steps, curve.returns[:, ~curve.diverged])
    if not len(steps):
        return Line(entry, steps, statistics.Estimates(*np.empty((3, 0))), 0)
    num = returns.shape[1]
    resamples = int(np.clip(_RESAMPLED / num, 100, 2000))
    return Line(entry, steps, statistics.sample_efficiency(returns[..., None], resamples=resamples), num)


def profiles(entries: Sequence[Entry], env: str) -> Chart:
    """Performance profiles: the fraction of seeds above each return."""
    chosen = [(i, entry) for i, entry in enumerate(entries) if entry.config.env_title == env and len(entry.returns)]
    lines = []
    if chosen:
        pooled = np.concatenate([entry.returns for _, entry in chosen])
        margin = 0.02 * (np.ptp(pooled) or 1.0)
        thresholds = np.linspace(pooled.min() - margin, pooled.max() + margin, 101)
        profile = lambda scores: statistics.performance_profile(scores, thresholds)
        for i, entry in chosen:
            resamples = int(np.clip(_RESAMPLED / len(entry.returns), 100, 2000))
            interval = statistics.stratified_interval(profile, entry.scores, resamples=resamples)
            lines.append(Line(i, thresholds, statistics.Estimates(profile(entry.scores), *interval), len(entry.scores)))
    return Chart("profile", f"Fraction of seeds above a return on {env}", "return", "fraction of seeds", lines)


def data(charts: Sequence[Chart], entries: Sequence[Entry]) -> dict[str, Any]:
    """What the script of the page draws, as JSON values."""
    return {
        "entries": [entry.label for entry in entries],
        "colors": NUM_COLORS,
        "dashes": [dash(i) for i in range(len(entries))],
        "charts": [
            {
                "id": _id(number),
                "x": chart.x_label,
                "y": chart.y_label,
                "lines": [
                    {"entry": line.entry, "seeds": line.seeds, "x": _numbers(line.x)}
                    | {name: _numbers(values) for name, values in line.estimates._asdict().items()}
                    for line in chart.lines
                ],
            }
            for number, chart in enumerate(charts)
        ],
    }


def dash(entry: int) -> list[int]:
    """How the line of a setting is dashed: lengths of dashes and gaps, none for a solid line."""
    return _DASHES[entry // NUM_COLORS % len(_DASHES)]


def _id(number: int) -> str:
    return f"chart-{number}"


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]


def figure(number: int, chart: Chart, entries: Sequence[Entry]) -> Element:
    """The place of a chart, which the script fills, with its title, its buttons and its data as a table."""
    name = _id(number)
    buttons = (("in", "+", "Zoom in"), ("out", "−", "Zoom out"), ("left", "‹", "Move left"), ("right", "›", "Move right"))
    bar = element(
        "div",
        (element("button", sign, type="button", data_do=do, aria_label=text, title=text) for do, sign, text in buttons),
        element("button", "All", type="button", data_do="all", aria_label="All: show everything", title="Show everything"),
        class_="buttons", role="group", aria_label=f"Zoom: {chart.title}",
    )  # fmt: skip
    plot = element(
        "div", class_="plot", id=name, tabindex=0, role="group",
        aria_label=f"{chart.title}. Left and right move along the lines, plus and minus zoom, 0 shows everything.",
    )  # fmt: skip
    status = element("p", class_="visually-hidden", role="status", id=f"{name}-status")
    caption = element("figcaption", element("h3", chart.title), bar)
    return element("figure", caption, plot, status, _data_table(chart, entries))


def _data_table(chart: Chart, entries: Sequence[Entry]) -> Element:
    """Some points of each line, so that a chart can be read without seeing it."""
    rows = []
    for line in chart.lines:
        for t in np.unique(np.linspace(0, len(line.x) - 1, min(_MAX_ROWS, len(line.x))).round().astype(int)):
            value, low, high = (f"{column[t]:,.4g}" for column in line.estimates)
            interval = f"{low} … {high}" if line.seeds > 1 else MISSING
            rows.append([entries[line.entry].label, f"{line.x[t]:,.6g}", value, interval])
    header = ["run", chart.x_label, chart.y_label, "95 % interval"]
    return element("details", element("summary", "Data as a table"), table(chart.title, header, rows))


# --- the distribution over seeds -----------------------------------------------------------------


def strips(entries: Sequence[Entry], env: str) -> Element:
    """For each setting a dot for every seed, and the IQM with its interval, on a common axis."""
    chosen = [(i, entry) for i, entry in enumerate(entries) if entry.config.env_title == env and len(entry.returns)]
    if not chosen:
        return element("p", f"There are no returns on {env}.")
    pooled = np.concatenate([entry.returns for _, entry in chosen])
    low, high = float(pooled.min()), float(pooled.max())
    margin = 0.03 * (high - low) or 0.5
    low, high = low - margin, high + margin
    place = lambda value: f"{100 * (value - low) / (high - low):.2f}%"
    rows = [_strip(i, entry, place) for i, entry in chosen]
    ticks = _ticks(low, high)
    axis = element(
        "svg",
        (
            (
                element("line", x1=place(t), x2=place(t), y1=0, y2=5),
                element("text", f"{t:g}", x=place(t), y=20, class_=_anchor((t - low) / (high - low))),
            )
            for t in ticks
        ),
        class_="axis", width="100%", height=26, aria_hidden="true",
    )  # fmt: skip
    caption = element("figcaption", element("h3", f"Final return of each seed on {env}"))
    note = element("p", "A dot is a seed. The bar is the IQM over the seeds with its 95 % interval.", class_="note")
    return element("figure", caption, element("ul", rows, class_="strips"), axis, note)


def _strip(i: int, entry: Entry, place: Any) -> Element:
    found = entry.summary
    order = np.argsort(entry.returns)
    if len(order) > _MAX_DOTS:
        order = order[np.linspace(0, len(order) - 1, _MAX_DOTS).round().astype(int)]
    dots = (
        element(
            "circle", element("title", f"seed {entry.seeds[k]}: {entry.returns[k]:z.2f}"),
            cx=place(entry.returns[k]), cy=14 + 5 * (n % 3 - 1), r=4,
        )
        for n, k in enumerate(order)
    )  # fmt: skip
    bar = () if math.isnan(found.low) else element("line", x1=place(found.low), x2=place(found.high), y1=14, y2=14, class_="bar")
    mark = element("line", x1=place(found.iqm), x2=place(found.iqm), y1=4, y2=24, class_="mark")
    text = f"{entry.label}: IQM {found.iqm:z.2f}, worst {found.worst:z.2f}, best {entry.returns.max():z.2f}, {len(order)} seeds"
    if len(entry.seeds) > _MAX_DOTS:
        text += f" of {len(entry.seeds)}, evenly spaced by rank"
    svg = element("svg", dots, bar, mark, role="img", aria_label=text, width="100%", height=28)
    return element("li", element("span", entry.label), svg, class_=f"c{i % NUM_COLORS}", data_entry=i)


def _anchor(share: float) -> str | None:
    """Which end of a number is at its tick: near the ends of the axis, it may not leave the picture."""
    return "start" if share < 0.08 else "end" if share > 0.92 else None


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between `low` and `high`."""
    step = 10 ** math.floor(math.log10(high - low))
    step = next(step * factor for factor in (0.2, 0.5, 1, 2) if (high - low) / (step * factor) <= 6)
    first = math.ceil(low / step)
    return [round(k * step, 12) for k in range(first, math.floor(high / step) + 1)]
