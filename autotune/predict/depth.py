"""Decode in a filled cache: slower with every cached token, whatever trees learn from noisy rows.

A step reads the weights and the cache before it, so its time is nearly a straight line over depth.
The regressor is asked at a few depths; a running maximum makes them monotone, and in between time
is interpolated. Candidates that differ in depth alone share the answers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autotune.features.case import Array
from autotune.features.columns import FeatureTable
from autotune.predict.phase import Belief, PhaseRegressor
from autotune.predict.subjects import Subjects

KNOTS = np.array([0.0, *(2.0**power for power in range(9, 26, 2))])
"""Depths, in cached tokens, at which the regressor is asked. Beyond the last, time stays."""
Ints = npt.NDArray[np.intp]


def deepen(
    decode: Belief, table: FeatureTable, subjects: Subjects, regressor: PhaseRegressor
) -> None:
    """Replace, in place, the means (log seconds of a token) of cases with a depth.

    ``regressor`` is decode's; ``table`` and ``subjects`` are of the same cases as ``decode``.
    """
    deep = np.flatnonzero(table.arrays.n_depth > 0)
    if not len(deep):
        return
    n_depth = table.arrays.n_depth[deep]
    first, curve = distinct_rows(table.arrays.decode_knobs[deep], subjects.take(deep))
    deepest = np.zeros(len(first))
    np.maximum.at(deepest, curve, n_depth)
    # Each curve up to the first knot that is as deep as any of it.
    row, knot = np.nonzero(np.concatenate([[-1.0], KNOTS[:-1]]) < deepest[:, None])
    asked = deep[first[row]]
    x, floor_s = table.at_depth(asked, KNOTS[knot])
    few, kind = distinct_rows(x, subjects.take(asked))
    slowdown = regressor.mean(x[few], subjects.take(asked[few]))[kind]
    logs = np.full((len(first), len(KNOTS)), -np.inf)
    logs[row, knot] = slowdown + np.log(floor_s)
    seconds = np.exp(np.maximum.accumulate(logs, axis=1))
    decode.mean[deep] = np.log(_between(seconds, curve, n_depth))


def _between(seconds: Array, curve: Ints, n_depth: Array) -> Array:
    """Straight lines between knots: ``seconds`` (n_curves, n_knots), each row on its curve."""
    after = np.minimum(np.searchsorted(KNOTS, n_depth), len(KNOTS) - 1)
    left, right = KNOTS[after - 1], KNOTS[after]
    share = np.minimum((n_depth - left) / (right - left), 1.0)
    low, high = seconds[curve, after - 1], seconds[curve, after]
    return np.asarray(low + share * (high - low))


def distinct_rows(x: Array, subjects: Subjects) -> tuple[Ints, Ints]:
    """(one row of each kind, the kind of each row): rows that a regressor cannot tell apart."""
    rows = np.ascontiguousarray(np.column_stack([x, subjects.kinds]))
    whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, index = np.unique(whole, return_index=True, return_inverse=True)
    return first, index
