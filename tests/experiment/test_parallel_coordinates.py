"""The picture of a search: which line is thick."""

import numpy as np

from jaxrl.experiment import parallel_coordinates
from jaxrl.experiment.parallel_coordinates import Trial, _axis, plot


def test_infinity_is_above_all_numbers():
    heights, ticks = _axis(np.array([1e3, np.inf, 25e3, 5e3]), True)
    np.testing.assert_allclose(heights, [0.0, 1.0, 0.85, 0.85 / 2])
    assert [text for _, text in ticks] == ["1,000", "2,236", "5,000", "11,180", "25,000", "inf"]
    assert [height for height, _ in ticks] == sorted(height for height, _ in ticks)
    heights, ticks = _axis(np.array([np.inf, np.inf]), None)
    assert (heights.tolist(), ticks) == ([1.0, 1.0], [(1.0, "inf")])


def test_the_thick_line_is_the_best_of_those_trained_longest(tmp_path, monkeypatch):
    """As in the table of a search, a discarded setting is not the best, whatever its score."""
    figures, save = [], parallel_coordinates.save
    monkeypatch.setattr(parallel_coordinates, "save", lambda figure, path: figures.append(figure) or save(figure, path))
    results = [(0.3, 2048, 480.0), (0.1, 8192, 400.0), (0.4, 8192, np.nan), (0.0, 8192, 300.0), (0.2, 2048, 100.0)]
    plot([Trial({"tau": tau}, steps, np.array([score])) for tau, steps, score in results], tmp_path / "search.png")
    (lines,) = figures[0].axes[0].collections
    (thick,) = np.flatnonzero(np.array(lines.get_linewidths()) > 1)
    np.testing.assert_allclose(lines.get_segments()[thick][:, 1], [0.25, 1.0, 300 / 380])
    assert thick == len(results) - 1, "above the others"
