"""The pages of the algorithms: every block of code runs, the defaults are right, and every algorithm has a page."""

import inspect
import itertools
import re

import pytest

from jaxrl import presets
from jaxrl.algorithms import ALGORITHMS
from tests.docs import pages

PAGES = sorted((pages.ROOT / "docs" / "agents").glob("*.md"))
MISSING = inspect.Parameter("missing", inspect.Parameter.KEYWORD_ONLY, default=None)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_code_on_a_page_runs(path):
    """The blocks of a page share their names, and the last one leaves finite returns."""
    names = pages.run(pages.code(path.read_text()))
    assert abs(names["returns"].mean()) < float("inf")


def test_every_algorithm_has_a_page():
    assert {path.stem for path in PAGES} == set(ALGORITHMS)


def rows():
    """Of the tables of options: the algorithm, a name, the default of the factory as written, and that of the command line."""
    for path in PAGES:
        for line in path.read_text().splitlines():
            if match := re.match(r"\| ((?:`\w+`(?:, )?)+)(?: \(network\))? \| ([^|(]*)(?:\(command line: ([^)]*)\))? \|", line):
                names = re.findall(r"\w+", match[1])
                stated = [(match[i] or "").split(", ") for i in (2, 3)]
                for name, default, command_line in itertools.zip_longest(names, *(x[: len(names)] for x in stated)):
                    yield path.stem, name, default, command_line


def number(text):
    """The value that a table states, or None if it is put in words."""
    text = (text or "").strip().strip("`").strip('"').replace("−", "-").replace(",", "")
    words = {"off": False, "on": True, "False": False, "True": True}
    try:
        return words[text] if text in words else float(text)
    except ValueError:
        return text if re.fullmatch("[a-z]+", text) else None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_tables_state_the_defaults(algorithm):
    row, settings = ALGORITHMS[algorithm], presets.default_settings(algorithm)
    factory = {option.name: option.default for option in (*presets.options_of_agent(row), *row.network_options)}
    factory |= row.hparams._asdict() | {"warmup": inspect.signature(row.factory).parameters.get("warmup", MISSING).default}
    run = {**settings.network, **settings.agent, **settings.hparams}
    wrong, found = [], 0
    for of, name, default, command_line in rows():
        if of == algorithm and name in factory:
            for stated, values in ((default, factory), (command_line, run)):
                if number(stated) is not None:
                    found += 1
                    wrong += [(name, stated, values.get(name))] * (values.get(name) != number(stated))
    assert found > 3
    assert not wrong
