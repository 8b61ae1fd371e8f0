"""The verdict: is the winner really faster than the default? Decided on fresh runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.domain import stats
from autotune.domain.config import Config
from autotune.domain.run import Measurement, Run, summarise

NOISE_RATIO = 0.02
"""A gain below this is noise, whatever the samples say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A configuration with the summary of its fresh runs."""

    config: Config
    measurement: Measurement
    n_runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Speedup:
    """Winner over default; 1 is no difference, None a phase that the workload lacks."""

    prefill: float | None
    decode: float | None
    request: float


def pool(runs: Sequence[Run]) -> Measured:
    """All repetitions of several fresh runs of one configuration, summarised together."""
    generations = tuple(generation for run in runs for generation in run.generations)
    loads = [run.load for run in runs if run.load is not None]
    peaks = [run.peak_rss_bytes for run in runs if run.peak_rss_bytes is not None]
    middle = sorted(loads, key=lambda load: load.total_s)[len(loads) // 2] if loads else None
    measurement = summarise(middle, max(peaks, default=None), generations)
    assert measurement is not None, "a confirmed run has generations"
    return Measured(config=runs[0].trial.config, measurement=measurement, n_runs=len(runs))


def speedup(winner: Measured, default: Measured) -> Speedup:
    """How much faster, by phase and for the whole request (ratio of medians)."""

    def ratio(name: str) -> float | None:
        ours, theirs = getattr(winner.measurement, name), getattr(default.measurement, name)
        return ours.median / theirs.median if ours and theirs else None

    return Speedup(
        prefill=ratio("prefill_tps"),
        decode=ratio("decode_tps"),
        request=default.measurement.request_s.median / winner.measurement.request_s.median,
    )


def is_faster(winners: Sequence[Run], defaults: Sequence[Run]) -> bool:
    """Whether every interleaved pair says so, and by more than the noise in the middle."""
    pairs = zip(winners, defaults, strict=True)
    gains = [_request_s(default) / _request_s(winner) for winner, default in pairs]
    return min(gains) > 1 and stats.median(gains) > 1 + NOISE_RATIO


def _request_s(run: Run) -> float:
    measurement = run.measurement
    assert measurement is not None, "a confirmed run has a measurement"
    return measurement.request_s.median
