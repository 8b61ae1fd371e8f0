"""Robust statistics of small samples; the standard library is enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean as mean
from statistics import median

__all__ = ["geometric_mean", "mean", "median", "quantile", "relative_spread"]


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile (0 ≤ q ≤ 1) by linear interpolation, as numpy's default."""
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def geometric_mean(values: Sequence[float]) -> float:
    """The mean for ratios and rates: exp of the mean logarithm."""
    return math.exp(sum(math.log(value) for value in values) / len(values))


def relative_spread(values: Sequence[float]) -> float:
    """(max − min) / median; 0 for a single value."""
    return (max(values) - min(values)) / median(values)
