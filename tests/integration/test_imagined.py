"""Machines that are not here, and how far what is said of them may be off."""

from __future__ import annotations

import math
from pathlib import Path

from autotune.facts.devices import bandwidth_spread
from autotune.integration.imagined import imagine
from autotune.integration.optimizer import PerformanceOptimizer


def test_only_a_gpu_that_nobody_knows_is_in_doubt(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """Fewer cores of this machine are still its cores."""
    subject = optimizer._knowledge.subject(smollm2_path)

    widths = []
    for hardware in ({"gpu_count": 1, "total_vram": 8192}, {"cpu_cores": 1}):
        told = optimizer.predict_performance(smollm2_path, "ctransformers", hardware)
        low, high = told["intervals"]["predicted_tokens_per_second"]
        widths.append(math.log(high / low) / (2 * 1.645))

    assert widths[0] > bandwidth_spread() > widths[1]
    assert imagine(subject, None).is_here
