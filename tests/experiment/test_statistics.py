"""Statistics over seeds and environments, against SciPy, published numbers and plain loops."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from jaxrl.experiment import statistics
from jaxrl.experiment.statistics import (
    holm,
    improvement,
    iqm_interval,
    mean_score,
    median_score,
    normalize,
    optimality_gap,
    performance_profile,
    permutation_test,
    pooled_iqm,
    probability_of_improvement,
    sample_efficiency,
    stratified_interval,
)

# Survival of mice in days (Efron & Tibshirani 1993, table 2.1).
TREATED = np.array([94.0, 197, 16, 38, 99, 141, 23])


def scores(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def test_aggregates_are_scipys_and_numpys():
    x = scores(3, 9, 4)
    np.testing.assert_allclose(pooled_iqm(x), [stats.trim_mean(block.ravel(), 0.25) for block in x])
    np.testing.assert_allclose(mean_score(x), [block.mean() for block in x])
    np.testing.assert_allclose(median_score(x), [np.median([task.mean() for task in block.T]) for block in x])
    np.testing.assert_allclose(median_score(x[..., :1]), np.median(x[..., 0], axis=1))


def test_the_optimality_gap_counts_nothing_above_the_target():
    assert optimality_gap(np.array([[0.5, 2.0], [1.0, 0.25]])) == pytest.approx((0.5 + 0 + 0 + 0.75) / 4)
    assert optimality_gap(np.array([[0.5, 2.0]]), target=2.0) == pytest.approx(0.75)


def test_normalised_scores_run_from_the_low_to_the_high_reference():
    x = np.array([[0.0, 10.0], [5.0, 40.0]])
    np.testing.assert_allclose(normalize(x, np.array([0, 20]), np.array([5, 40])), [[0, -0.5], [1, 1]])
    with pytest.raises(ValueError, match="low must be less than high"):
        normalize(x, 1.0, 1.0)


def test_a_profile_is_the_fraction_of_scores_above_each_threshold():
    x = scores(7, 3)
    thresholds = np.array([-10.0, -0.5, x[2, 1], 0.7, 10.0])
    expected = [sum(score > t for score in x.ravel()) / 21 for t in thresholds]
    np.testing.assert_allclose(performance_profile(x, thresholds), expected)
    np.testing.assert_allclose(performance_profile(np.stack([x, x]), thresholds), [expected, expected])


def test_bootstrap_errors_are_the_published_ones():
    """The standard errors of mean and median of infinitely many resamples are 23.36 and 37.83 (Efron & Tibshirani, table 2.2).

    An interval of 68.27 % of a normal distribution is two standard errors wide; the percentile interval of the mean nearly so.
    """
    found = {}

    def both(resampled):
        values = np.stack([resampled.mean(axis=(1, 2)), np.median(resampled[..., 0], axis=1)], axis=-1)
        found["errors"] = values.std(axis=0)
        return values

    low, high = stratified_interval(both, TREATED[:, None], resamples=20_000, confidence=0.6827)
    np.testing.assert_allclose(found["errors"], [23.36, 37.83], rtol=0.02)
    assert (high - low)[0] == pytest.approx(2 * 23.36, rel=0.03)


def test_intervals_are_scipys():
    x = scores(24)
    expected = stats.bootstrap((x,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    low, high = stratified_interval(mean_score, x[:, None], resamples=20_000)
    np.testing.assert_allclose([low, high], expected.confidence_interval, atol=0.015)


def test_tasks_are_resampled_independently_and_runs_never_change_their_task():
    """Every run of a task has the same score, so a resample that keeps to the strata has the same mean."""
    x = np.tile(np.array([0.0, 10.0, 100.0]), (5, 1))
    np.testing.assert_allclose(stratified_interval(mean_score, x), np.full(2, 110 / 3))
    pairs = np.tile(np.arange(5.0)[:, None], (1, 2))
    differs = stratified_interval(lambda s: np.abs(s[..., 0] - s[..., 1]).max(axis=-1), pairs)
    assert differs[0] > 0  # resampled together, the two columns would stay equal


def test_chunks_do_not_change_an_interval(monkeypatch):
    x = scores(7, 3)
    whole = stratified_interval(pooled_iqm, x, resamples=100)
    monkeypatch.setattr(statistics, "_CHUNK", 21 * 8)
    np.testing.assert_array_equal(stratified_interval(pooled_iqm, x, resamples=100), whole)


def test_what_contains_an_unknown_score_is_unknown_and_is_not_compared():
    """With every version of SciPy."""
    x = scores(2, 8, 3)
    with_nan = x.copy()
    with_nan[1, 2, 1] = np.nan
    profile = lambda x: performance_profile(x, np.array([-1.0, 0.0]))
    for aggregate in (pooled_iqm, mean_score, median_score, optimality_gap, profile):
        found = aggregate(with_nan)
        assert np.isnan(found[1]).all()
        np.testing.assert_array_equal(found[0], aggregate(x)[0])
        assert np.isnan(stratified_interval(aggregate, with_nan[1], resamples=100)).all()
    assert np.isnan(statistics.iqm(np.array([1, 2, 3, np.nan])))
    assert np.isnan(iqm_interval(with_nan[..., 1], resamples=100)).tolist() == [[False, True], [False, True]]
    curve = sample_efficiency(with_nan, resamples=100)
    assert [np.isnan(values).tolist() for values in curve] == 3 * [[False, True]]
    for compare in (probability_of_improvement, improvement):
        for a, b in [(with_nan[1], x[0]), (x[0], with_nan[1])]:
            with pytest.raises(ValueError, match=r"(1 times in x and 0|0 times in x and 1) times in y: leave those"):
                compare(a, b)
    with pytest.raises(ValueError, match="must not contain NaN: leave those tests out"):
        holm(np.array([0.01, np.nan]))


def test_a_curve_is_the_interval_at_each_time():
    x = scores(4, 8, 2)
    curve = sample_efficiency(x, resamples=300)
    for t in range(4):
        np.testing.assert_allclose(curve.value[t], pooled_iqm(x[t]))
        np.testing.assert_allclose([curve.low[t], curve.high[t]], stratified_interval(pooled_iqm, x[t], resamples=300))
    np.testing.assert_allclose(iqm_interval(x[..., 0], resamples=300)[0], sample_efficiency(x[..., :1], resamples=300).low)
    assert sample_efficiency(x[:0]).value.shape == (0,)


def test_the_probability_of_improvement_is_mann_whitneys_statistic():
    rng = np.random.default_rng(0)
    x, y = rng.integers(5, size=(9, 3)).astype(float), rng.integers(6, size=(7, 3)).astype(float)  # with ties
    expected = [stats.mannwhitneyu(x[:, m], y[:, m]).statistic / 63 for m in range(3)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(expected))
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1)
    assert probability_of_improvement(x, x) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="the same tasks"):
        probability_of_improvement(x, y[:, :2])


@pytest.mark.parametrize("num", [6, 10, 49])
def test_equal_and_separate_scores_have_exact_probabilities(num):
    zeros = np.zeros((num, 2))
    assert improvement(zeros, zeros[1:])[:3] == (0.5, 0.5, 0.5)
    assert improvement(zeros + 1, zeros[1:])[:3] == (1, 1, 1)


def test_the_interval_of_an_improvement_is_that_of_a_plain_bootstrap():
    x, y = scores(12, 2) + 0.5, scores(10, 2, seed=1)

    def plain(a, b):
        return np.array(
            [np.mean([np.mean(u[:, None] > v) for u, v in zip(p.T, q.T, strict=True)]) for p, q in zip(a, b, strict=True)]
        )

    found = improvement(x, y, resamples=4000)
    np.testing.assert_allclose([found.low, found.high], stratified_interval(plain, x, y, resamples=4000), atol=0.015)
    assert found.low < found.probability < found.high


@pytest.mark.parametrize(("shift", "ties"), [(0.0, False), (0.8, False), (1.5, True)])
def test_p_values_are_those_of_an_exact_test(shift, ties):
    x, y = scores(6) + shift, scores(5, seed=1)
    x, y = (np.round(x), np.round(y)) if ties else (x, y)
    pooled = np.concatenate([x, y])
    everywhere = [pooled[list(i)] for i in itertools.combinations(range(11), 6)]
    rest = [np.delete(pooled, list(i)) for i in itertools.combinations(range(11), 6)]
    distance = lambda a, b: abs(probability_of_improvement(a[:, None], b[:, None]) - 0.5)
    exact = np.mean([distance(a, b) >= distance(x, y) - 1e-12 for a, b in zip(everywhere, rest, strict=True)])
    if not ties:
        assert exact == pytest.approx(stats.mannwhitneyu(x, y, method="exact").pvalue)
    assert improvement(x[:, None], y[:, None], resamples=10).p_value == pytest.approx(exact)


def test_a_p_value_over_tasks_is_that_of_all_exchanges():
    """Every way to exchange the runs of each task, with ties: C(7, 4) in each of two tasks."""
    x, y = np.round(scores(4, 2)) + 1, np.round(scores(3, 2, seed=1))
    pooled = np.concatenate([x, y])

    def probabilities(task):
        for first in itertools.combinations(range(7), 4):
            a, b = pooled[list(first), task], np.delete(pooled[:, task], list(first))
            yield probability_of_improvement(a[:, None], b[:, None])

    distances = [abs((p + q) / 2 - 0.5) for p, q in itertools.product(probabilities(0), probabilities(1))]
    expected = np.mean(np.array(distances) >= abs(probability_of_improvement(x, y) - 0.5) - 1e-12)
    assert 0.01 < expected < 0.5
    assert permutation_test(x, y) == pytest.approx(expected)


def test_the_p_value_of_many_runs_is_the_normal_approximation(monkeypatch):
    x, y = np.round(2 * scores(45)) + 1, np.round(2 * scores(40, seed=1))
    expected = stats.mannwhitneyu(x, y, method="asymptotic", use_continuity=False).pvalue
    found = permutation_test(x[:, None], y[:, None])
    assert found == pytest.approx(expected)
    monkeypatch.setattr(statistics, "_EXACT", 85)
    assert permutation_test(x[:, None], y[:, None]) == pytest.approx(expected, rel=0.1)
    assert permutation_test(np.ones((60, 1)), np.ones((60, 1))) == 1


def test_complete_separation_has_the_smallest_p_value_there_is():
    low, high = np.arange(32.0)[:, None], np.arange(100.0, 132.0)[:, None]
    assert permutation_test(high, low) == pytest.approx(2 / math.comb(64, 32))


def test_three_seeds_against_three_are_never_more_than_noise():
    """Complete separation of three and three happens by chance in 2 of 20 orders, although the bootstrap interval is a point."""
    found = improvement(np.array([[7.0, 8, 9]]).T, np.array([[1.0, 2, 3]]).T)
    assert (found.probability, found.low, found.high) == (1, 1, 1)
    assert found.p_value == pytest.approx(0.1)


def test_noise_is_called_a_difference_in_about_5_of_100_comparisons():
    rng = np.random.default_rng(0)
    found = [improvement(rng.normal(size=(8, 1)), rng.normal(size=(8, 1)), resamples=200).p_value < 0.05 for _ in range(300)]
    assert 3 <= sum(found) <= 29  # 15 expected, at most; 29 is 3.7 deviations off


def test_holms_method_by_hand():
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.5])), [0.09, 0.04, 0.09, 0.5])
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03]), num_tests=6), [0.06, 0.16, 0.15])
    assert holm(np.array([])).shape == (0,)
    assert holm(np.array([0.9, 0.8])).max() == 1
