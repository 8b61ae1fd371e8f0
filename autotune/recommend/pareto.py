"""The front: candidates that nothing else beats in time, memory and quality at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from autotune.features.case import Array
from autotune.recommend.choose import Candidates

_STEP_RATIO = 0.02
"""Differences below the noise between processes are none."""


def front(candidates: Candidates, quality: Mapping[tuple[str, str], float]) -> npt.NDArray[np.intp]:
    """Indices of the feasible candidates that no other one dominates, the fastest first.

    ``quality`` is the measured cost (KL divergence) of each pair of cache types; a lossy pair that
    was not measured costs more than any that was.
    """
    feasible = np.flatnonzero(candidates.feasible)
    costs = np.column_stack([
        _steps(candidates.request_s[feasible]),
        _steps(candidates.forecast.peak_bytes[feasible]),
        quality_costs(candidates, quality)[feasible],
    ])  # fmt: skip
    kept: list[int] = []
    for row in np.lexsort(costs.T[::-1]):
        # In this order nothing later can dominate what is kept.
        if not any(np.all(costs[other] <= costs[row]) for other in kept):
            kept.append(int(row))
    return np.asarray(feasible[kept])


def quality_costs(candidates: Candidates, quality: Mapping[tuple[str, str], float]) -> Array:
    """Nats per token lost by each candidate's cache; infinite where lossy and not measured."""
    configs = [case.config for case in candidates.forecast.cases]
    return np.array([
        quality.get((c.type_k, c.type_v), np.inf) if c.is_lossy else 0.0 for c in configs
    ])  # fmt: skip


def _steps(values: Array) -> Array:
    """Logarithms in steps of the noise."""
    return np.asarray(np.round(np.log(values) / np.log1p(_STEP_RATIO)))
