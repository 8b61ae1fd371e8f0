"""How good predictions were: errors of rates and times, coverage of intervals, calibration."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from autotune.features.case import Array

COVERAGES = (0.5, 0.8, 0.9)
_N_BINS = 10
Strings = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Errors of one target under one split. An error is |predicted / measured − 1|."""

    n: int
    median_ape: float
    mape: float
    p90_ape: float
    worst_group: str
    worst_median_ape: float
    coverage: dict[float, float] = field(default_factory=dict)
    """Share of measured values inside the interval that claims so much."""
    width: dict[float, float] = field(default_factory=dict)
    """Median of upper over lower end."""
    worst_coverage: float | None = None
    """Of the 90 % interval, over the groups with at least 20 rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessScore:
    """How good probabilities of success were."""

    n: int
    n_failed: int
    brier: float
    skill: float
    """1 − Brier / Brier of the base rate."""
    ece: float
    """Mean |predicted − observed| over ten bins of predicted probability."""


def score(
    measured: Array, predicted: Array, groups: Strings, half_widths: dict[float, Array]
) -> Score:
    """Score predictions of positive quantities.

    ``measured`` and ``predicted`` are natural logs of shape (n,); ``half_widths`` are those of the
    intervals of each coverage, in logs, or empty for a predictor without intervals.
    """
    error = np.abs(np.expm1(predicted - measured))
    medians = {str(g): float(np.median(error[groups == g])) for g in np.unique(groups)}
    worst = max(medians, key=lambda group: medians[group])
    inside = {c: np.abs(predicted - measured) <= half for c, half in half_widths.items()}
    large = [g for g in np.unique(groups) if np.sum(groups == g) >= 20]
    by_group = [float(inside[0.9][groups == g].mean()) for g in large if 0.9 in inside]
    return Score(
        n=len(measured),
        median_ape=float(np.median(error)),
        mape=float(np.mean(error)),
        p90_ape=float(np.quantile(error, 0.9)),
        worst_group=worst,
        worst_median_ape=medians[worst],
        coverage={c: float(hit.mean()) for c, hit in inside.items()},
        width={c: float(np.exp(2 * np.median(half))) for c, half in half_widths.items()},
        worst_coverage=min(by_group, default=None),
    )


def score_success(ok: npt.NDArray[np.bool_], probability: Array) -> SuccessScore:
    """Score probabilities of shape (n,) against what happened."""
    outcome = ok.astype(float)
    brier = float(np.mean((probability - outcome) ** 2))
    base = float(np.mean((outcome.mean() - outcome) ** 2))
    bins = np.minimum((probability * _N_BINS).astype(int), _N_BINS - 1)
    gaps = [
        abs(float(np.sum(probability[bins == b]) - np.sum(outcome[bins == b])))
        for b in range(_N_BINS)
    ]
    return SuccessScore(
        n=len(ok),
        n_failed=int(np.sum(~ok)),
        brier=brier,
        skill=1 - brier / base if base else 0.0,
        ece=sum(gaps) / len(ok),
    )
