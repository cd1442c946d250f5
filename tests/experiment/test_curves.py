"""Pictures of learning curves: every label is inside the picture, next to curves that keep their size."""

import numpy as np
import pytest

from jaxrl.experiment import curves
from jaxrl.experiment.curves import Curve, plot
from jaxrl.experiment.pictures import new_figure, save

SETTING = "DQN on CartPole-v1, learning_rate=0.000314159, tau=0.00517, in dqn-CartPole-v1-20261128-184041-"


def drawn(labels, tmp_path, monkeypatch, returns=((1.0, 2.0), (3.0, 5.0))):
    """The figure that is written for a curve of each label."""
    figures = []
    monkeypatch.setattr(curves, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    steps, returns = 1000 * np.arange(1, len(returns) + 1), np.array(returns)
    plot([Curve(label, steps, returns, np.zeros(returns.shape[1], bool)) for label in labels], tmp_path / "curves.png")
    return figures[0]


@pytest.mark.parametrize(
    "labels",
    [
        [SETTING + "ab12", SETTING + "cd34"],
        [f"{SETTING}{i}" for i in range(10)],
        [f"DQN on CartPole-v1, in {'n' * 200}{i}" for i in range(3)],
    ],
)
def test_long_labels_are_whole_and_below_axes_that_keep_their_size(labels, tmp_path, monkeypatch):
    figure = drawn(labels, tmp_path, monkeypatch)
    (axes,), (legend,) = figure.axes, figure.legends
    assert ["".join(text.get_text().split()) for text in legend.get_texts()] == [
        "".join(f"{label} (2 seeds)".split()) for label in labels
    ]
    box, around = legend.get_window_extent(), axes.get_tightbbox()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert 0 <= box.y0 < box.y1 <= around.y0, "below the axes"
    for handle, line in zip(legend.legend_handles, axes.lines, strict=True):
        assert handle.get_color() == line.get_color()
    short = drawn(["DQN on CartPole-v1"], tmp_path, monkeypatch).axes[0].get_window_extent()
    size = axes.get_window_extent()
    np.testing.assert_allclose([size.width, size.height], [short.width, short.height], rtol=0.1)


def test_short_labels_are_inside_the_axes(tmp_path, monkeypatch):
    figure = drawn(["DQN on CartPole-v1, tau=0.1", "DQN on CartPole-v1, tau=0.2"], tmp_path, monkeypatch)
    (axes,) = figure.axes
    np.testing.assert_array_equal(figure.get_size_inches(), [8, 5])
    inside, outside = axes.get_legend().get_window_extent(), axes.get_window_extent()
    assert outside.x0 < inside.x0 < inside.x1 < outside.x1
    assert outside.y0 < inside.y0 < inside.y1 < outside.y1


def test_a_seed_without_a_finished_episode_is_counted_and_left_out(tmp_path, monkeypatch):
    (axes,) = drawn(["DQN"], tmp_path, monkeypatch, [[np.nan] * 3, [1.0, np.nan, np.nan], [2.0, 6.0, np.nan]]).axes
    (line,) = axes.lines
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([3000], [4.0])
    assert axes.get_legend().texts[0].get_text() == "DQN (2 seeds of 3, 1 without a finished episode)"


def test_without_finished_episodes_the_legend_says_so(tmp_path, monkeypatch):
    (axes,) = drawn(["DQN"], tmp_path, monkeypatch, [[np.nan] * 2] * 2).axes
    assert axes.get_legend().texts[0].get_text() == "DQN (0 seeds of 2, 2 without a finished episode)"


def test_single_points_are_seen(tmp_path, monkeypatch):
    for labels in (["DQN"], [f"DQN {i}" for i in range(12)]):  # the last two are grey
        (axes,) = drawn(labels, tmp_path, monkeypatch, [[1.0, 2.0]]).axes
        assert {line.get_marker() for line in axes.lines} == {"o"}
    (axes,) = drawn(["DQN"], tmp_path, monkeypatch).axes
    assert axes.lines[0].get_marker() == "None"


def test_grey_curves_are_counted_in_the_legend(tmp_path, monkeypatch):
    for num, expected in ((10, "DQN 9 (2 seeds)"), (11, "1 other"), (13, "3 others")):
        (axes,) = drawn([f"DQN {i}" for i in range(num)], tmp_path, monkeypatch).axes
        texts = [text.get_text() for text in axes.get_legend().texts]
        assert (len(texts), texts[-1]) == (min(num, 11), expected)


def test_what_the_font_or_the_layout_lacks_is_no_warning(tmp_path, recwarn):
    figure = new_figure(2, 2)
    figure.add_subplot().set_ylabel("日本語")
    save(figure, tmp_path / "glyphs.png")
    figure = new_figure(2, 2)
    figure.add_subplot().set_ylabel("\n" * 50)
    save(figure, tmp_path / "no-room.png")
    assert [str(warning.message) for warning in recwarn] == []
