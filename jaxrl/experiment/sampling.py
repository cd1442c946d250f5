"""Ranges of hyperparameters, written as text such as "loguniform:1e-4:1e-2", and random samples of them."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxrl._src.checks import check_size

_KINDS = "uniform:LOW:HIGH or loguniform:LOW:HIGH"


class Range(NamedTuple):
    """The values from `low` to `high`, sampled uniformly, or with `log` so that their logarithms are uniform."""

    low: float
    high: float
    log: bool = False

    def at(self, fraction: float) -> float:
        """The value at a fraction in [0, 1] of the range, to six significant digits, which is what tables print."""
        if self.log:
            value = math.exp((1 - fraction) * math.log(self.low) + fraction * math.log(self.high))
        else:
            value = (1 - fraction) * self.low + fraction * self.high
        return min(max(float(f"{value:.6g}"), self.low), self.high)


def parse_swept(name: str, words: Sequence[str]) -> Range | list[float]:
    """The range or the list of values of a swept hyperparameter.

    Args:
      name: the hyperparameter, for the message of an error.
      words: numbers, or a single range.

    Raises:
      ValueError: for anything else.

    >>> parse_swept("tau", ["loguniform:1e-3:0.1"])
    Range(low=0.001, high=0.1, log=True)
    >>> parse_swept("tau", ["0.01", "0.1"])
    [0.01, 0.1]
    """
    if any(":" in word for word in words):
        if len(words) > 1:
            raise ValueError(f"{name} takes numbers or one range, {_KINDS}; got {' '.join(words)}")
        return _parse_range(name, words[0])
    return [_number(name, word) for word in words]


def _parse_range(name: str, text: str) -> Range:
    kind, *ends = text.split(":")
    if kind not in ("uniform", "loguniform") or len(ends) != 2:
        raise ValueError(f"{name}: {text!r} is not a range; write {_KINDS}")
    low, high = (_number(name, end) for end in ends)
    found = Range(low, high, kind == "loguniform")
    check_space({name: found})
    return found


def check_space(space: Mapping[str, Range]) -> None:
    """Raise TypeError or ValueError, which names the hyperparameter, for what is not a range with finite ends."""
    for name, values in space.items():
        if not isinstance(values, Range):
            raise TypeError(f"{name} must be a Range, such as Range(1e-4, 1e-2, log=True); got {values!r}")
        low, high, log = values
        text = f"{'log' * log}uniform:{low:g}:{high:g}"
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name}: the range {text} must have finite ends with LOW < HIGH")
        if log and low <= 0:
            raise ValueError(f"{name}: the range {text} must have LOW > 0, since the logarithm is sampled; or take uniform")


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} cannot be {text!r}: give a number, or a range such as loguniform:1e-4:1e-2") from None


def draw_samples(space: Mapping[str, Range], num: int, seed: int) -> list[dict[str, float]]:
    """Draw `num` different combinations of hyperparameters at random, reproducibly from the seed.

    Raises:
      TypeError, ValueError: for what is no range, if the ranges do not have as many different values, to six significant digits,
        or `seed` is negative.

    >>> draw_samples({"tau": Range(0.0, 1.0)}, 2, seed=0)
    [{'tau': 0.636962}, {'tau': 0.269787}]
    """
    check_space(space)
    rng, drawn = np.random.default_rng(check_size("seed", seed, minimum=0, maximum=None)), dict[tuple[float, ...], None]()
    for _ in range(100):
        fractions = rng.random((check_size("samples", num) - len(drawn), len(space)))
        values_at = lambda row: tuple(values.at(float(x)) for values, x in zip(space.values(), row, strict=True))
        drawn |= dict.fromkeys(map(values_at, fractions))
        if len(drawn) == num:
            return [dict(zip(space, values, strict=True)) for values in drawn]
    raise ValueError(f"the ranges have too few different values for {num} samples: draw fewer, or widen the ranges")
