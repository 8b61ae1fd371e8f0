"""Which backend, in which configuration: the selection's answer in the guide's words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autotune.domain.errors import AutotuneError, ConfigError, NothingFitsError, UserError
from autotune.domain.prediction import Evidence, Hardware, Recommendation, Target
from autotune.domain.units import human_bytes, human_rate, human_seconds
from autotune.domain.workload import Workload
from autotune.integration.configs import BackendConfig
from autotune.integration.engines import not_installed
from autotune.integration.expectations import expected_performance
from autotune.integration.knowledge import Knowledge, for_engine
from autotune.integration.settings import backend_config
from autotune.measure.engine import Engine
from autotune.recommend.selection import Offer, select_backend
from autotune.recommend.subject import Subject
from autotune.tune.backends import refusal_of
from autotune.tune.framing import Wishes, question_about

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
    """Probability, 0 to 1, that the backend is within 5 % of the fastest one and the configuration
    within 5 % of the backend's best: the smaller of the two."""
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
    """Of the first one, see ``confidence_score``."""


def compare_backends(
    knowledge: Knowledge,
    subject: Subject,
    engines: Mapping[str, Engine | str],
    wish: Wish,
    *,
    available_bytes: int,
    priorities: Mapping[str, int],
    environ: Mapping[str, str],
) -> Comparison:
    """Every named backend asked: see :mod:`autotune.recommend.selection`.

    Raises UserError, with what to install, where none can be used.
    """
    wishes = Wishes(
        workload=wish.workload, target=wish.target, hardware=_possible(wish.hardware, engines)
    )
    offers = [
        _offer(knowledge, subject, name, engine, wishes, environ=environ)
        if isinstance(engine, Engine)
        else Offer(backend=name, problem=not_installed(name, engine))
        for name, engine in engines.items()
    ]
    offers = [dataclasses.replace(offer, available_bytes=available_bytes) for offer in offers]
    try:
        selection = select_backend(
            offers,
            knowledge.histories(subject),
            target=wish.target,
            quality=knowledge.quality_costs(subject),
            priorities=priorities,
        )
    except NothingFitsError as error:
        raise _none_usable(offers, error) from error
    usable = [verdict for verdict in selection.ranking if verdict.recommendation is not None]
    return Comparison(
        usable=(selection.chosen, *(v.recommendation for v in usable[1:] if v.recommendation)),
        unusable={v.name: v.reasons[0] for v in selection.ranking if not v.is_usable},
        confidence=min(usable[0].confidence, selection.chosen.confidence),
    )


def _possible(hardware: Hardware, engines: Mapping[str, Engine | str]) -> Hardware:
    """ "gpu" prefers one where there is one."""
    has_gpu = any(isinstance(engine, Engine) and engine.gpus for engine in engines.values())
    return Hardware.AUTO if hardware is Hardware.GPU and not has_gpu else hardware


def _offer(
    knowledge: Knowledge,
    subject: Subject,
    name: str,
    engine: Engine,
    wishes: Wishes,
    *,
    environ: Mapping[str, str],
) -> Offer:
    """What a backend would be asked to run, or why it cannot."""
    subject = for_engine(subject, engine)
    if refusal := refusal_of(name, subject.model_path, environ):
        return Offer(backend=name, problem=refusal)
    try:
        question = question_about(subject, backend=name, wishes=wishes, environ=environ)
    except (NothingFitsError, ConfigError) as error:
        return Offer(backend=name, problem=str(error))
    return Offer(
        backend=name,
        build=engine.build.label,
        predictor=knowledge.predictor(subject.api),
        cases=question.cases,
    )


def _none_usable(offers: Sequence[Offer], error: NothingFitsError) -> AutotuneError:
    """Where none is installed or knows the model it is what was named that must change."""
    if not all(offer.problem for offer in offers):
        return error
    reasons = "; ".join(f"{offer.backend} is {offer.problem}" for offer in offers)
    return UserError(
        f"none of {', '.join(offer.backend for offer in offers)} can be used here ({reasons}): "
        "install one of them, or name another backend, such as llama-cpp-python "
        "(pip install llama-cpp-python)"
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
