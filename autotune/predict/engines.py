"""Engines apart: each has a predictor of its own.

What another engine reached says nothing of this one: transformers has other kernels, other memory
and other failures than llama.cpp. What both share is the physics.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.domain.engine import LLAMA_CPP, engine_of
from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.predict.forecast import Forecast
from autotune.predict.phase import Belief


def by_engine(observations: Iterable[Observation]) -> dict[str, list[Observation]]:
    """The observations of each engine, in their order."""
    found: dict[str, list[Observation]] = defaultdict(list)
    for observation in observations:
        found[engine_of(observation.backend).name].append(observation)
    return dict(found)


def forecast_each(
    cases: Sequence[Case], forecast: Callable[[str, Sequence[Case]], Forecast]
) -> Forecast:
    """One forecast of cases of any engines: each part by its own, in the order of the cases."""
    parts: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        parts[engine_of(case.backend).name].append(index)
    if len(parts) < 2:
        return forecast(next(iter(parts), LLAMA_CPP.name), cases)
    found = [
        (forecast(engine, [cases[row] for row in rows]), rows) for engine, rows in parts.items()
    ]
    order = np.argsort(np.concatenate([rows for _, rows in found]))
    return _joined([part for part, _ in found], order)


def _joined(parts: Sequence[Forecast], order: npt.NDArray[np.intp]) -> Forecast:
    """The cases of all parts, in this order of their concatenation."""
    joined: dict[str, Any] = {}
    for field in dataclasses.fields(Forecast):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], Belief):
            joined[field.name] = Belief(
                np.concatenate([belief.mean for belief in values])[order],
                np.concatenate([belief.sd for belief in values])[order],
            )
        elif isinstance(values[0], np.ndarray):
            joined[field.name] = np.concatenate(values)[order]
        elif isinstance(values[0], tuple):
            flat = [item for value in values for item in value]
            joined[field.name] = tuple(flat[int(row)] for row in order)
    return Forecast(**joined, predictor_id=parts[0].predictor_id)
