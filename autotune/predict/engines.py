"""Engines apart: each has a predictor of its own, and typical values until it was run.

What another engine reached says nothing of this one: transformers has other kernels, other memory
and other failures than llama.cpp. What both share is the physics.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from autotune.domain.engine import CTRANSFORMERS, LLAMA_CPP, TRANSFORMERS, engine_of
from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.predict.forecast import Forecast
from autotune.predict.phase import Belief

_FACTOR_TWO = 0.42
"""Physics alone: a factor of two either way covers 90 % (public single-GPU telemetry: bandwidth
use 0.52–0.79 between quartiles; prefill 0.2–0.95 of peak)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Typical:
    """What to expect of an engine before it was run."""

    slowdown: Mapping[str, float]
    """Of each phase: natural log of measured over roofline time."""
    slowdown_sd: float = _FACTOR_TWO
    process_mib: float = 48.0
    """Interpreter and libraries."""
    process_sd_mib: float = 5.0


_LLAMA_CPP = {"prefill": -np.log(0.45), "decode": -np.log(0.60), "load": np.log(1.5)}
_UNKNOWN = Typical(slowdown=_LLAMA_CPP, slowdown_sd=0.84, process_mib=150.0, process_sd_mib=100.0)
"""An engine that nobody described: as llama.cpp, and a factor of four either way."""
_TYPICAL = {
    LLAMA_CPP.name: Typical(slowdown=_LLAMA_CPP),
    TRANSFORMERS.name: Typical(
        # Unpacked weight by weight while it loads: 0.14 to 0.2 µs each, on two models.
        slowdown={"prefill": -np.log(0.3), "decode": -np.log(0.2), "load": np.log(200.0)},
        slowdown_sd=0.7,
        process_mib=386.0,
        process_sd_mib=50.0,
    ),
    # The llama.cpp of 2023, behind Python: its kernels are slower, its memory is alike.
    CTRANSFORMERS.name: Typical(slowdown=_LLAMA_CPP, slowdown_sd=0.7, process_sd_mib=30.0),
}


def typical_of(engine: str) -> Typical:
    """Typical values of an engine."""
    return _TYPICAL.get(engine, _UNKNOWN)


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
