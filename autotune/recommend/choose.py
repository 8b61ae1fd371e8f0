"""The choice: the fastest feasible candidate, what it rests on, and what else there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from autotune.domain.config import Config
from autotune.domain.errors import NothingFitsError
from autotune.domain.limits import Limits
from autotune.domain.prediction import (
    Alternative,
    Evidence,
    Prediction,
    Recommendation,
    Target,
)
from autotune.domain.quality import QualityCost
from autotune.domain.units import human_bytes, human_rate
from autotune.features.case import Array, Case
from autotune.predict.forecast import Forecast
from autotune.predict.predictor import Predictor
from autotune.recommend.remedies import nothing_fits, sure_peak_bytes

MEMORY_RESERVE_RATIO = 0.10
"""Share of the available memory that is never planned with."""
TIE_RATIO = 0.02
"""Request times this close are equal: below the noise between processes."""
_UNLIMITED = Limits()
_MIN_P_SUCCESS = 0.5
_WITHIN_RATIO = 0.05
_MEMORY_WORTH_RATIO = 0.01
"""Memory differences below this share are not worth a word."""
_DRAWS = 400
_MAX_RELATIVE_SD = 0.05
"""Candidates of one model share most of their error; this much of it is their own. On 89 public
tables of unseen models it makes the confidence true: 65 % claimed, 67 % within 5 % of the best."""
BASIS = {
    Evidence.MEASURED: "measured",
    Evidence.CALIBRATED: "predicted from runs of this model",
    Evidence.TRANSFERRED: "predicted from runs of other models",
    Evidence.PHYSICS: "predicted from physics alone",
}
"""What each kind of evidence is called in a reason."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """A forecast with what may be chosen from it."""

    forecast: Forecast
    feasible: Array
    """1 where memory and reliability allow the configuration; shape (n_cases,)."""

    @property
    def request_s(self) -> Array:
        """Median request seconds, infinite where infeasible; shape (n_cases,)."""
        return np.where(self.feasible > 0, np.exp(self.forecast.request().mean), np.inf)


def survey(
    predictor: Predictor,
    cases: Sequence[Case],
    *,
    available_bytes: int,
    limits: Limits = _UNLIMITED,
    may_be_none: bool = False,
) -> Candidates:
    """Forecast every candidate and mark the feasible ones.

    Raises NothingFitsError, with what would fit, where there is none, unless there ``may_be_none``.

    More threads than this process may use are never feasible, not even the newcomer's default:
    under a quota they wait for each other (45 times slower in one report).
    """
    usable = int(available_bytes * (1 - MEMORY_RESERVE_RATIO))
    forecast = predictor.forecast(cases, available_bytes=usable)
    runs = forecast.p_success >= _MIN_P_SUCCESS
    allowed = [_threads(case.config) <= case.machine.n_processors for case in cases]
    kept = runs & allowed & _within(forecast, limits)
    if not kept.any() and not may_be_none:
        raise NothingFitsError(
            nothing_fits(predictor, forecast, usable_bytes=usable, limits=limits)
        )
    return Candidates(forecast, kept.astype(float))


def _within(forecast: Forecast, limits: Limits) -> npt.NDArray[np.bool_]:
    """Whether each case keeps the limits; shape (n_cases,)."""
    kept = np.ones(len(forecast.cases), dtype=bool)
    if limits.memory_bytes is not None:
        kept &= sure_peak_bytes(forecast) <= limits.memory_bytes
    if limits.ttft_s is not None:
        kept &= np.exp(forecast.ttft.mean) <= limits.ttft_s
    return kept


def _threads(config: Config) -> int:
    return max(config.n_threads, config.n_threads_batch)


def choose(candidates: Candidates, *, default: Config, tie_ratio: float = TIE_RATIO) -> int:
    """Index of the best candidate.

    Within the tie band of the fastest, the one nearest to the default and with the least memory
    wins.
    """
    request_s = candidates.request_s
    tied = np.flatnonzero(request_s <= request_s.min() * (1 + tie_ratio))
    forecast = candidates.forecast
    return int(
        min(
            tied,
            key=lambda i: (
                len(forecast.cases[i].config.differences(default)),
                forecast.peak_bytes[i],
                request_s[i],
            ),
        )
    )


def recommend(
    predictor: Predictor,
    cases: Sequence[Case],
    *,
    target: Target,
    default: Config,
    available_bytes: int,
    limits: Limits = _UNLIMITED,
    quality: Mapping[tuple[str, str], QualityCost] = MappingProxyType({}),
    chosen: int | None = None,
    seed: int = 0,
) -> Recommendation:
    """The best candidate by prediction alone, or the ``chosen`` one, explained.

    ``quality`` is what each pair of cache types was found to cost this model.

    Raises NothingFitsError when no candidate is feasible.
    """
    candidates = survey(
        predictor,
        cases,
        available_bytes=available_bytes,
        limits=limits,
        may_be_none=chosen is not None,
    )
    best = choose(candidates, default=default) if chosen is None else chosen
    # What was chosen by running it can run, whatever its crashes make one expect.
    candidates.feasible[best] = 1.0
    case = candidates.forecast.cases[best]
    return Recommendation(
        backend=case.backend,
        target=target,
        workload=case.workload,
        prediction=candidates.forecast.prediction(best),
        confidence=confidence(candidates, best, seed=seed),
        reasons=(*explain(predictor, case, default), *_quality_lost(case.config, quality)),
        alternatives=_alternatives(candidates, best),
    )


def confidence(candidates: Candidates, best: int, *, seed: int = 0) -> float:
    """Probability that the choice is within 5 % of the best, by drawing from the beliefs."""
    feasible = np.flatnonzero(candidates.feasible)
    belief = candidates.forecast.request()
    sd = np.minimum(belief.sd[feasible], _MAX_RELATIVE_SD)
    draws = np.random.default_rng(seed).normal(belief.mean[feasible], sd, (_DRAWS, len(feasible)))
    ours = draws[:, np.searchsorted(feasible, best)]
    return float(np.mean(ours <= draws.min(axis=1) + np.log1p(_WITHIN_RATIO)))


def explain(predictor: Predictor, case: Case, default: Config) -> tuple[str, ...]:
    """One reason for each knob that differs from the default: what undoing it would cost."""
    changes = {
        knob: pair
        for knob, pair in case.config.differences(default).items()
        if knob != "n_batch"  # follows n_ubatch
    }
    if not changes:
        return ("the newcomer's default is already the best candidate",)
    undone = [
        dataclasses.replace(case, config=_undo(case.config, knob, value))
        for knob, (_, value) in changes.items()
    ]
    forecast = predictor.forecast([case, *undone])
    return tuple(
        f"{knob}={ours} instead of {theirs}: {_effect(forecast, i)}"
        for i, (knob, (ours, theirs)) in enumerate(changes.items(), start=1)
    )


def _quality_lost(
    config: Config, quality: Mapping[tuple[str, str], QualityCost]
) -> tuple[str, ...]:
    """What a lossy cache costs; nothing to say of a lossless one."""
    if not config.is_lossy:
        return ()
    cost = quality.get((config.type_k, config.type_v))
    if cost is None:
        return ("what the quantised cache costs in quality is not known: autotune quality MODEL",)
    return (
        f"the quantised cache costs {cost.kl_mean:.4f} nats per token; the likeliest word stays "
        f"the same {cost.top1_agreement:.1%} of the time",
    )


def _effect(forecast: Forecast, index: int) -> str:
    """What case 0 gains over the case at ``index``, and where that is known from."""
    seconds = np.exp(forecast.request().mean)
    factor = seconds[index] / seconds[0]
    saved = forecast.peak_bytes[index] - forecast.peak_bytes[0]
    effect = f"{factor:.2f}× the speed"
    if abs(factor - 1) < TIE_RATIO and abs(saved) > _MEMORY_WORTH_RATIO * forecast.peak_bytes[0]:
        effect = f"{human_bytes(abs(saved))} {'less' if saved > 0 else 'more'} memory"
    weakest = max(forecast.evidence[0], forecast.evidence[index], key=list(Evidence).index)
    return f"{effect}, {BASIS[weakest]}"


def _undo(config: Config, knob: str, value: object) -> Config:
    """The configuration with one knob back at the default, and what cannot be without it."""
    if knob == "flash_attn" and value == "off" and config.is_lossy:
        return config.replace(flash_attn=value, type_k="f16", type_v="f16")
    if knob != "n_ubatch":
        return config.replace(**{knob: value})
    n_ubatch = int(str(value))
    return config.replace(n_ubatch=n_ubatch, n_batch=max(config.n_batch, n_ubatch))


def _alternatives(candidates: Candidates, best: int) -> tuple[Alternative, ...]:
    """Of the feasible candidates with the least memory, and of those that load in the least time,
    the fastest, where it trades something.
    """
    forecast, feasible = candidates.forecast, candidates.feasible > 0
    chosen = forecast.prediction(best)
    seconds = forecast.request().mean
    found = {}
    for size in (forecast.peak_bytes, np.exp(forecast.load.mean)):
        least = feasible & (size <= size[feasible].min() * (1 + TIE_RATIO))
        index = int(np.argmin(np.where(least, seconds, np.inf)))
        prediction = forecast.prediction(index)
        if index != best and (trade := _trade(prediction, chosen)):
            found[index] = Alternative(prediction=prediction, trade=trade)
    return tuple(found.values())


def _trade(other: Prediction, chosen: Prediction) -> str:
    """What the other one gives and takes, where it gives at least 5 %; else nothing."""
    memory = other.peak_memory_bytes.q50 / chosen.peak_memory_bytes.q50
    load = other.load_s.q50 / chosen.load_s.q50
    request = f"a request takes {other.request_s / chosen.request_s:.2f}× the time"
    rate = f"decode {human_rate(other.decode_tps.q50)}, {request}"
    if memory < 1 - _WITHIN_RATIO:
        return f"{1 - memory:.0%} less memory; {rate}"
    if load < 1 - _WITHIN_RATIO:
        return f"loads in {load:.2f}× the time; {rate}"
    return ""
