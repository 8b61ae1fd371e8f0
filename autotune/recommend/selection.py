"""The choice among backends: each one's best configuration, held against the others.

Feasible is what is installed, knows the model, fits and is likely to succeed. Of those the least

    score = (request + load / REQUESTS_PER_LOAD) / reliability

wins, in seconds, where request and load are 95 % quantiles. The quantile keeps optimism from
winning: a backend that never ran here has wide intervals, one that was measured narrow ones, and
the first has to be faster at its worst than the other at its. Whoever may be faster all the same is
named, with the run that settles it. Reliability divides because a failed attempt is repeated: 1 / p
of them are needed on average. Scores within the noise are equal; then the smaller memory decides,
then the application's priorities, then the guide's order of backends.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from autotune.domain.errors import NothingFitsError
from autotune.domain.limits import Limits
from autotune.domain.prediction import Prediction, Recommendation, Target
from autotune.domain.quality import QualityCost
from autotune.features.case import Case
from autotune.predict.predictor import Predictor
from autotune.recommend.backend_history import BackendHistory
from autotune.recommend.backend_reasons import MEMORY_TIE_RATIO, described, why_behind
from autotune.recommend.choose import TIE_RATIO, recommend

REQUESTS_PER_LOAD = 20
"""Requests that one load serves, as a conversation of twenty turns: a backend that loads a second
slower has to be 50 ms faster at each."""
PRIORITY = ("ctransformers", "transformers", "llamafile", "llama-cpp-python")
"""The guide's order; others come after. It decides nothing but ties."""
MIN_RELIABILITY = 0.4
"""A backend that failed in both of its two runs is no choice any more."""
_WITHIN_RATIO = 0.05
_DRAWS = 2000
_Z = 1.645
_NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A backend that may be chosen, with what it would be asked to run."""

    backend: str
    problem: str = ""
    """Why it cannot be used whatever is known of it, with the cure; empty where it can."""
    build: str = ""
    """The installed build, as runs carry it; empty where nobody asked."""
    predictor: Predictor | None = None
    cases: tuple[Case, ...] = ()
    """Its candidates; the first is its default."""
    available_bytes: int = 0
    limits: Limits = _NO_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendVerdict:
    """What speaks for and against one backend."""

    name: str
    is_usable: bool
    reasons: tuple[str, ...]
    """One line each, with numbers; of an unusable one why it is."""
    is_final: bool = True
    """Whether no run could change that it is unusable: False for a mere presumption."""
    confidence: float = 0.0
    """Probability that it is within 5 % of the fastest usable backend."""
    recommendation: Recommendation | None = None
    """Its own best configuration; None for an unusable one."""
    reliability: float = 0.0
    """Probability that a load and a request succeed."""
    n_runs: int = 0
    """Its runs of this model on this machine."""
    n_failed: int = 0

    @property
    def time_s(self) -> float:
        """Median seconds of a request with its share of a load; infinite for an unusable one."""
        return _time_s(self.recommendation.prediction) if self.recommendation else math.inf

    @property
    def score_s(self) -> float:
        """What is compared, see above; infinite for an unusable one."""
        if self.recommendation is None:
            return math.inf
        return _slow_s(self.recommendation.prediction) / self.reliability

    @property
    def peak_bytes(self) -> float:
        """Median peak memory; infinite for an unusable one."""
        best = self.recommendation
        return best.prediction.peak_memory_bytes.q50 if best else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSelection:
    """The backend to use, and how all of them stand."""

    chosen: Recommendation
    """The chosen backend's best configuration; where there was a choice its reasons begin with
    those for the backend."""
    ranking: tuple[BackendVerdict, ...]
    """The chosen one first, the unusable ones last."""


def select_backend(
    offers: Sequence[Offer],
    history: Mapping[str, BackendHistory],
    *,
    target: Target,
    quality: Mapping[tuple[str, str], QualityCost] = MappingProxyType({}),
    priorities: Mapping[str, int] = MappingProxyType({}),
    seed: int = 0,
) -> BackendSelection:
    """Choose among backends for one model, machine and workload.

    ``history`` is what each did with this model here
    (:func:`autotune.recommend.backend_history.read_history`); ``priorities`` decide between those
    that tie, the lower goes first, 0 where none is named.

    Raises NothingFitsError where none can be used: one line with each one's reason.
    """
    verdicts = [
        judge(offer, history.get(offer.backend, BackendHistory()), target=target, quality=quality)
        for offer in offers
    ]
    usable = [verdict for verdict in verdicts if verdict.is_usable]
    if not usable:
        told = "; ".join(f"{v.name}: {v.reasons[0]}" for v in verdicts) or "none was offered"
        raise NothingFitsError(told if len(offers) == 1 else f"no backend can be used: {told}")
    best, *others = _ranked(_with_confidence(usable, seed=seed), priorities)
    assert best.recommendation is not None, "a usable backend has one"
    chosen = best.recommendation
    if len(offers) > 1:
        only = () if others else (f"{best.name}: the only backend that can be used here",)
        best = dataclasses.replace(best, reasons=(*best.reasons, *only))
        chosen = dataclasses.replace(chosen, reasons=(*best.reasons, *chosen.reasons))
    unusable = (verdict for verdict in verdicts if not verdict.is_usable)
    ranking = (best, *(_behind(other, best) for other in others), *unusable)
    return BackendSelection(chosen=chosen, ranking=ranking)


def judge(
    offer: Offer,
    history: BackendHistory,
    *,
    target: Target,
    quality: Mapping[tuple[str, str], QualityCost] = MappingProxyType({}),
) -> BackendVerdict:
    """One backend for itself: usable with its best configuration, or not, and why."""
    verdict = BackendVerdict(
        name=offer.backend,
        is_usable=False,
        reasons=(),
        n_runs=history.n_runs,
        n_failed=history.n_failed,
    )
    problem, is_final = _obstacle(offer, history)
    if problem:
        return dataclasses.replace(verdict, is_final=is_final, reasons=(problem,))
    assert offer.predictor is not None, "an offer without a problem can be judged"
    try:
        best = recommend(
            offer.predictor,
            offer.cases,
            target=target,
            default=offer.cases[0].config,
            available_bytes=offer.available_bytes,
            limits=offer.limits,
            quality=quality,
        )
    except NothingFitsError as error:
        return dataclasses.replace(verdict, reasons=(str(error),))
    return dataclasses.replace(
        verdict,
        is_usable=True,
        reasons=described(best, history),
        recommendation=best,
        reliability=min(best.prediction.p_success, history.reliability(offer.build)),
    )


def _obstacle(offer: Offer, history: BackendHistory) -> tuple[str, bool]:
    """(why the backend is no choice, whether that is final); nothing where it is one."""
    if offer.problem:
        return offer.problem, True
    if (refusal := history.refused_by(offer.build)) is not None:
        return f"does not know this model (run {refusal.run_id}): {history.last_words}", True
    if history.reliability(offer.build) < MIN_RELIABILITY:
        failed = f"{history.n_failed} of {history.n_runs} runs of this model failed"
        return f"{failed}, the last one: {history.last_words}", True
    assert offer.predictor is not None, "an offer without a problem can be judged"
    if not history.n_runs and offer.predictor.refuses_kin(offer.cases[0]):
        architecture = offer.cases[0].model.architecture
        return f"did not know another model of the architecture {architecture}", False
    return "", True


def _ranked(
    usable: Sequence[BackendVerdict], priorities: Mapping[str, int]
) -> list[BackendVerdict]:
    """The best first: whoever ties with the best of those that are left competes by memory."""
    left, ranked = list(usable), []
    while left:
        tied = _least(left, lambda verdict: verdict.score_s, TIE_RATIO)
        smallest = _least(tied, lambda verdict: verdict.peak_bytes, MEMORY_TIE_RATIO)
        best = min(smallest, key=lambda v: (priorities.get(v.name, 0), priority(v.name)))
        ranked.append(best)
        left.remove(best)
    return ranked


def _least(
    verdicts: Sequence[BackendVerdict], value: Callable[[BackendVerdict], float], tie_ratio: float
) -> list[BackendVerdict]:
    """Those within ``tie_ratio`` of the least value."""
    limit = min(map(value, verdicts)) * (1 + tie_ratio)
    return [verdict for verdict in verdicts if value(verdict) <= limit]


def priority(name: str) -> tuple[int, str]:
    """A backend's place in the guide's order, to sort by: the last tie-break."""
    return (PRIORITY.index(name) if name in PRIORITY else len(PRIORITY)), name


def _behind(other: BackendVerdict, best: BackendVerdict) -> BackendVerdict:
    assert other.recommendation is not None, "ranked backends have one"
    assert best.recommendation is not None, "ranked backends have one"
    line = why_behind(
        other.recommendation,
        best.recommendation,
        ratio=other.score_s / best.score_s,
        may_be_faster=other.time_s < best.time_s,
    )
    return dataclasses.replace(other, reasons=(*other.reasons, *line))


def _with_confidence(usable: Sequence[BackendVerdict], *, seed: int) -> list[BackendVerdict]:
    """Each with its probability to be within 5 % of the fastest, drawn from the beliefs."""
    mean = np.log([verdict.time_s / verdict.reliability for verdict in usable])
    sd = np.log([verdict.score_s for verdict in usable]) - mean
    rng = np.random.default_rng(seed)
    draws = rng.normal(mean, np.maximum(sd, 0.0) / _Z, (_DRAWS, len(usable)))
    near = draws <= draws.min(axis=1, keepdims=True) + np.log1p(_WITHIN_RATIO)
    return [
        dataclasses.replace(verdict, confidence=float(share))
        for verdict, share in zip(usable, near.mean(axis=0), strict=True)
    ]


def _time_s(prediction: Prediction) -> float:
    return prediction.request_s + prediction.load_s.q50 / REQUESTS_PER_LOAD


def _slow_s(prediction: Prediction) -> float:
    """The 95 % quantile of the same: both phases err together."""
    work = prediction.workload
    request = work.n_prompt / prediction.prefill_tps.q05 + work.n_gen / prediction.decode_tps.q05
    return request + prediction.load_s.q95 / REQUESTS_PER_LOAD
