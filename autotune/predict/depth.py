"""Decode in a filled cache: slower with every cached token, whatever trees learn from noisy rows.

A step reads the weights and the cache before it, so its time is nearly a straight line over depth.
The regressor is asked at a few depths; a running maximum makes them monotone, and in between time
is interpolated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from autotune.features.case import Array, Case
from autotune.predict.phase import Belief, Subjects

KNOTS = (0, 512, 2048, 8192, 32768, 131072, 524288)
"""Depths, in cached tokens, at which the regressor is asked."""
Ints = npt.NDArray[np.intp]


def deepen(
    decode: Belief,
    cases: Sequence[Case],
    x: Array,
    subjects: Subjects,
    ask: Callable[[Sequence[Case]], Array],
) -> None:
    """Replace, in place, the means (log seconds of a token) of cases with a depth.

    ``x`` are the columns of decode, shape (n_cases, n_columns); ``ask`` tells the regressor's log
    seconds of any cases.
    """
    deep = np.flatnonzero([case.workload.n_depth > 0 for case in cases])
    if not len(deep):
        return
    first, index = distinct_rows(x[deep], subjects.take(deep))
    asked = [cases[int(row)] for row in deep[first]]
    knots = [_knots(case.workload.n_depth) for case in asked]
    told = ask([_at(case, knot) for case, own in zip(asked, knots, strict=True) for knot in own])
    ends = np.cumsum([len(own) for own in knots])
    seconds = [
        np.interp(case.workload.n_depth, own, np.exp(np.maximum.accumulate(logs)))
        for case, own, logs in zip(asked, knots, np.split(told, ends[:-1]), strict=True)
    ]
    decode.mean[deep] = np.log(seconds)[index]


def distinct_rows(x: Array, subjects: Subjects) -> tuple[Ints, Ints]:
    """(one row of each kind, the kind of each row): rows that a regressor cannot tell apart."""
    names = np.char.add(subjects.groups, subjects.places[:, 2])
    _, codes = np.unique(names, return_inverse=True)
    rows = np.ascontiguousarray(np.column_stack([x, codes]))
    whole = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, index = np.unique(whole, return_index=True, return_inverse=True)
    return first, index


def _knots(n_depth: int) -> tuple[int, ...]:
    """Those up to a depth, and the next one above."""
    above = [knot for knot in KNOTS if knot >= n_depth]
    return (*(knot for knot in KNOTS if knot < n_depth), above[0] if above else n_depth)


def _at(case: Case, n_depth: int) -> Case:
    workload = dataclasses.replace(case.workload, n_depth=n_depth)
    return dataclasses.replace(case, workload=workload)
