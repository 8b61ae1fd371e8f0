"""The choice among backends in words: what each one's figures are and where they are from."""

from __future__ import annotations

from autotune.domain.prediction import Evidence, Interval, Prediction, Recommendation
from autotune.domain.units import human_bytes, human_rate, human_seconds
from autotune.recommend.backend_history import BackendHistory
from autotune.recommend.choose import BASIS, TIE_RATIO

MEMORY_TIE_RATIO = 0.05
"""Peaks this close are equal: a smaller difference is worth nothing to anybody."""


def described(best: Recommendation, history: BackendHistory) -> tuple[str, ...]:
    """What a backend's best configuration does, and what came of its runs so far."""
    prediction, name = best.prediction, best.backend
    lines = [
        f"{name}: decode {_rate(prediction, prediction.decode_tps)}",
        f"{name}: {prediction.workload.label} in {human_seconds(prediction.request_s)}, load in "
        f"{human_seconds(prediction.load_s.q50)}, peak memory "
        f"{human_bytes(prediction.peak_memory_bytes.q50)}",
    ]
    if history.n_failed:
        failed = f"{history.n_failed} of {history.n_runs} runs of this model failed"
        lines.append(f"{name}: {failed}, the last one: {history.last_words}")
    return tuple(lines)


def _rate(prediction: Prediction, rate: Interval) -> str:
    if prediction.evidence is Evidence.MEASURED:
        times = "once" if prediction.n_runs == 1 else f"{prediction.n_runs} times"
        return f"{human_rate(rate.q50)} measured {times} here"
    low, high = human_rate(rate.q05), human_rate(rate.q95)
    return f"{human_rate(rate.q50)} ({low} – {high}), {BASIS[prediction.evidence]}"


def why_behind(
    other: Recommendation, best: Recommendation, *, ratio: float, may_be_faster: bool
) -> tuple[str, ...]:
    """Why another backend was not chosen, and which run would settle a doubt.

    ``ratio`` is its score over that of the chosen one.
    """
    if ratio <= 1 + TIE_RATIO:
        return (f"{other.backend}: as fast as {best.backend}, {_tie(other, best)}",)
    line = f"{other.backend}: {ratio:.2f}× the time of {best.backend} where both are slow (95 %)"
    if not may_be_faster:
        return (line,)
    return (line, f"{other.backend}: may be the faster one; this settles it: {_run(other)}")


def _tie(other: Recommendation, best: Recommendation) -> str:
    ours, theirs = (r.prediction.peak_memory_bytes.q50 for r in (other, best))
    if ours > theirs * (1 + MEMORY_TIE_RATIO):
        return f"which needs {human_bytes(ours - theirs)} less memory"
    return "which comes first in the order of backends"


def _run(other: Recommendation) -> str:
    label = other.prediction.workload.label
    return f"autotune bench MODEL --backend {other.backend} --workload {label}"
