"""Which backend, in which configuration: every usable one asked, the fastest that succeeds taken.

The choice among configurations is :func:`autotune.recommend.choose.recommend`'s; here its answers
for several backends are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.domain.errors import AutotuneError, ConfigError, NothingFitsError, UserError
from autotune.domain.prediction import Evidence, Hardware, Recommendation, Target
from autotune.domain.run import Reason
from autotune.domain.units import human_bytes, human_rate, human_seconds
from autotune.domain.workload import Workload
from autotune.integration.configs import BackendConfig
from autotune.integration.engines import PRIORITY, not_installed
from autotune.integration.expectations import expected_performance
from autotune.integration.knowledge import Knowledge, for_engine
from autotune.integration.settings import backend_config, sensible_config
from autotune.measure.engine import Engine
from autotune.recommend.candidates import choose_n_ctx, search_space
from autotune.recommend.choose import TIE_RATIO, recommend
from autotune.recommend.subject import Subject
from autotune.store.usage import Usage

_HOPELESS = frozenset({Reason.UNSUPPORTED, Reason.LOAD_ERROR})
"""Failures that the next try repeats, whatever the configuration."""
_BASIS = {
    Evidence.MEASURED: "measured here",
    Evidence.CALIBRATED: "predicted from runs of this model here",
    Evidence.TRANSFERRED: "predicted from runs of other models, or on other machines",
    Evidence.PHYSICS: "predicted from physics alone, nothing like it was run yet",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendAlternative:
    """Another backend that would do."""

    name: str
    config: BackendConfig
    request_ratio: float
    """Its request time over that of the recommended one; above 1 it is slower."""
    success_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationRecommendation:
    """A backend and its configuration, why, and how sure that is."""

    recommended_backend: str
    recommended_config: BackendConfig
    expected_performance: dict[str, float]
    """``estimated_load_time_ms``, ``estimated_memory_usage_mb`` (MB = MiB),
    ``estimated_tokens_per_second`` (generated), ``estimated_prompt_tokens_per_second``,
    ``estimated_first_token_ms``, each with ``…_low`` and ``…_high`` of its 90 % interval, and
    ``estimated_success_rate``."""
    confidence_score: float
    """Probability, 0 to 1, that the configuration is within 5 % of the backend's best."""
    reasoning: list[str]
    alternative_backends: list[str]
    """Names of the other usable backends, the best first."""
    alternatives: tuple[BackendAlternative, ...] = ()
    """The same with their configurations."""
    unavailable_backends: Mapping[str, str]
    """Named backends that cannot be used, and why."""
    recommendation: Recommendation
    """The same in this program's own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for."""

    hardware: Hardware
    target: Target
    workload: Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The answers of the usable backends, the best first, and why the others are not."""

    usable: tuple[Recommendation, ...]
    unusable: Mapping[str, str]
    confidence: float
    """Probability that the first one's configuration is within 5 % of the best."""


def compare_backends(
    knowledge: Knowledge,
    subject: Subject,
    engines: Mapping[str, Engine | str],
    wish: Wish,
    *,
    usages: Sequence[Usage],
    available_bytes: int,
    environ: Mapping[str, str],
) -> Comparison:
    """The best configuration of each backend, compared by request time over chance of success.

    Within 2 % the more often used one wins, then the guide's order. Raises UserError, with what to
    install, where none can be used.
    """
    usable, unusable = [], {}
    for name, engine in engines.items():
        problem = _problem(name, engine, usages)
        if problem or isinstance(engine, str):
            unusable[name] = problem
            continue
        try:
            usable.append(
                _best(
                    knowledge,
                    for_engine(subject, engine),
                    name,
                    wish,
                    available_bytes=available_bytes,
                    environ=environ,
                )
            )
        except (NothingFitsError, ConfigError) as error:
            unusable[name] = str(error)
    if not usable:
        raise _none_usable(unusable)
    ranked = _ranked(usable, usages)
    return Comparison(usable=ranked, unusable=unusable, confidence=ranked[0].confidence)


def _problem(name: str, engine: Engine | str, usages: Sequence[Usage]) -> str:
    """Why a backend cannot run this model; empty where nothing speaks against it."""
    if isinstance(engine, str):
        return not_installed(name, engine)
    tried = [u for u in usages if u.backend == name and u.success_ratio is not None]
    if tried and all(u.reason in _HOPELESS and not u.is_reported for u in tried):
        reason = tried[0].reason
        return f"could not load this model here in {len(tried)} of {len(tried)} tries ({reason})"
    return ""


