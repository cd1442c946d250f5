"""Statistics over seeds: the interquartile mean and its bootstrap interval (Agarwal et al. 2021)."""

import numpy as np
from scipy import stats


def iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean: the mean without the lowest and the highest quarter along `axis`."""
    return stats.trim_mean(values, 0.25, axis=axis)


def iqm_interval(values: np.ndarray, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """Percentile bootstrap interval of the IQM over the last axis.

    Args:
      values: `[..., S]`, one for each seed. The same seeds are redrawn for every leading position.

    Returns:
      `[2, ...]`: lower and upper end.
    """
    rng = np.random.default_rng(seed)
    num = values.shape[-1]
    chosen = rng.integers(num, size=(resamples, num))
    tail = 50 * (1 - confidence)
    rows = values.reshape(-1, num)  # one after the other: all at once would take rows * resamples * seeds numbers
    ends = np.stack([np.percentile(iqm(row[chosen]), [tail, 100 - tail]) for row in rows], axis=1)
    return ends.reshape(2, *values.shape[:-1])
