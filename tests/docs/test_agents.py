"""The pages of the algorithms: every block of code runs, and every algorithm has a page."""

import pytest

from jaxrl.algorithms import ALGORITHMS
from tests.docs import pages

PAGES = sorted((pages.ROOT / "docs" / "agents").glob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_code_on_a_page_runs(path):
    """The blocks of a page share their names, and the last one leaves finite returns."""
    names = pages.run(pages.code(path.read_text()))
    assert abs(names["returns"].mean()) < float("inf")


def test_every_algorithm_has_a_page():
    assert {path.stem for path in PAGES} == set(ALGORITHMS)
