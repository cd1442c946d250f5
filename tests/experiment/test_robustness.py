"""Robustness curves: the statistics of each value on its own, and their picture."""

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from jaxrl.experiment import robustness
from jaxrl.experiment.robustness import plot_robustness
from jaxrl.experiment.statistics import iqm, iqm_interval, robustness_curve

RETURNS = np.random.default_rng(0).normal([100.0, 300.0, 50.0], [1.0, 30.0, 20.0], (8, 3))


def test_a_curve_has_the_iqm_and_the_interval_of_every_value():
    curve = robustness_curve(RETURNS)
    np.testing.assert_allclose(curve.value, iqm(RETURNS, axis=0))
    np.testing.assert_allclose([curve.low, curve.high], iqm_interval(RETURNS.T))
    assert np.all((curve.low < curve.value) & (curve.value < curve.high))


def test_the_picture(tmp_path, monkeypatch):
    runs, figures = {"one": RETURNS, "many": RETURNS + 50}, []
    save = robustness.save
    monkeypatch.setattr(robustness, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    path = plot_robustness(tmp_path / "curve", "mass", [0.1, 1.0, 10.0], runs, trained_on={"one": [1.0], "many": [0.1, 10.0]})
    assert path.name == "curve.png"
    with Image.open(path) as picture:
        assert picture.size == (960, 540)
    (axes,) = figures[0].axes
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "mass (bars: trained on)")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one (8 seeds)", "many (8 seeds)"]
    one, one_trained, many, many_trained = axes.lines
    for line, band, returns in zip((one, many), axes.collections, runs.values(), strict=True):
        curve = robustness_curve(returns)
        np.testing.assert_allclose(line.get_xydata(), np.transpose([[0.1, 1.0, 10.0], curve.value]))
        corners = {tuple(point) for point in np.round(band.get_paths()[0].vertices, 6)}
        assert corners >= {
            (x, round(y, 6)) for side in (curve.low, curve.high) for x, y in zip((0.1, 1.0, 10.0), side, strict=True)
        }
        np.testing.assert_array_equal(band.get_facecolor()[0, :3], matplotlib.colors.to_rgb(line.get_color()))
    for line, trained, color in ((one_trained, [1.0], one.get_color()), (many_trained, [0.1, 10.0], many.get_color())):
        np.testing.assert_array_equal(line.get_xdata(), trained)
        assert line.get_color() == color
        assert max(line.get_ydata()) < RETURNS.min(), "below all curves"
    assert max(many_trained.get_ydata()) < min(one_trained.get_ydata()), "the bars are apart"
    with pytest.raises(ValueError, match=r"the returns of 'one' must be \[seeds, 2\], got \[8, 3\]"):
        plot_robustness(tmp_path / "curve", "mass", [0.1, 1.0], runs)
    with pytest.raises(ValueError, match="cannot write the picture"):
        plot_robustness(tmp_path / "none" / "curve", "mass", [0.1, 1.0, 2.0], runs)


def test_values_in_any_order_and_unknown_returns(tmp_path, monkeypatch, recwarn):
    """Lines go from left to right, and a NaN in one set leaves the bars of all sets where they are."""
    figures, save = [], robustness.save
    monkeypatch.setattr(robustness, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    values, runs = np.array([10.0, 0.1, 1.0]), np.array([[3.0, 1.0, 2.0], [5.0, 3.0, 4.0]])
    unknown = runs.copy()
    unknown[0, 1] = np.nan
    trained_on = {"known": [1.0], "unknown": [0.1, 10.0]}
    for returns in (runs, unknown, np.full_like(runs, np.nan)):
        plot_robustness(tmp_path / "p.png", "mass", values, {"known": runs, "unknown": returns}, trained_on=trained_on)
    for figure in figures:
        (axes,) = figure.axes
        assert axes.get_xscale() == "log"
        known, first, _, second = axes.lines
        np.testing.assert_allclose(known.get_xydata(), [[0.1, 2.0], [1.0, 3.0], [10.0, 4.0]])
        np.testing.assert_allclose([*first.get_ydata(), *second.get_ydata()], [1 - 0.16, 1 - 0.32, 1 - 0.32])
    plot_robustness(tmp_path / "p.png", "mass", values, {"unknown": np.full_like(runs, np.nan)}, trained_on=trained_on)
    assert np.isfinite(figures[-1].axes[0].lines[1].get_ydata()).all()
    assert list(recwarn) == []
