"""docs/comparing.md: its code runs and prints what the page says, and what it says about numbers of seeds is so."""

import re

import numpy as np
import pytest

from jaxrl.experiment.statistics import improvement
from tests.docs import pages
from tests.experiment.run_folders import write_run

STATISTICS, COMPARE = pages.code(pages.read("docs/comparing.md"))


def test_statistics(capsys):
    pages.run([STATISTICS])
    first, second = capsys.readouterr().out.splitlines()
    assert first == re.search(r"# (IQM .*)", STATISTICS)[1]
    assert second.startswith("better with probability 0.")


def test_compare(tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "runs/ppo", [500], algorithm="ppo")
    write_run(tmp_path / "runs/dqn", [300, 310], sweep={"learning_rate": [1e-4, 1e-3]}, spread=50)
    monkeypatch.chdir(tmp_path)
    pages.run([COMPARE])
    assert "On CartPole-v1, ppo scores higher than dqn (learning_rate=0.001) in 100 % of pairs" in capsys.readouterr().out


@pytest.mark.parametrize(("seeds", "p"), [(3, 0.1), (4, 0.03)])
def test_separation_of_few_seeds(seeds, p):
    x = np.arange(float(seeds))[:, None]
    assert improvement(x + seeds, x, resamples=10_000).p_value == pytest.approx(p, abs=0.01)


def test_three_quarters_are_usually_enough_for_16_seeds():
    x, y = np.random.default_rng(0).normal(size=(2, 200, 16, 1))
    found = [improvement(a + 0.954, b, resamples=400).p_value < 0.05 for a, b in zip(x, y, strict=True)]  # P(X > Y) = 0.75
    assert np.mean(found) > 0.6
