"""Predictions in the guide's words: milliseconds, MB (mebibytes), tokens per second."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from autotune.domain.prediction import Interval, Prediction
from autotune.domain.units import MIB

_Z = 1.645
_CLOSE_RATIO = 1.2
Pair = tuple[float, float]


def expected_performance(prediction: Prediction) -> dict[str, float]:
    """What to expect: the median of each figure, ``…_low`` and ``…_high`` its 90 % interval."""
    values = {"estimated_success_rate": prediction.p_success}
    for name, interval in _figures(prediction).items():
        values[f"estimated_{name}"] = interval.q50
        values[f"estimated_{name}_low"] = interval.q05
        values[f"estimated_{name}_high"] = interval.q95
    return values


def predicted_performance(prediction: Prediction) -> dict[str, Any]:
    """The guide's four figures with their confidence and 90 % intervals.

    ``confidence`` is the probability that tokens per second come within 20 %.
    """
    figures = _figures(prediction)
    medians = {f"predicted_{name}": interval.q50 for name, interval in figures.items()}
    intervals: dict[str, Pair] = {
        f"predicted_{name}": (interval.q05, interval.q95) for name, interval in figures.items()
    }
    return {
        **medians,
        "predicted_success_rate": prediction.p_success,
        "confidence": closeness(figures["tokens_per_second"]),
        "intervals": intervals,
        "evidence": prediction.evidence.value,
    }


def closeness(interval: Interval) -> float:
    """Probability that the truth lies within 20 % of the median, by the interval's own width."""
    sd = _sd(interval)
    return math.erf(math.log(_CLOSE_RATIO) / (sd * math.sqrt(2))) if sd else 1.0


def _figures(prediction: Prediction) -> dict[str, Interval]:
    memory = _scaled(prediction.peak_memory_bytes, 1 / MIB)
    return {
        "load_time_ms": _scaled(prediction.load_s, 1000),
        # A GPU's driver is in doubt by more than the rest may be.
        "memory_usage_mb": replace(memory, q05=max(memory.q05, 0.0)),
        "tokens_per_second": prediction.decode_tps,
        "prompt_tokens_per_second": prediction.prefill_tps,
        "first_token_ms": _scaled(prediction.ttft_s, 1000),
    }


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(q05=interval.q05 * factor, q50=interval.q50 * factor, q95=interval.q95 * factor)


def _sd(interval: Interval) -> float:
    """Standard deviation of the natural logarithm."""
    return math.log(interval.width_ratio) / (2 * _Z)
