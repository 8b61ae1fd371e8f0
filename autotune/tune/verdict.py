"""The verdict: is the winner really faster than the default? Decided on fresh runs alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.domain import stats
from autotune.domain.config import Config
from autotune.domain.run import Measurement, Run, summarise

NOISE_RATIO = 0.02
"""A gain below this is noise, whatever the samples say."""
SURE_SD = 2.5
"""Standard errors that a gain must lie above nothing."""
USUAL_NOISE_SD = 0.023
"""Between processes of one configuration, measured on public telemetry."""
USUAL_RUNS = 2.0


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


def is_faster(winners: Sequence[Run], defaults: Sequence[Run], *, noise_sd: float) -> bool:
    """Whether interleaved pairs prove it: beyond the noise in the middle, and beyond chance.

    The mean log gain has to lie SURE_SD standard errors above nothing; the error of one pair is
    the spread of the pairs, and never below what ``noise_sd`` (of one run, see
    :func:`process_noise_sd`) makes of two runs.
    """
    gains = log_gains(winners, defaults)
    spread = statistics.stdev(gains) if len(gains) > 2 else 0.0
    error = max(spread, math.sqrt(2) * noise_sd) / math.sqrt(len(gains))
    mean = sum(gains) / len(gains)
    return stats.median(gains) > math.log1p(NOISE_RATIO) and mean > SURE_SD * error


def is_promising(winners: Sequence[Run], defaults: Sequence[Run]) -> bool:
    """Whether the pairs show a gain that more of them may prove."""
    return stats.median(log_gains(winners, defaults)) > math.log1p(NOISE_RATIO)


def log_gains(winners: Sequence[Run], defaults: Sequence[Run]) -> list[float]:
    """Natural log of how much faster the winner was, pair by pair."""
    pairs = zip(winners, defaults, strict=True)
    return [math.log(_request_s(default) / _request_s(winner)) for winner, default in pairs]


def process_noise_sd(runs: Sequence[Run]) -> float:
    """Spread of one configuration between processes, natural log.

    A handful of runs may agree by luck: what is usual counts as USUAL_RUNS of them.
    """
    logs = [math.log(_request_s(run)) for run in runs if run.measurement is not None]
    squares = statistics.variance(logs) * (len(logs) - 1) if len(logs) > 1 else 0.0
    usual = USUAL_RUNS * USUAL_NOISE_SD**2
    return math.sqrt((squares + usual) / (max(len(logs) - 1, 0) + USUAL_RUNS))


def _request_s(run: Run) -> float:
    measurement = run.measurement
    assert measurement is not None, "a confirmed run has a measurement"
    return measurement.request_s.median
