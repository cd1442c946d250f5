"""Reports: a page that is complete in itself, escapes every name, and can be read without seeing it."""

import base64
import hashlib
import html.parser
import io
import itertools
import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from jaxrl.experiment import folder
from jaxrl.experiment.comparison import compare
from jaxrl.experiment.evaluations import write_evaluation
from jaxrl.experiment.policies import abstract_policies
from jaxrl.experiment.report import charts, films, write_report
from jaxrl.experiment.report.charts import _ticks
from jaxrl.experiment.report.elements import element, to_html
from jaxrl.experiment.system import describe_system, read_system, write_system
from tests.browser import EXECUTABLE, browser
from tests.experiment.run_folders import write_run

EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>\""
VOID = {"meta", "link", "img", "input", "source", "br", "hr"}


class Parsed(html.parser.HTMLParser):
    """The elements of a page with their attributes, and the text below them. Fails if they are not nested properly."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.elements.append({"tag": tag, "attributes": dict(attrs), "above": [e["tag"] for e in self.open], "text": ""})
        if tag not in VOID:
            self.open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for above in self.open:
            above["text"] += data

    def all(self, *tags):
        return [found for found in self.elements if found["tag"] in tags]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    first = write_run(root / "<script>alert(1)<!--", [100, 200], spread=10, sweep={"tau": [0.1, 0.2]})
    write_evaluation(root / "<script>alert(1)<!--", first, 1000, np.full((16, 2), 40.0))
    write_run(root / "b&amp;", [190], spread=10, algorithm="ppo", random_seed=4)
    write_run(root / "evil", [5], env=EVIL, wrappers=("time_aware",), random_seed=5)
    write_system(root / "b&amp;")
    return [root / "<script>alert(1)<!--", root / "b&amp;", root / "evil"]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return write_report(runs, tmp_path_factory.mktemp("page") / "report", num_films=0)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A page of 20 settings."""
    root = tmp_path_factory.mktemp("many")
    write_run(root / "run", range(20), sweep={"tau": [0.01 * i for i in range(1, 21)]}, seeds=2)
    return write_report([root / "run"], root / "report", num_films=0)


@pytest.fixture(scope="module")
def parsed(page):
    return Parsed(page.read_text(encoding="utf-8"))


def test_names_are_text(parsed):
    assert len(parsed.all("script")) == 2
    assert not [e for e in parsed.all("img") if e["attributes"].get("src") == "x"]
    for found in parsed.elements:
        assert not [name for name in found["attributes"] if name.startswith("on")]
    text = "".join(e["text"] for e in parsed.all("main"))
    assert "<script>alert(1)<!-- (tau=0.2)" in text
    assert "b&amp;" in text
    assert EVIL in text
    assert EVIL in next(e["text"] for e in parsed.all("title"))


def test_the_page_loads_nothing(parsed, page):
    for found in parsed.elements:
        for name in ("src", "href", "srcset", "action", "data"):
            value = found["attributes"].get(name, "#")
            assert value.startswith(("#", "data:")), (found["tag"], name, value[:50])
    assert "url(" not in next(e["text"] for e in parsed.all("style"))
    assert page.stat().st_size < 200_000


def test_only_the_scripts_of_the_page_may_run(parsed):
    policy = next(e["attributes"]["content"] for e in parsed.all("meta") if "http-equiv" in e["attributes"])
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        text = parsed.all(tag)[-1]["text"]
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy


