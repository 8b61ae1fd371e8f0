"""What commands print: values as JSON, tables for people."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autotune.domain.config import Config
from autotune.domain.prediction import Evidence, Interval, Prediction, Recommendation
from autotune.domain.run import Measurement, Spread
from autotune.domain.units import human_bytes, human_rate, human_seconds

console = Console(highlight=False)
"""Standard output: results."""
messages = Console(stderr=True, highlight=False)
"""Standard error: progress and remarks, so that ``--json`` stays one document."""


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def plain_table(*headers: str) -> Table:
    """A table without a frame; numbers are right-aligned by the caller."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for index, header in enumerate(headers):
        table.add_column(header, justify="left" if index == 0 else "right", overflow="fold")
    return table


def interval_json(interval: Interval) -> dict[str, float]:
    """An interval by its quantiles."""
    return {"q05": interval.q05, "q50": interval.q50, "q95": interval.q95}


def expected_json(prediction: Prediction) -> dict[str, dict[str, float] | None]:
    """Every predicted quantity with its interval; null for the speed of what is not asked for."""
    prefill, decode = expected_rates(prediction)
    return {
        "load_s": interval_json(prediction.load_s),
        "peak_memory_bytes": interval_json(prediction.peak_memory_bytes),
        "prefill_tps": interval_json(prefill) if prefill else None,
        "decode_tps": interval_json(decode) if decode else None,
        "ttft_s": interval_json(prediction.ttft_s),
    }


def expected_rates(prediction: Prediction) -> tuple[Interval | None, Interval | None]:
    """The speed of prefill and of decode: no prompt is read at no speed, not at an endless one."""
    workload = prediction.workload
    return (
        prediction.prefill_tps if workload.n_prompt else None,
        prediction.decode_tps if workload.n_gen else None,
    )


def median_text(interval: Interval | None, human: Callable[[float | None], str]) -> str:
    """The middle of an interval, ``–`` where there is none."""
    return human(interval.q50 if interval else None)


def interval_text(interval: Interval | None, human: Callable[[float | None], str]) -> str:
    """Both ends of an interval, ``–`` where there is none."""
    return f"{human(interval.q05)} – {human(interval.q95)}" if interval else "–"


def recommendation_json(recommendation: Recommendation, model: Path) -> dict[str, Any]:
    """A recommendation as documented for ``recommend --json``."""
    prediction = recommendation.prediction
    return {
        "model": str(model),
        "backend": recommendation.backend,
        "config": recommendation.config.as_dict(),
        "target": recommendation.target.value,
        "workload": recommendation.workload.label,
        "expected": expected_json(prediction),
        "p_success": prediction.p_success,
        "confidence": recommendation.confidence,
        "evidence": prediction.evidence.value,
        "reasons": list(recommendation.reasons),
        "alternatives": [
            {
                "config": alternative.prediction.config.as_dict(),
                "expected": expected_json(alternative.prediction),
                "trade": alternative.trade,
            }
            for alternative in recommendation.alternatives
        ],
    }


def measurement_json(measurement: Measurement | None) -> dict[str, Any] | None:
    """A measurement: medians, each rate with its range."""
    if measurement is None:
        return None
    return {
        "load_s": measurement.load_s,
        "peak_memory_bytes": measurement.peak_memory_bytes,
        "prefill_tps": _spread_json(measurement.prefill_tps),
        "decode_tps": _spread_json(measurement.decode_tps),
        "ttft_s": _spread_json(measurement.ttft_s),
        "request_s": _spread_json(measurement.request_s),
        "itl_p50_s": measurement.itl_p50_s,
        "itl_p95_s": measurement.itl_p95_s,
    }


def _spread_json(spread: Spread | None) -> dict[str, float] | None:
    if spread is None:
        return None
    return {"median": spread.median, "low": spread.low, "high": spread.high, "n": spread.n}


def changes_text(config: Config, default: Config) -> str:
    """The knobs that differ from the default, as ``--set`` would take them."""
    changes = config.differences(default)
    return " ".join(f"{knob}={_value(ours)}" for knob, (ours, _) in changes.items()) or "default"


def settling_line(model: Path, prediction: Prediction, default: Config) -> str | None:
    """The run that would replace physics by a measurement; None where something was measured."""
    if prediction.evidence is not Evidence.PHYSICS:
        return None
    changes = prediction.config.differences(default).items()
    knobs = "".join(f" --set {knob}={_value(ours)}" for knob, (ours, _) in changes)
    return f"autotune bench {shlex.quote(str(model))} --workload {prediction.workload.label}{knobs}"


def _value(value: object) -> str:
    if isinstance(value, list):
        return "/".join(str(share).removesuffix(".0") for share in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def prediction_table(prediction: Prediction) -> Table:
    """Expected quantities with their 90 % intervals."""
    table = plain_table("expected", "median", "90 % interval")
    prefill, decode = expected_rates(prediction)
    rows: tuple[tuple[str, Interval | None, Callable[[float | None], str]], ...] = (
        ("load", prediction.load_s, human_seconds),
        ("peak memory", prediction.peak_memory_bytes, human_bytes),
        ("prefill", prefill, human_rate),
        ("decode", decode, human_rate),
        ("first token", prediction.ttft_s, human_seconds),
    )
    for name, interval, human in rows:
        table.add_row(name, median_text(interval, human), interval_text(interval, human))
    return table
