"""Statistics over seeds and environments (Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice").

Scores are `[R, M]`: R runs (seeds) of each of M tasks (environments). One environment is `[R, 1]`. Aggregates take `[..., R, M]`
and return `[...]`. To aggregate over tasks, their scores must be comparable: use `normalize` first.

NaN is a score that is not known. An aggregate, a profile or an interval that contains one is NaN; a comparison is a ValueError.
Leave such runs out first.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

_CHUNK = 2_000_000  # resampled numbers in memory at once
_RESAMPLES = 2000
_EXACT = 80  # more runs than this take long to count in every way


def iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: the mean along `axis` without the lowest and the highest quarter of the values; NaN if one is NaN.

    >>> iqm(np.array([[0.0, 1, 3, 9], [0, 1, 3, np.nan]])).tolist()
    [2.0, nan]
    """
    unknown = np.isnan(values).any(axis=axis)  # an older SciPy leaves it out with the highest quarter
    return np.where(unknown, np.nan, stats.trim_mean(values, 0.25, axis=axis))[()]


def iqm_interval(values: np.ndarray, *, confidence: float = 0.95, resamples: int = _RESAMPLES, seed: int = 0) -> np.ndarray:
    """Percentile bootstrap confidence interval of the IQM over the last axis.

    Args:
      values: `[..., S]`, one for each seed. The same resamples of the seeds are used for every leading index.
      confidence: confidence level of the interval.
      resamples: number of bootstrap resamples.
      seed: seed of the resampling.

    Returns:
      `[2, ...]`: the lower and the upper bound; NaN where one of the values is NaN.
    """
    rows = values.reshape(-1, values.shape[-1], 1)
    curve = sample_efficiency(rows, confidence=confidence, resamples=resamples, seed=seed)
    return np.stack([curve.low, curve.high]).reshape(2, *values.shape[:-1])


# --- aggregates ----------------------------------------------------------------------------------