def test_the_page_can_be_read_without_seeing_it(parsed):
    ids = [e["attributes"]["id"] for e in parsed.elements if "id" in e["attributes"]]
    assert len(set(ids)) == len(ids)
    for found in parsed.elements:
        attributes = found["attributes"]
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids
        if found["tag"] in ("img", "area"):
            assert attributes["alt"]
        if found["tag"] in ("button", "summary", "a", "th", "label", "legend", "caption"):
            assert found["text"].strip()
        if attributes.get("role") in ("img", "region", "group"):
            assert attributes["aria-label"]
        if found["tag"] == "input":
            assert found["above"][-1] == "label"
    assert next(e for e in parsed.all("html"))["attributes"]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert len(parsed.all(landmark)) == 1
    assert len(parsed.all("table")) == len(parsed.all("caption")) > 3
    assert {e["attributes"]["scope"] for e in parsed.all("th")} == {"row", "col"}
    levels = [int(e["tag"][1]) for e in parsed.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_section_is_there(parsed):
    titles = [e["text"] for e in parsed.all("h2")]
    assert titles == [
        "Summary", "Learning curves", "Evaluation", "Distribution over seeds", "Films", "Hyperparameters", "Reproduce",
    ]  # fmt: skip
    text = " ".join("".join(e["text"] for e in parsed.all("main")).split())
    assert "scores higher than" in text
    assert "jaxrl train ppo --env CartPole-v1 --steps 2000 --seeds 8 --agent." in text
    assert f"processor{describe_system()['processor']}" in text
    assert "The folder does not say on which system it was trained." in text
    assert "No films were asked for." in text


def test_the_data_of_the_charts(parsed):
    text = next(e["text"] for e in parsed.all("script") if e["attributes"].get("type") == "application/json")
    assert "<" not in text, "a name could end the element"
    data = json.loads(text)
    assert data["entries"] == ["<script>alert(1)<!-- (tau=0.1)", "<script>alert(1)<!-- (tau=0.2)", "b&amp;", "evil"]
    curve, other, evaluated, *profiles = data["charts"]
    assert [line["entry"] for line in curve["lines"]] == [0, 1, 2]
    assert [line["entry"] for line in other["lines"]] == [3]
    assert curve["lines"][0]["x"] == [500, 1000, 1500, 2000]
    for line in curve["lines"]:
        assert all(low <= value <= high for value, low, high in zip(line["value"], line["low"], line["high"], strict=True))
    assert [line["entry"] for line in evaluated["lines"]] == [0, 1]
    assert evaluated["lines"][0]["value"][0] == 40
    assert evaluated["lines"][0]["x"] == [1000, 2000]
    assert len(profiles) == 2
    assert profiles[0]["lines"][0]["value"][0] == 1
    assert profiles[0]["lines"][0]["value"][-1] == 0


def test_the_system_comes_back(tmp_path):
    write_system(tmp_path)
    found = read_system(tmp_path)
    assert found == describe_system()
    assert found["jax"] == jax.__version__
    assert read_system(tmp_path / "nowhere") == {}
    (tmp_path / "system.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"system\.json is damaged"):
        read_system(tmp_path)


def test_a_run_without_finished_episodes_or_evaluations(tmp_path):
    write_run(tmp_path / "run", [np.nan], evaluate=False, seeds=2)
    text = Parsed(write_report([tmp_path / "run"], tmp_path / "page.html", num_films=0).read_text()).all("main")[0]["text"]
    assert "There are no finished episodes yet." in text
    assert "no return of 2 of 2 seeds" in text
    assert "There are no returns on CartPole-v1." in text


def test_seeds_that_diverged_are_named_and_not_in_the_curve(tmp_path):
    write_run(tmp_path / "run", [100], spread=0, seeds=4)
    path = tmp_path / "run" / folder.METRICS
    lines = path.read_text().splitlines()
    rows = [line.split(",") for line in lines[1:]]
    rows = [[*row[:3], "9000.0", "nan"] if row[:2] in (["2", "1500"], ["2", "2000"]) else row for row in rows]
    path.write_text("\n".join([lines[0], *map(",".join, rows)]) + "\n")
    found = compare([tmp_path / "run"])
    assert found.notes == ["run: NaN in 1 run: seed 2 since step 1,500 (loss)."]
    (line,) = charts.learning_curves(found.entries, "CartPole-v1").lines
    np.testing.assert_allclose(line.estimates.high, [25, 50, 75, 100])
    assert "seed 2 since step 1,500 (loss)" in write_report([tmp_path / "run"], tmp_path / "page.html", num_films=0).read_text()


def test_one_seed_has_no_intervals(tmp_path):
    for env in ("CartPole-v1", "Acrobot-v1"):
        write_run(tmp_path / env, [100], env=env, seeds=1)
    text = write_report([tmp_path / "CartPole-v1", tmp_path / "Acrobot-v1"], tmp_path / "page.html", num_films=0).read_text()
    cells = [e["text"] for e in Parsed(text).all("td")]
    assert cells.count("–") > 10
    assert not [cell for cell in cells if "…" in cell]


def test_a_name_may_have_bytes_that_are_not_utf8(tmp_path):
    write_run(tmp_path / "run-\udcff", [100], seeds=2)
    page = write_report([tmp_path / "run-\udcff"], tmp_path / "page.html", num_films=0)
    assert "run-?" in Parsed(page.read_text(encoding="utf-8")).all("main")[0]["text"]


def test_many_seeds_are_shown_in_a_small_page(tmp_path):
    write_run(tmp_path / "run", [100], seeds=1000, times=2, episodes=1)
    page = write_report([tmp_path / "run"], tmp_path / "page.html", num_films=0)
    assert page.stat().st_size < 200_000
    assert "200 seeds of 1000, evenly spaced by rank" in page.read_text()


def test_numbers_at_the_ends_of_an_axis_stay_inside(tmp_path):
    write_run(tmp_path / "run", [0, 50, 100], sweep={"tau": [0.1, 0.2, 0.3]}, spread=0)
    axis = charts.strips(compare([tmp_path / "run"]).entries, "CartPole-v1").find("svg")
    assert [(text.text, text.get("class")) for text in axis.iter("text")] == [
        ("0", "start"), ("20", None), ("40", None), ("60", None), ("80", None), ("100", "end"),
    ]  # fmt: skip


def test_no_two_of_40_settings_are_drawn_alike():
    found = charts.data([], [SimpleNamespace(label="")] * 40)
    assert len({(i % found["colors"], *dash) for i, dash in enumerate(found["dashes"])}) == 40


def test_the_lead_counts_what_is_shown(tmp_path):
    write_run(tmp_path / "run", range(45), sweep={"tau": [0.01 * i for i in range(1, 46)]}, seeds=2)
    text = Parsed(write_report([tmp_path / "run"], tmp_path / "page", num_films=0).read_text()).all("header")[0]["text"]
    assert "1 run folder, 40 settings, 80 policies, 160,000 environment steps" in text


def test_a_search_shows_its_best_settings(tmp_path):
    samples = [{"tau": 0.001 * (i + 1), "discount": 0.9} for i in range(50)]
    write_run(tmp_path / "run", np.arange(50.0) ** 2, samples=samples, seeds=4, episodes=1, times=2)
    page = write_report([tmp_path / "run"], tmp_path / "page.html", num_films=0)
    assert "There are no finished episodes yet." not in Parsed(page.read_text()).all("main")[0]["text"]
    entries = compare([tmp_path / "run"]).entries
    (whole, best) = (charts.learning_curves(chosen, "CartPole-v1").lines for chosen in (entries, entries[10:]))
    assert [line.entry for line in best] == list(range(40))
    for line, same in zip(whole[10:], best, strict=True):
        np.testing.assert_array_equal(line.estimates.value, same.estimates.value)
    (tmp_path / "run" / folder.METRICS).unlink()
    text = Parsed(write_report([tmp_path / "run"], tmp_path / "page.html", num_films=0).read_text()).all("main")[0]["text"]
    assert "run (tau=0.011, discount=0.9)" in text
    assert "run (tau=0.01, discount=0.9)" not in text
    assert "The best 40 settings of each environment are shown, of 50 in all." in text
    assert "There are no finished episodes yet." in text
    assert "run(Config.load(Path(" in text


def test_films_show_the_best_the_median_and_the_worst_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(films, "MAX_STEPS", 6)
    path = tmp_path / "run"
    config = write_run(path, [0], seeds=4, evaluate=False)
    write_evaluation(path, config, 2000, np.array([[3.0], [9.0], [1.0], [5.0]]))
    draw = np.random.default_rng(0)
    folder.save_policies(path, jax.tree.map(lambda x: draw.normal(size=x.shape).astype(x.dtype), abstract_policies(config)))
    parsed = Parsed(write_report([path], tmp_path / "page.html").read_text())
    images = [e["attributes"] for e in parsed.all("img")]
    texts = ["best: seed 1, return 9.00", "median: seed 0, return 3.00", "worst: seed 2, return 1.00"]
    assert [image["alt"] for image in images] == [f"Film of run on CartPole-v1, {text}" for text in texts]
    with Image.open(io.BytesIO(base64.b64decode(images[0]["src"].removeprefix("data:image/gif;base64,")))) as gif:
        assert gif.n_frames >= 3
    still = parsed.all("source")[0]["attributes"]
    assert still["media"] == "(prefers-reduced-motion: reduce)"
    with Image.open(io.BytesIO(base64.b64decode(still["srcset"].removeprefix("data:image/png;base64,")))) as png:
        assert png.size == gif.size


def test_a_setting_that_cannot_be_filmed_says_why(runs, tmp_path):
    page = write_report(runs, tmp_path / "page.html", num_films=1).read_text()
    assert "holds no policies: the run did not finish" in page
    assert "Only the first 1 of 4 settings are filmed" in page


def test_elements_escape_and_nest():
    made = element(
        "p", "a<b", None, ["c", element("i", "&")], "d", class_="x y", data_a='"', hidden=True, title=None, open=False, tabindex=0
    )
    assert to_html(made) == '<p class="x y" data-a="&quot;" hidden="" tabindex="0">a&lt;bc<i>&amp;</i>d</p>'


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 517), (499.5, 500.5), (-1e-3, 2e-3), (1e6, 9e6)])
def test_an_axis_has_a_few_round_numbers(low, high):
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert all(low <= tick <= high for tick in ticks)


