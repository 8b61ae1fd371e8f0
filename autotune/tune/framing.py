"""Framing a question: from a model file and a person's wishes to candidates that can be judged.

Commands and applications ask the same way. A question is about one backend; whoever wants to choose
among backends frames one for each (:mod:`autotune.tune.backends`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.backends.protocol import traits_of
from autotune.backends.registry import get_backend
from autotune.domain.limits import Limits
from autotune.domain.model import ModelFacts
from autotune.domain.prediction import Hardware, Target
from autotune.domain.study import Study
from autotune.domain.workload import Workload
from autotune.facts.gguf import read_model
from autotune.facts.gpu import EngineDevice
from autotune.facts.machine import read_machine, read_state
from autotune.recommend.candidates import choose_n_ctx, demanded, search_space
from autotune.recommend.subject import Subject, register_subject
from autotune.store.store import Store
from autotune.tune.question import Question, question_id

_NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is asked of any backend that may answer."""

    workload: Workload
    target: Target = Target.BALANCED
    hardware: Hardware = Hardware.AUTO
    n_ctx: int | None = None
    """Context window in tokens; None for that of the target."""
    limits: Limits = _NO_LIMITS
    lossy: tuple[str, ...] = ()
    """Quantised cache types that may be the answer."""
    max_trials: int = 0
    time_limit_s: float = 0.0
    seed: int = 0


def frame_question(
    model_path: Path,
    store: Store,
    *,
    backend: str,
    wishes: Wishes,
    environ: Mapping[str, str],
    engine_gpus: Sequence[EngineDevice] | None = None,
    measured_by: str | None = None,
) -> Question:
    """The candidates of one backend for a model on this machine; both are entered into the store.

    ``engine_gpus`` are the GPUs that the backend can use; where it was not asked (None), what an
    engine said the last time counts. ``measured_by`` names a runner that stands in for the backend
    whose default is compared.

    Raises UserError for an unknown backend, for a file that is no model and for a context that is
    too small; NothingFitsError where a GPU is demanded that the backend does not have.
    """
    model, machine = read_model(model_path), read_machine()
    choose_context(model, wishes)
    get_backend(backend, environ)
    subject = register_subject(model_path, model, machine, store, engine_gpus=engine_gpus)
    return question_about(
        subject, backend=backend, wishes=wishes, environ=environ, measured_by=measured_by
    )


def choose_context(model: ModelFacts, wishes: Wishes) -> int:
    """The context window that is asked for, in tokens. Raises UserError for one too small."""
    n_ctx = wishes.n_ctx or choose_n_ctx(wishes.target, model, wishes.workload)
    wishes.workload.require_context(n_ctx)
    return n_ctx


def question_about(
    subject: Subject,
    *,
    backend: str,
    wishes: Wishes,
    environ: Mapping[str, str],
    measured_by: str | None = None,
) -> Question:
    """The candidates of one backend for a subject as that backend sees it; nothing is stored.

    Raises as :func:`frame_question`.
    """
    engine = get_backend(backend, environ)
    n_ctx = choose_context(subject.model, wishes)
    default = engine.default_config(n_ctx=n_ctx, machine=subject.machine)
    held = subject.case(backend, default, wishes.workload).held
    default = demanded(
        default, held, subject.machine, hardware=wishes.hardware, engine=traits_of(engine)
    )
    configs = search_space(
        held,
        subject.machine,
        default=default,
        workload=wishes.workload,
        hardware=wishes.hardware,
        lossy=wishes.lossy,
        engine=traits_of(engine),
    ).configs()
    runner = measured_by or backend
    return Question(
        study=Study(
            backend=runner,
            target=wishes.target,
            hardware=wishes.hardware,
            workload=wishes.workload,
            default=default,
            max_trials=wishes.max_trials,
            time_limit_s=wishes.time_limit_s,
            seed=wishes.seed,
            question_id=question_id(configs, wishes.limits),
        ),
        subject=subject,
        cases=subject.cases(runner, configs, wishes.workload),
        available_bytes=read_state().ram_available_bytes,
        limits=wishes.limits,
    )
