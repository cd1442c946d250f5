"""The blocks of the tutorial run one after the other, with smaller numbers."""

import re
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
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
    text = PAGE
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    np.testing.assert_allclose(names["values"], np.arange(1, 6) / 6, atol=0.12)
    assert names["returns"].shape == (2, 100)
    assert (tmp_path / "curve.png").stat().st_size > 1000
