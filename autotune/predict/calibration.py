"""Conformal intervals: standard deviations scaled until they cover what they claim.

A score is |error| / sd on rows that a prediction had not seen. The interval that holds a share c
of the future is mean ± sd × (c-quantile of the scores): split conformal prediction (Vovk,
Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005), each tier of knowledge for
itself. A family counts by the root of its rows: the next model is a draw from the families.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotune.features.case import Array

TIERS = ("unseen", "few runs", "runs")
"""How much is known of a model on a machine: nothing, one or two runs, three or more."""
ABROAD = "unseen device"
"""Nothing was run on such a device at all."""
COVERAGE = 0.9
_Z = {0.5: 0.674, 0.8: 1.282, 0.9: 1.645}
"""What the scores would be, were they normal."""
_MIN_SCORES = 20
"""Fewer scores than this leave the standard deviations as they are."""
_MAX_INFLATION = 6.0


def tier_of(n_runs: int) -> str:
    """The tier of a model with so many measured rows."""
    return TIERS[0] if n_runs == 0 else TIERS[1] if n_runs < 3 else TIERS[2]


@dataclass(frozen=True, slots=True)
class Calibration:
    """For each tier the factor on the standard deviations, by covered share."""

    factors: dict[str, dict[float, float]]

    @classmethod
    def fit(cls, scores: dict[str, tuple[Array, npt.NDArray[np.str_]]]) -> Calibration:
        """Learn from (scores, families) of each tier, shape (n,) each."""
        return cls({tier: _factors(*scores[tier]) for tier in scores})

    def factor(self, tier: str, coverage: float = COVERAGE) -> float:
        """What to multiply a standard deviation by, so that ± z sd covers ``coverage``."""
        return self.factors.get(tier, {}).get(coverage, 1.0)


def _factors(scores: Array, families: npt.NDArray[np.str_]) -> dict[float, float]:
    known = np.isfinite(scores)
    scores, families = scores[known], families[known]
    if len(scores) < _MIN_SCORES:
        return {}
    _, index, counts = np.unique(families, return_inverse=True, return_counts=True)
    weight = 1 / np.sqrt(counts[index])
    # The next family is one draw from few: conformal's (n + 1) / n, with families for n.
    more = 1 + 1 / len(counts)
    return {
        coverage: float(
            min(weighted_quantile(scores, weight, min(coverage * more, 1.0)) / z, _MAX_INFLATION)
        )
        for coverage, z in _Z.items()
    }


def weighted_quantile(values: Array, weight: Array, q: float) -> float:
    """The smallest value that has a share q of the weight at or below it."""
    order = np.argsort(values)
    share = np.cumsum(weight[order]) / weight.sum()
    last = min(int(np.searchsorted(share, q)), len(values) - 1)
    return float(values[order][last])