def normalize(scores: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """Scale scores so that `low` becomes 0 and `high` becomes 1. Scores outside of that range stay outside of it.

    Args:
      scores: `[..., R, M]`.
      low, high: numbers, or `[M]`; often the return of random actions and the best known return.

    Raises:
      ValueError: unless low < high for each task.
    """
    low, high = np.asarray(low, float), np.asarray(high, float)
    if not (low < high).all():
        raise ValueError(f"low must be less than high for every task, got low={low.tolist()} and high={high.tolist()}")
    return (scores - low) / (high - low)


def pooled_iqm(scores: np.ndarray) -> np.ndarray:
    """The IQM of the scores of all runs on all tasks together, `[..., R, M]` to `[...]`."""
    return iqm(scores.reshape(*scores.shape[:-2], -1))


def mean_score(scores: np.ndarray) -> np.ndarray:
    """The mean of all scores, `[..., R, M]` to `[...]`."""
    return np.mean(scores, axis=(-2, -1))


def median_score(scores: np.ndarray) -> np.ndarray:
    """The median over tasks of the mean over runs, `[..., R, M]` to `[...]`; for one task, the median over the runs."""
    if scores.shape[-1] == 1:
        return np.median(scores[..., 0], axis=-1)
    return np.median(np.mean(scores, axis=-2), axis=-1)


def optimality_gap(scores: np.ndarray, target: float = 1.0) -> np.ndarray:
    """How much the scores fall short of `target` on average, `[..., R, M]` to `[...]`; scores above it count as the target."""
    return target - mean_score(np.minimum(scores, target))


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The fraction of runs whose score exceeds each threshold, averaged over tasks (Agarwal et al., eq. 2).

    Args:
      scores: `[..., R, M]`.
      thresholds: `[K]`.

    Returns:
      `[..., K]`, in [0, 1], not increasing in the threshold; NaN if one of the scores is NaN.
    """
    above = np.stack([np.mean(scores > threshold, axis=(-2, -1)) for threshold in thresholds], axis=-1)
    return np.where(np.isnan(scores).any(axis=(-2, -1))[..., None], np.nan, above)


# --- intervals -----------------------------------------------------------------------------------


def stratified_interval(
    statistic: Callable[..., np.ndarray],
    *samples: np.ndarray,
    confidence: float = 0.95,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> np.ndarray:
    """Percentile interval by stratified bootstrap: the runs of each task are resampled independently of the other tasks.

    Args:
      statistic: takes resampled `samples`, each `[N, R, M]`, and returns `[N, ...]`.
      samples: one or more arrays `[R, M]`; R may differ between them.
      confidence: confidence level of the interval.
      resamples: number of bootstrap resamples.
      seed: seed of the resampling.

    Returns:
      `[2, ...]`: the lower and the upper bound. With a single run per task, both are equal: it says nothing about noise. NaN
      where the statistic of a resample is NaN.

    >>> low, high = stratified_interval(pooled_iqm, np.arange(32.0).reshape(16, 2))
    >>> bool(low < 15.5 < high)
    True
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // max(sample.size for sample in samples))
    found = []
    for first in range(0, resamples, at_once):
        num = min(at_once, resamples - first)
        indices = [rng.integers(len(sample), size=(num, *sample.shape)) for sample in samples]
        found.append(
            statistic(*(np.take_along_axis(sample[None], i, axis=1) for sample, i in zip(samples, indices, strict=True)))
        )
    tail = 50 * (1 - confidence)
    return np.percentile(np.concatenate(found), [tail, 100 - tail], axis=0)


class Estimates(NamedTuple):
    """A statistic at each of T times, with its confidence interval."""

    value: np.ndarray  # [T]
    low: np.ndarray  # [T]
    high: np.ndarray  # [T]


def sample_efficiency(scores: np.ndarray, *, confidence: float = 0.95, resamples: int = _RESAMPLES, seed: int = 0) -> Estimates:
    """The sample-efficiency curve: the IQM over runs and tasks as a function of time, with stratified bootstrap intervals.

    Args:
      scores: `[T, R, M]`. The same resamples of the runs are used at every time.
      confidence, resamples, seed: as for `stratified_interval`.
    """
    _, num_runs, num_tasks = scores.shape

    def at_all_times(runs):
        return np.stack([pooled_iqm(np.take_along_axis(row[None], runs, axis=1)) for row in scores], axis=-1)

    runs = np.tile(np.arange(num_runs)[:, None], (1, num_tasks))
    if not len(scores):
        return Estimates(*np.empty((3, 0)))
    interval = stratified_interval(at_all_times, runs, confidence=confidence, resamples=resamples, seed=seed)
    return Estimates(pooled_iqm(scores), *interval)


def robustness_curve(returns: np.ndarray, *, confidence: float = 0.95, resamples: int = _RESAMPLES, seed: int = 0) -> Estimates:
    """The IQM over seeds as a function of a parameter of the environment, with bootstrap intervals over the seeds.

    The seeds are what an experiment repeats, so average over the episodes of a seed first.

    Args:
      returns: `[S, N]`: S seeds, each evaluated with N values of the parameter.
      confidence, resamples, seed: as for `stratified_interval`. The same resamples of the seeds are used for every value.

    Returns:
      `Estimates`, each field `[N]`.

    >>> robustness_curve(np.array([[1.0, 0.0], [3.0, 0.0]])).value.tolist()
    [2.0, 0.0]
    """
    return sample_efficiency(np.asarray(returns).T[..., None], confidence=confidence, resamples=resamples, seed=seed)


# --- comparison of two algorithms ----------------------------------------------------------------


class Improvement(NamedTuple):
    """Whether x is better than y."""

    probability: float  # that a run of x scores higher than a run of y on a random task; ties count half
    low: float  # bounds of the bootstrap confidence interval of the probability
    high: float
    p_value: float  # of `permutation_test`


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> float:
    """P(X > Y) + P(X = Y) / 2 for runs of x and y on the same task, averaged over tasks (Agarwal et al., section 4.3).

    For one task it is the Mann–Whitney statistic U, divided by the number of pairs.

    Args:
      x: `[R, M]`.
      y: `[R', M]`.

    Raises:
      ValueError: if the numbers of tasks differ, or a score is NaN.
    """
    _check_pair(x, y)
    once = [np.ones((1, len(sample)), int) for sample in (x, y)]
    return float(np.mean([_improvement_in_resamples(x[:, m], y[:, m], *once)[0] for m in range(x.shape[1])]))


def improvement(
    x: np.ndarray, y: np.ndarray, *, confidence: float = 0.95, resamples: int = _RESAMPLES, seed: int = 0
) -> Improvement:
    """The probability of improvement of x `[R, M]` over y `[R', M]`, its stratified bootstrap interval, and a p-value.

    Unlike the interval, the p-value is valid for any number of runs, however few.

    Args:
      x, y: as for `probability_of_improvement`.
      confidence, resamples, seed: as for `stratified_interval`.

    Raises:
      ValueError: as `probability_of_improvement`.

    >>> result = improvement(np.array([[19.0, 22, 16, 29, 24]]).T, np.array([[20.0, 11, 17, 12]]).T)
    >>> round(result.probability, 2)  # 17 of 20 pairs
    0.85
    """
    probability = probability_of_improvement(x, y)
    rng = np.random.default_rng(seed)
    resampled = np.zeros(resamples)
    at_once = max(1, _CHUNK // (len(x) + len(y)))
    for task in range(x.shape[1]):
        a, b = x[:, task], y[:, task]
        for first in range(0, resamples, at_once):
            chunk = slice(first, min(first + at_once, resamples))
            num = chunk.stop - chunk.start
            counts = [rng.multinomial(len(sample), np.full(len(sample), 1 / len(sample)), num) for sample in (a, b)]
            resampled[chunk] += _improvement_in_resamples(a, b, *counts)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(resampled / x.shape[1], [tail, 100 - tail])
    return Improvement(probability, float(low), float(high), permutation_test(x, y))


def permutation_test(x: np.ndarray, y: np.ndarray) -> float:
    """The p-value of the hypothesis that x and y have the same distribution on each task.

    It is the probability, if runs are exchanged between x and y at random within each task, of a probability of improvement that
    is at least as far from 1/2. For one task without ties, this is the Mann–Whitney U test. The p-value is exact for up to 80
    runs of x and y together. For more it is that of the normal approximation, with ties.

    Args:
      x, y: as for `probability_of_improvement`.

    Raises:
      ValueError: as `probability_of_improvement`.

    >>> round(permutation_test(np.array([[4.0, 5, 6]]).T, np.array([[1.0, 2, 3]]).T), 3)  # 2 of the 20 ways to choose three
    0.1
    """
    _check_pair(x, y)
    ranks = np.rint(2 * stats.rankdata(np.concatenate([x, y]), axis=0)).astype(int)  # doubled, so that ties have integers too
    num, total = len(x), len(x) + len(y)
    deviation = abs(int(np.sum(ranks[:num])) - num * (total + 1) * x.shape[1])  # of the sum of x's ranks from its mean
    if total > _EXACT:
        variance = num * len(y) / (total - 1) * np.sum(np.var(ranks, axis=0))
        return float(2 * stats.norm.sf(deviation / np.sqrt(variance))) if deviation else 1.0
    chances = np.ones(1)
    for column in ranks.T:
        chances = np.convolve(chances, _rank_sums(column, num))
    sums = np.arange(len(chances)) - num * (total + 1) * x.shape[1]
    return float(min(1, np.sum(chances[np.abs(sums) >= deviation])))


def _rank_sums(ranks: np.ndarray, num: int) -> np.ndarray:
    """The probability of each sum of `num` of the ranks, integers `[N]`, drawn without replacement."""
    ways = np.zeros((num + 1, np.sum(np.sort(ranks)[-num:]) + 1))  # to choose so many with that sum
    ways[0, 0] = 1
    for rank in ranks:
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    return ways[-1] / np.sum(ways[-1])


def _improvement_in_resamples(x: np.ndarray, y: np.ndarray, x_counts: np.ndarray, y_counts: np.ndarray) -> np.ndarray:
    """The probability of improvement `[N]` in each resample, which has the values x `[R]` so many times, integers `[N, R]`.

    Likewise y `[R']`, `[N, R']`. Pairs are counted in integers, so that equal values give exactly 1/2.
    """
    order = np.argsort(y)
    below = np.pad(np.cumsum(y_counts[:, order], axis=1), ((0, 0), (1, 0)))  # how often the smallest k values of y are there
    less, not_greater = (below[:, np.searchsorted(y[order], x, side)] for side in ("left", "right"))
    return np.sum(x_counts * (less + not_greater), axis=1) / (2 * len(x) * len(y))


def _check_pair(x: np.ndarray, y: np.ndarray) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must be [runs, tasks] with the same tasks, got {list(x.shape)} and {list(y.shape)}")
    if np.isnan(x).any() or np.isnan(y).any():
        raise ValueError(
            "x and y must not contain NaN, which is neither higher nor lower than a score; got it "
            f"{np.isnan(x).sum()} times in x and {np.isnan(y).sum()} times in y: leave those runs out"
        )


def holm(p_values: np.ndarray, num_tests: int | None = None) -> np.ndarray:
    """p-values of tests, adjusted by Holm's method: the chance of one or more false discoveries is below each.

    Args:
      p_values: `[K]`.
      num_tests: the number of tests to adjust for, by default K. It is larger if the K tests were chosen from more by the same
        data, for example those of the best method against the others.

    Returns:
      `[K]`, in the same order.

    Raises:
      ValueError: if a p-value is NaN, since its test would count as one.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    if np.isnan(p_values).any():
        raise ValueError(f"p_values must not contain NaN: leave those tests out; got {p_values.tolist()}")
    order, num_tests = np.argsort(p_values), len(p_values) if num_tests is None else num_tests
    steps = np.minimum(1, np.maximum.accumulate((num_tests - np.arange(len(p_values))) * p_values[order]))
    adjusted = np.empty(len(p_values))
    adjusted[order] = steps
    return adjusted
