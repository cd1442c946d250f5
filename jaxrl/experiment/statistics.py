"""Statistics over seeds: the interquartile mean and its bootstrap confidence interval (Agarwal et al. 2021)."""

import numpy as np
from scipy import stats


def iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: the mean along `axis` without the lowest and the highest quarter of the values."""
    return stats.trim_mean(values, 0.25, axis=axis)


def iqm_interval(values: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Percentile bootstrap confidence interval of the IQM over the last axis.

    Args:
      values: `[..., S]`, one for each seed. The same resamples of the seeds are used for every leading index.
      confidence: confidence level of the interval.
      resamples: number of bootstrap resamples.
      seed: seed of the resampling.

    Returns:
      `[2, ...]`: the lower and the upper bound.
    """
    rng = np.random.default_rng(seed)
    num = values.shape[-1]
    resampled = rng.integers(num, size=(resamples, num))
    tail = 50 * (1 - confidence)
    rows = values.reshape(-1, num)  # processed one by one: all at once would allocate rows * resamples * seeds numbers
    ends = np.stack([np.percentile(iqm(row[resampled]), [tail, 100 - tail]) for row in rows], axis=1)
    return ends.reshape(2, *values.shape[:-1])
