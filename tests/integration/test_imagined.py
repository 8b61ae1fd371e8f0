"""Machines that are not here, and how far what is said of them may be off."""

from __future__ import annotations

import math
from pathlib import Path

from autotune.facts.devices import bandwidth_spread
from autotune.integration.expectations import predicted_performance
from autotune.integration.imagined import imagine
from autotune.integration.optimizer import PerformanceOptimizer
from tests.store.examples import make_prediction


def test_doubt_widens_rates_and_times_and_lowers_confidence() -> None:
    """By exactly what is not known: how far published bandwidths lie apart."""
    plain = predicted_performance(make_prediction())
    doubted = predicted_performance(make_prediction(), doubt_sd=bandwidth_spread())

    for name in ("predicted_tokens_per_second", "predicted_load_time_ms"):
        widths = [p["intervals"][name][1] / p["intervals"][name][0] for p in (plain, doubted)]
        assert widths[1] > math.exp(2 * 1.645 * bandwidth_spread()) > 5 > widths[0]
    assert doubted["confidence"] < plain["confidence"] / 2
    name = "predicted_memory_usage_mb"
    assert doubted["intervals"][name] == plain["intervals"][name]


def test_only_a_gpu_that_nobody_knows_is_in_doubt(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """Fewer cores of this machine are still its cores."""
    subject = optimizer._knowledge.subject(smollm2_path)

    assert imagine(subject, {"gpu_count": 1, "total_vram": 8192}).doubt_sd == bandwidth_spread()
    assert imagine(subject, {"cpu_cores": 1}).doubt_sd == 0
    assert imagine(subject, None).is_here
