"""The page on searches: its code runs."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "searches.md"


@pytest.mark.slow
def test_the_code_on_the_page_runs():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    assert [len(rung.settings) for rung in names["rungs"]] == [8, 2]
    assert np.isfinite(names["generations"][-1].scores).all()
