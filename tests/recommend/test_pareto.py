"""The front in time, memory and quality."""

from __future__ import annotations

import numpy as np

from autotune.domain.prediction import Hardware
from autotune.predict.predictor import Predictor
from autotune.recommend.candidates import search_space
from autotune.recommend.choose import Candidates, survey
from autotune.recommend.pareto import front, quality_costs
from tests.simulation import DEFAULT, MACHINE, SMALL, WORKLOAD, make_subject

LOSSY = ("q8_0", "q4_0")
QUALITY = {("q8_0", "q8_0"): 0.001, ("q4_0", "q4_0"): 0.02}


def candidates() -> Candidates:
    """With lossy caches among them."""
    space = search_space(
        SMALL, MACHINE, default=DEFAULT, workload=WORKLOAD, hardware=Hardware.CPU, lossy=LOSSY
    )
    cases = make_subject().cases("simulated", space.configs(), WORKLOAD)
    return survey(Predictor().fit([]), cases, available_bytes=8 * 1024**3)


def test_nothing_on_the_front_is_beaten_in_everything() -> None:
    """By brute force over all candidates, within the noise."""
    found = candidates()
    kept = front(found, QUALITY)
    costs = np.column_stack([
        np.log(found.request_s), np.log(found.forecast.peak_bytes), quality_costs(found, QUALITY),
    ])  # fmt: skip
    for index in kept:
        better = np.all(costs <= costs[index], axis=1) & np.any(
            costs < costs[index] - 0.021, axis=1
        )
        assert not better.any()


def test_the_front_trades_quality_for_memory() -> None:
    """Fastest first; a lossy cache is there for its memory, and never for nothing."""
    found = candidates()
    kept = front(found, QUALITY)
    configs = [found.forecast.cases[i].config for i in kept]
    memory = found.forecast.peak_bytes[kept]

    assert np.all(np.diff(found.request_s[kept]) >= -1e-9)
    assert {c.type_k for c in configs} >= {"f16", "q8_0"}
    lossless = min(m for m, c in zip(memory, configs, strict=True) if not c.is_lossy)
    lossy = min(m for m, c in zip(memory, configs, strict=True) if c.is_lossy)
    assert lossy < lossless


def test_what_was_not_measured_is_worth_less_than_what_was() -> None:
    """Its cost is infinite."""
    costs = quality_costs(candidates(), {("q8_0", "q8_0"): 0.001})

    assert set(costs) == {0.0, 0.001, np.inf}
