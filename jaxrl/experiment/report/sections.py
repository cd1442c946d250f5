"""The sections of a report."""

import math
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrl.algorithms import algorithm
from jaxrl.experiment import folder
from jaxrl.experiment.command import train_command
from jaxrl.experiment.comparison import ADJUSTED, MISSING, Comparison, Entry, Pair, are_adjusted, describe, estimate, sentence
from jaxrl.experiment.config import Config
from jaxrl.experiment.report import charts
from jaxrl.experiment.report.charts import NUM_COLORS, Chart, dash
from jaxrl.experiment.report.elements import Child, Element, details, element, section, table
from jaxrl.experiment.report.films import MAX_STEPS, Films
from jaxrl.experiment.system import describe_system, read_system

_MAX_SENTENCES = 20


class Content(NamedTuple):
    title: str
    body: list[Element]
    charts: list[Chart]  # in the order of their numbers


def build(found: Comparison, filmed: Films) -> Content:
    """The title, the elements of the body, and the charts that the script of the page draws."""
    entries = found.entries
    envs = list(dict.fromkeys(entry.config.env_title for entry in entries))
    drawn: list[Chart] = []

    def figures(make: Any) -> list[Element]:
        made = [chart for env in envs if (chart := make(entries, env)).lines]
        drawn.extend(made)
        first = len(drawn) - len(made)
        return [charts.figure(first + i, chart, entries) for i, chart in enumerate(made)]

    learning, evaluated, profiled = map(figures, (charts.learning_curves, charts.evaluation_curves, charts.profiles))
    title = _title(entries, envs)
    parts = [
        section("summary", "Summary", _summary(found, envs)),
        section("curves", "Learning curves", _note("The line is the interquartile mean (IQM) over the seeds, the band its 95 % "
                "bootstrap interval. Seeds that became NaN, or were not trained as long as others, are left out. Drag over a "
                "part of a chart to see it larger; a double click shows everything again."),
                _grid(learning) or element("p", "There are no finished episodes yet.")),
        section("evaluation", "Evaluation", _evaluation(found, envs), _grid(evaluated)),
        section("seeds", "Distribution over seeds", _grid([*(charts.strips(entries, env) for env in envs), *profiled])),
        section("films", "Films", _films(filmed, entries)),
        section("options", "Hyperparameters", _options(found)),
        section("reproduce", "Reproduce", _reproduce(entries)),
    ]  # fmt: skip
    links = [(part.get("id"), part[0].text) for part in parts]
    navigation = element("ul", (element("li", element("a", text or "", href=f"#{name}")) for name, text in links))
    lead = element("p", _lead(entries), class_="lead")
    body = [
        element("a", "Skip to the summary", href="#summary", class_="skip"),
        element("header", element("h1", title), lead),
        element("nav", navigation, aria_label="Sections"),
        element("main", _noscript(), _switches(entries), parts),
        element("footer", _note(f"Written by jaxrl on {time.strftime('%Y-%m-%d')}. The page loads nothing from elsewhere.")),
    ]  # fmt: skip
    return Content(title, body, drawn)


def _title(entries: Sequence[Entry], envs: Sequence[str]) -> str:
    titles = list(dict.fromkeys(algorithm(entry.config.settings.algorithm).title for entry in entries))
    join = lambda names: ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{join(titles)} on {join(envs)}"


def _lead(entries: Sequence[Entry]) -> str:
    folders = len({entry.run for entry in entries})
    policies = sum(entry.config.seeds for entry in entries)
    steps = sum(entry.env_steps * entry.config.seeds for entry in entries)
    counts = _count(folders, "run folder"), _count(len(entries), "setting"), _count(policies, "policy", "policies")
    return f"{', '.join(counts)}, {steps:,} environment steps"


def _count(number: int, what: str, many: str = "") -> str:
    return f"{number:,} {what if number == 1 else many or what + 's'}"


def _note(text: str) -> Element:
    return element("p", text, class_="note")


def _grid(figures: Sequence[Element]) -> Element | None:
    return element("div", figures, class_="grid") if figures else None


def _noscript() -> Element:
    return element("noscript", element("p", "The charts need JavaScript; the tables show the same numbers without it."))


def _switches(entries: Sequence[Entry]) -> Element:
    """Check boxes that show and hide the settings in all charts."""

    def switch(i: int, entry: Entry) -> Element:
        box = element("input", type="checkbox", checked=True, data_toggle=i)
        line = element("line", x1=0, x2=24, y1=2, y2=2, stroke_dasharray=" ".join(map(str, dash(i))) or None)
        swatch = element("svg", line, class_="swatch", width=24, height=4, aria_hidden="true")
        return element("label", box, swatch, entry.label, class_=f"c{i % NUM_COLORS}")

    switches = (switch(i, entry) for i, entry in enumerate(entries))
    return element("fieldset", element("legend", "Show in the charts"), switches, class_="runs")


# --- summary and evaluation ----------------------------------------------------------------------


def _summary(found: Comparison, envs: Sequence[str]) -> Iterator[Child]:
    header = ["run", "algorithm", "seeds", "steps per seed", "minutes", "IQM of the return", "95 % interval", "worst seed"]
    minutes = {run: _minutes(run) for run in dict.fromkeys(entry.run for entry in found.entries)}
    for env in envs:
        rows = [_summary_row(entry, minutes[entry.run]) for entry in found.entries if entry.config.env_title == env]
        yield table(f"{env}: final policies", header, rows)
    yield _verdicts(found.pairs)
    yield element("ul", (element("li", note) for note in found.notes)) if found.notes else None


