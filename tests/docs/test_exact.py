"""docs/exact.md: its code runs and prints what the page says."""

import numpy as np
import pytest

from tests.docs import pages

BLOCKS = pages.code(pages.read("docs/exact.md"))


def test_solvers(capsys):
    pages.run(BLOCKS[:2])
    printed = capsys.readouterr().out
    for said in ("v*(start) = 0.542 after 3", "from 0.0124", "reached 0.542", "-17.39", "-223.9"):
        assert said in printed


@pytest.mark.slow
def test_probe():
    names = pages.run(["import jax, jaxrl", BLOCKS[2]])
    q = names["network"].apply(names["state"].agent.params, names["probe"].obs)
    np.testing.assert_allclose(q, names["probe"].q, atol=0.05)
