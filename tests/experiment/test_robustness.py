"""Robustness curves: the statistics of each value on its own, and their picture."""

import numpy as np
import pytest
from PIL import Image

from jaxrl.experiment.robustness import plot_robustness
from jaxrl.experiment.statistics import iqm, iqm_interval, robustness_curve

RETURNS = np.random.default_rng(0).normal([100.0, 300.0, 50.0], [1.0, 30.0, 20.0], (8, 3))


def test_a_curve_has_the_iqm_and_the_interval_of_every_value():
    curve = robustness_curve(RETURNS)
    np.testing.assert_allclose(curve.value, iqm(RETURNS, axis=0))
    np.testing.assert_allclose([curve.low, curve.high], iqm_interval(RETURNS.T))
    assert np.all((curve.low < curve.value) & (curve.value < curve.high))


def test_the_picture(tmp_path):
    runs = {"one": RETURNS, "many": RETURNS + 50}
    path = plot_robustness(tmp_path / "curve", "mass", [0.1, 1.0, 10.0], runs, trained_on={"one": [1.0], "many": [0.1, 10.0]})
    assert path.name == "curve.png"
    with Image.open(path) as picture:
        assert picture.size == (960, 540)
    with pytest.raises(ValueError, match=r"the returns of 'one' must be \[seeds, 2\], got \[8, 3\]"):
        plot_robustness(tmp_path / "curve", "mass", [0.1, 1.0], runs)
    with pytest.raises(ValueError, match="cannot write the picture"):
        plot_robustness(tmp_path / "none" / "curve", "mass", [0.1, 1.0, 2.0], runs)