def _summary_row(entry: Entry, minutes: str) -> list[str]:
    summary = entry.summary
    title = algorithm(entry.config.settings.algorithm).title
    values = [_number(summary.iqm), _interval(summary.low, summary.high), _number(summary.worst)]
    return [entry.label, title, f"{len(entry.seeds):,}", f"{entry.env_steps:,}", minutes, *values]


def _minutes(run: Path) -> str:
    """How long the training took, of all settings of a run together."""
    try:
        return f"{folder.read_metrics(run)['wall_seconds'].max() / 60:.1f}"
    except (ValueError, KeyError):
        return MISSING


def _number(value: float) -> str:
    return MISSING if math.isnan(value) else f"{value:z,.2f}"


def _interval(low: float, high: float) -> str:
    return MISSING if math.isnan(low) else f"{_number(low)} … {_number(high)}"


def _verdicts(pairs: Sequence[Pair]) -> Element | None:
    if not pairs:
        return None
    unbroken = lambda text: text.replace(" %", "\u00a0%").replace("p = ", "p\u00a0=\u00a0")
    items = [element("li", unbroken(sentence(pair))) for pair in pairs]
    rest = details(f"{len(items) - _MAX_SENTENCES} more comparisons", element("ul", items[_MAX_SENTENCES:], class_="verdicts"))
    return element(
        "div",
        element("ul", items[:_MAX_SENTENCES], class_="verdicts"),
        rest if len(items) > _MAX_SENTENCES else None,
        _note(ADJUSTED) if are_adjusted(pairs) else None,
    )


def _evaluation(found: Comparison, envs: Sequence[str]) -> Iterator[Child]:
    header = ["run", "seeds", "IQM", "95 % interval", "median", "mean", "worst", "best", "optimality gap"]
    for env in envs:
        rows = []
        for entry in found.entries:
            if entry.config.env_title == env:
                s = entry.summary
                best = float(np.max(entry.returns, initial=-np.inf)) if len(entry.returns) else math.nan
                gap = MISSING if math.isnan(s.optimality_gap) else f"{s.optimality_gap:.3f}"
                numbers = [_number(s.iqm), _interval(s.low, s.high), *map(_number, (s.median, s.mean, s.worst, best)), gap]
                rows.append([entry.label, str(len(entry.seeds)), *numbers])
        yield table(f"{env}: returns of the final policies, over the seeds", header, rows)
    yield _note("The optimality gap is the mean shortfall of scores in which 0 is random actions and 1 the best known return.")
    if found.overall:
        rows = [[method.method, str(len(method.scores)), *(estimate(x, 3) for x in method[2:])] for method in found.overall]
        caption = f"Normalised scores over {', '.join(found.envs)}, with 95 % intervals"
        yield table(caption, ["algorithm", "seeds", "IQM", "median", "mean", "optimality gap"], rows)


# --- films, options, system ----------------------------------------------------------------------


def _films(filmed: Films, entries: Sequence[Entry]) -> Iterator[Child]:
    for number, entry in enumerate(entries):
        items = [
            element("li", element("picture",
                element("source", media="(prefers-reduced-motion: reduce)", srcset=film.still),
                element("img", src=film.gif, alt=f"Film of {entry.label} on {entry.config.env_title}, {film.text}")))
            for film in filmed.films if film.entry == number
        ]  # fmt: skip
        if items:
            yield details(f"{entry.label} on {entry.config.env_title}", element("ul", items, class_="films"), open=True)
    if filmed.films:
        yield _note(f"All policies play the same episode, of which the first {MAX_STEPS} steps are shown.")
    yield from (_note(note) for note in filmed.notes)
    if not filmed.films and not filmed.notes:
        yield _note("No films were asked for.")


def _options(found: Comparison) -> Iterator[Child]:
    header = ["option", *(entry.label for entry in found.entries)]

    def options(title: str, chosen: Mapping[str, Sequence[Any]]) -> Element:
        return table(title, header, [[name, *map(_shown, values)] for name, values in chosen.items()])

    shared = {name: values for name, values in found.differences.items() if MISSING not in values}
    others = {name: values for name, values in found.differences.items() if MISSING in values}
    if shared:
        yield options("What differs", shared)
    elif len(found.entries) > 1 and not others:
        yield element("p", "The configurations do not differ.")
    if others:
        yield details("Options of some of the algorithms", options("Options of some of the algorithms", others))
    described = [describe(entry.config, entry.combination) for entry in found.entries]
    names = dict.fromkeys(name for one in described for name in one)
    yield details("All options", options("All options", {name: [one.get(name, MISSING) for one in described] for name in names}))


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _command(run: Path, config: Config) -> str:
    if not config.samples:
        return train_command(config)
    load = f"Config.load(Path({str(run / folder.CONFIG)!r}))"
    code = f"from pathlib import Path; from jaxrl.experiment import Config, run; run({load}, Path('runs/again'))"
    return shlex.join(["python", "-c", code])


def _reproduce(entries: Sequence[Entry]) -> Iterator[Child]:
    for i, run in enumerate(dict.fromkeys(entry.run for entry in entries)):
        config = next(entry.config for entry in entries if entry.run == run)
        copy = element("button", "Copy", type="button", data_copy=f"command-{i}", aria_label=f"Copy the command of {run.name}")
        yield element("h3", run.resolve().name, " ", copy)
        yield element("pre", element("code", _command(run, config), id=f"command-{i}"), tabindex=0)
        system = read_system(run)
        rows = [list(item) for item in system.items()]
        if rows:
            yield details("System and versions", table("Trained with", ["what", "value"], rows, numbers=False))
        else:
            yield _note("The folder does not say on which system it was trained.")
    rows = [list(item) for item in describe_system().items()]
    yield details("System that wrote this page", table("Written with", ["what", "value"], rows, numbers=False))