def _best(
    knowledge: Knowledge,
    subject: Subject,
    name: str,
    wish: Wish,
    *,
    available_bytes: int,
    environ: Mapping[str, str],
) -> Recommendation:
    """The best configuration of one backend. Raises NothingFitsError."""
    n_ctx = choose_n_ctx(wish.target, subject.model, wish.workload)
    default = sensible_config(name, subject.machine, n_ctx=n_ctx, environ=environ)
    hardware = wish.hardware
    if hardware is Hardware.GPU and not any(gpu.device for gpu in subject.machine.gpus):
        hardware = Hardware.AUTO  # "gpu" prefers one where there is one
    space = search_space(
        subject.model, subject.machine, default=default, workload=wish.workload, hardware=hardware
    )
    return recommend(
        knowledge.predictor(subject.api),
        subject.cases(name, space.configs(), wish.workload),
        target=wish.target,
        default=default,
        available_bytes=available_bytes,
    )


def _cost_s(recommendation: Recommendation) -> float:
    """Seconds that one answered request takes, failures repeated."""
    prediction = recommendation.prediction
    return prediction.request_s / max(prediction.p_success, 1e-3)


def _ranked(found: Sequence[Recommendation], usages: Sequence[Usage]) -> tuple[Recommendation, ...]:
    fastest_s = min(map(_cost_s, found))

    def key(recommendation: Recommendation) -> tuple[float, int, int]:
        name, cost_s = recommendation.backend, _cost_s(recommendation)
        tied = cost_s <= fastest_s * (1 + TIE_RATIO)
        n_used = sum(usage.backend == name and usage.reason is None for usage in usages)
        place = PRIORITY.index(name) if name in PRIORITY else len(PRIORITY)
        return (fastest_s if tied else cost_s, -n_used, place)

    return tuple(sorted(found, key=key))


def _none_usable(unusable: Mapping[str, str]) -> AutotuneError:
    reasons = "; ".join(f"{name} is {reason}" for name, reason in unusable.items())
    return UserError(
        f"none of {', '.join(unusable)} can be used here ({reasons}): install one of them, or name "
        "another backend, such as llama-cpp-python (pip install llama-cpp-python)"
    )


def advise(comparison: Comparison, subject: Subject, wish: Wish) -> OptimizationRecommendation:
    """The comparison in the guide's words."""
    best, *others = comparison.usable
    return OptimizationRecommendation(
        recommended_backend=best.backend,
        recommended_config=backend_config(best.backend, best.config, subject.model),
        expected_performance=expected_performance(best.prediction),
        confidence_score=comparison.confidence,
        reasoning=_reasoning(comparison, wish, subject),
        alternative_backends=[other.backend for other in others],
        alternatives=tuple(_alternative(other, best, subject) for other in others),
        unavailable_backends=dict(comparison.unusable),
        recommendation=best,
    )


def _alternative(
    other: Recommendation, best: Recommendation, subject: Subject
) -> BackendAlternative:
    return BackendAlternative(
        name=other.backend,
        config=backend_config(other.backend, other.config, subject.model),
        request_ratio=other.prediction.request_s / best.prediction.request_s,
        success_rate=other.prediction.p_success,
    )


def _reasoning(comparison: Comparison, wish: Wish, subject: Subject) -> list[str]:
    best, *others = comparison.usable
    expected = best.prediction
    low, high = expected.decode_tps.q05, expected.decode_tps.q95
    lines = [
        f"{best.backend}: {human_rate(expected.decode_tps.q50)} generated "
        f"({human_rate(low)} to {human_rate(high)} with 90 %), {_BASIS[expected.evidence]}",
        f"loads in {human_seconds(expected.load_s.q50)}, needs at most "
        f"{human_bytes(expected.peak_memory_bytes.q95)}; succeeds with {expected.p_success:.0%}",
        f"context of {best.config.n_ctx} tokens for target {wish.target.value}; "
        f"the model was trained for {subject.model.n_ctx_train}",
        *best.reasons,
    ]
    if wish.hardware is Hardware.GPU and not best.config.n_gpu_layers:
        lines.append("a GPU was preferred; no installed engine can use one here: autotune doctor")
    for other in others:
        ratio = other.prediction.request_s / expected.request_s
        lines.append(f"{other.backend}: a request takes {ratio:.2f}× the time")
    lines.extend(f"{name}: {reason}" for name, reason in comparison.unusable.items())
    return lines
