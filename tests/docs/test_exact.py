"""docs/exact.md: its code runs and prints what the page says."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "exact.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_solvers(capsys):
    names: dict = {}
    for block in BLOCKS[:2]:
        exec(block, names)
    printed = capsys.readouterr().out
    for said in ("v*(start) = 0.542 after 3", "from 0.0124", "reached 0.542", "-17.39", "-223.9"):
        assert said in printed


@pytest.mark.slow
def test_probe():
    names: dict = {}
    exec("import jax, jaxrl\n" + BLOCKS[2], names)
    q = names["network"].apply(names["state"].agent.params, names["probe"].obs)
    np.testing.assert_allclose(q, names["probe"].q, atol=0.05)
