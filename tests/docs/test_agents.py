"""The pages of the algorithms: every block of code runs, and every algorithm has a page."""

import re
from pathlib import Path

import pytest

from jaxrl.algorithms import ALGORITHMS

PAGES = sorted((Path(__file__).parents[2] / "docs" / "agents").glob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_code_on_a_page_runs(path):
    """The blocks of a page share their names, and the last one leaves finite returns."""
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    names = {}
    assert blocks
    for block in blocks:
        exec(block, names)
    assert abs(names["returns"].mean()) < float("inf")


def test_every_algorithm_has_a_page():
    assert {path.stem for path in PAGES} == set(ALGORITHMS)
