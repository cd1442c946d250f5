"""Reports of run folders: one HTML page, complete in itself, that opens in any browser without a network."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jaxrl.experiment.comparison import Comparison, compare
from jaxrl.experiment.report import charts, films, sections
from jaxrl.experiment.report.elements import element, to_html

_MAX_SETTINGS = 40  # of an environment
_ASSETS = Path(__file__).parent / "assets"


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    references: Mapping[str, tuple[float, float]] | None = None,
    num_films: int = 4,
) -> Path:
    """Write a report of run folders, and return its path.

    The page holds its charts, styles, scripts and films. It loads nothing, and a policy in it forbids that to every browser.

    Args:
      runs: run folders.
      out: the page; the suffix is .html if it has none.
      references: as for `comparison.compare`.
      num_films: the number of settings whose best, median and worst seed are filmed; 0 for no films, which then needs no
        environment and compiles nothing.

    Raises:
      ValueError: for a folder that is not a run folder, and if the page cannot be written.
    """
    out = out if out.suffix or out.is_dir() else out.with_suffix(".html")
    if out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"cannot write {out}: {'it is a folder' if out.is_dir() else f'there is no folder {out.parent}'}")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is a page, with the suffix .html; got {out}")
    found = _limited(compare(runs, references))
    page = _page(found, films.films_of(found.entries, num_films))
    try:
        out.write_text(page, encoding="utf-8", errors="replace")  # a folder's name may have bytes that are not UTF-8
    except OSError as error:
        raise ValueError(f"cannot write {out} ({error.strerror})") from error
    return out


def _limited(found: Comparison) -> Comparison:
    """The best settings of each environment, where there are too many for a page."""
    ranks: dict[int, int] = {}
    for env in dict.fromkeys(entry.config.env_title for entry in found.entries):
        numbers = [i for i, entry in enumerate(found.entries) if entry.config.env_title == env]
        ranked = sorted(numbers, key=lambda i: -np.nan_to_num(found.entries[i].summary.iqm, nan=-np.inf))
        ranks |= {i: rank for rank, i in enumerate(ranked)}
    kept = sorted(i for i, rank in ranks.items() if rank < _MAX_SETTINGS)
    if len(kept) == len(found.entries):
        return found
    labels = {found.entries[i].label for i in kept}
    return found._replace(
        entries=[found.entries[i] for i in kept],
        differences={name: [values[i] for i in kept] for name, values in found.differences.items()},
        pairs=[pair for pair in found.pairs if not pair.env or {pair.better, pair.worse} <= labels],
        notes=[*found.notes, f"The best {_MAX_SETTINGS} settings of each environment are shown, of {len(found.entries)} in all."],
    )


def _page(found: Comparison, filmed: films.Films) -> str:
    """The text of the page."""
    style = "".join(_asset(name) for name in ("uPlot.min.css", "report.css"))
    licence = f"/*\n{_asset('uPlot.LICENSE')}*/"
    script = "\n".join([licence, *(_asset(name) for name in ("uPlot.iife.min.js", "report.js"))])
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    content = sections.build(found, filmed)
    data = json.dumps(charts.data(content.charts, found.entries), allow_nan=False, separators=(",", ":"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", content.title),
        element("style", style),
        element("link", rel="icon", href="data:,"),
    )
    scripts = (
        element("script", data.replace("<", "\\u003c"), id="data", type="application/json"),  # no name can end the element
        element("script", script),
    )
    return "<!doctype html>\n" + to_html(element("html", head, element("body", content.body, scripts), lang="en")) + "\n"


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a content security policy calls an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
