"""The blocks of the tutorial run one after the other, with smaller numbers."""

import numpy as np
import pytest

from tests.docs import pages

SMALLER = {
    "learner, 300, hparams": "learner, 100, hparams",
    "num_envs=16": "num_envs=2",
    "(5), 8)": "(5), 2)",
    "num_episodes=32": "num_episodes=2",
}


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names = pages.run(pages.code(pages.replaced(pages.read("docs/tutorial.md"), SMALLER)))
    np.testing.assert_allclose(names["values"], np.arange(1, 6) / 6, atol=0.12)
    assert names["returns"].shape == (2, 100)
    assert (tmp_path / "curve.png").stat().st_size > 1000
