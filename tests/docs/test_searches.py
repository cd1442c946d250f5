"""The page on searches: its code runs."""

import numpy as np
import pytest

from tests.docs import pages


@pytest.mark.slow
def test_the_code_on_the_page_runs():
    names = pages.run(pages.code(pages.read("docs/searches.md")))
    assert [len(rung.settings) for rung in names["rungs"]] == [8, 2]
    assert np.isfinite(names["generations"][-1].scores).all()