# --- in a browser --------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(EXECUTABLE is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


def opened(chromium, page, **options):
    chromium.errors.clear()
    chromium.open(page, **options)
    chromium.wait("document.documentElement.dataset.ready === 'true'")


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_opens_at_any_width_in_both_schemes(chromium, page, width, scheme):
    opened(chromium, page, width=width, scheme=scheme)
    assert chromium.evaluate("document.documentElement.scrollWidth") == width
    assert chromium.evaluate("document.querySelectorAll('.plot canvas').length") == 5
    channels = re.findall(r"\d+", chromium.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert (int(channels[0]) > 128) == (scheme == "light")
    for chart in range(5):
        box = f"document.querySelectorAll('.plot canvas')[{chart}].getBoundingClientRect()"
        assert chromium.evaluate(f"{box}.width > 200 && {box}.right <= {width}")
    assert chromium.evaluate("window.hacked") is None
    assert not chromium.errors


@needs_browser
def test_runs_are_switched_and_read_with_the_keyboard(chromium, page):
    opened(chromium, page)
    status = "document.getElementById('chart-0-status').textContent"
    chromium.evaluate("document.getElementById('chart-0').focus()")
    chromium.press("ArrowRight")
    first = chromium.evaluate(status)
    assert first.startswith("environment steps 500; ")
    assert "b&amp;: " in first
    chromium.press("ArrowRight")
    assert chromium.evaluate(status).startswith("environment steps 1,000; ")
    chromium.evaluate("document.querySelector('[data-toggle=\"2\"]').focus()")
    chromium.press(" ")
    chromium.evaluate("document.getElementById('chart-0').focus()")
    chromium.press("ArrowLeft")
    assert chromium.evaluate(status).startswith("environment steps 500; ")
    assert "b&amp;: " not in chromium.evaluate(status)
    assert chromium.evaluate("document.querySelector('.strips [data-entry=\"2\"]').hidden")
    assert not chromium.evaluate("document.querySelector('.strips [data-entry=\"1\"]').hidden")
    assert not chromium.errors


@needs_browser
def test_charts_are_zoomed_with_mouse_keys_and_buttons(chromium, page):
    opened(chromium, page)
    status = "document.getElementById('chart-0-status').textContent"
    chromium.evaluate("document.getElementById('chart-0').scrollIntoView({block: 'center'})")
    left, top, width = chromium.evaluate(
        "(({x, y, width}) => [x, y, width])(document.querySelector('#chart-0 .u-over').getBoundingClientRect())"
    )
    chromium.mouse("mouseMoved", left + width / 2, top + 50)
    chromium.wait("!document.querySelector('#chart-0 .tip').hidden")
    assert "environment steps" in chromium.evaluate("document.querySelector('#chart-0 .tip').textContent")
    chromium.drag((left + width / 3, top + 50), (left + 2 * width / 3, top + 60))
    chromium.wait(f"{status}.startsWith('environment steps from')")
    start, end = (float(x.replace(",", "")) for x in re.findall(r"[\d,.]*\d", chromium.evaluate(status)))
    assert start == pytest.approx(1000, abs=15)
    assert end == pytest.approx(1500, abs=15)
    chromium.evaluate("document.getElementById('chart-0').focus()")
    chromium.press("0")
    chromium.wait(f"{status} === 'environment steps from 500 to 2,000'")
    chromium.evaluate("document.querySelector('[data-do=in]').click()")
    chromium.wait(f"{status} === 'environment steps from 875 to 1,625'")
    chromium.evaluate("document.querySelector('[data-do=right]').click()")
    chromium.wait(f"{status} === 'environment steps from 1,062.5 to 1,812.5'")
    for _ in range(60):
        chromium.evaluate("document.querySelector('[data-do=in]').click()")
    chromium.wait(f"{status} === 'environment steps from 1,436.8 to 1,438.3'")
    chromium.evaluate("document.querySelector('[data-do=all]').click()")
    chromium.wait(f"{status} === 'environment steps from 500 to 2,000'")
    assert not chromium.errors


@needs_browser
def test_headings_that_are_linked_are_below_the_switches(chromium, many):
    opened(chromium, many)
    chromium.evaluate("document.querySelector('a[href=\"#seeds\"]').click()")
    chromium.wait("document.querySelector('#seeds h2').getBoundingClientRect().top < 300")
    top = chromium.evaluate("document.querySelector('#seeds h2').getBoundingClientRect().top")
    assert top >= chromium.evaluate("document.querySelector('.runs').getBoundingClientRect().bottom")


@needs_browser
def test_the_best_of_many_settings_are_named_at_a_point(chromium, many):
    opened(chromium, many)
    chromium.evaluate("document.getElementById('chart-0').focus()")
    chromium.press("ArrowRight")
    texts = chromium.evaluate("document.getElementById('chart-0-status').textContent").split("; ")
    assert (len(texts), texts[-1]) == (14, "and 8 lower")


@needs_browser
@pytest.mark.parametrize("write", [None, "() => Promise.reject()", "(text) => { window.copied = text; }"])
def test_a_command_is_copied_or_else_selected(chromium, page, write):
    opened(chromium, page)
    clipboard = "undefined" if write is None else f"{{writeText: {write}}}"
    chromium.evaluate(f"Object.defineProperty(navigator, 'clipboard', {{value: {clipboard}}}); 0")
    chromium.evaluate("document.querySelector('[data-copy]').click()")
    button = "document.querySelector('[data-copy]').textContent"
    chromium.wait(f"{button} !== 'Copy'")
    command = chromium.evaluate("document.getElementById('command-0').textContent")
    assert command.startswith("jaxrl train")
    if "copied" in clipboard:
        assert chromium.evaluate("window.copied") == command
        assert chromium.evaluate(button) == "Copied"
    else:
        assert chromium.evaluate("getSelection().toString()") == command
        assert chromium.evaluate(button).startswith("Selected")


@needs_browser
def test_a_foreign_script_does_not_run(chromium, page, tmp_path):
    (tmp_path / "changed.html").write_text(page.read_text().replace("</body>", "<script>window.hacked = 1</script></body>"))
    opened(chromium, tmp_path / "changed.html")
    assert chromium.evaluate("window.hacked") is None
    assert any("Content Security Policy" in error for error in chromium.errors)
