"""Backends as contenders: each with its question, ready to be chosen from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autotune.backends.protocol import KnowsFiles
from autotune.backends.registry import get_backend
from autotune.domain.errors import NothingFitsError
from autotune.domain.prediction import Target
from autotune.measure.engine import Engine
from autotune.predict.life import current_predictor
from autotune.predict.predictor import Predictor
from autotune.recommend.backend_history import BackendHistory, read_history
from autotune.recommend.selection import BackendSelection, Offer, select_backend
from autotune.store.store import Store
from autotune.tune.framing import Wishes, frame_question
from autotune.tune.question import Question


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A backend that may be chosen."""

    name: str
    problem: str = ""
    """Why it cannot be asked at all, with the cure; empty where it can."""
    build: str = ""
    """The installed build, as runs carry it."""
    question: Question | None = None
    """None where there is a problem."""
    refusal: str = ""
    """What of the model's file the engine does not know, by its header alone. A run would show it,
    and be remembered."""


def frame_contenders(
    model_path: Path,
    store: Store,
    *,
    engines: Mapping[str, Engine | str | None],
    wishes: Wishes,
    environ: Mapping[str, str],
) -> tuple[Contender, ...]:
    """The same question to several backends.

    ``engines`` is what each is, or why it cannot be used
    (:func:`autotune.measure.engine.ask_engines`); None where nobody asked. Raises UserError as
    :func:`autotune.tune.framing.frame_question` does; a demand that one backend cannot meet is its
    problem.
    """
    found = []
    for name, engine in engines.items():
        if isinstance(engine, str):
            found.append(Contender(name=name, problem=engine))
            continue
        build = engine.build.label if engine else ""
        try:
            question = frame_question(
                model_path,
                store,
                backend=name,
                wishes=wishes,
                environ=environ,
                engine_gpus=engine.gpus if engine else None,
            )
        except NothingFitsError as error:
            found.append(Contender(name=name, problem=str(error), build=build))
        else:
            question = name_build(question, store, build=build)
            refusal = refusal_of(name, model_path, environ)
            found.append(Contender(name=name, build=build, question=question, refusal=refusal))
    return tuple(found)


def refusal_of(name: str, model_path: Path, environ: Mapping[str, str]) -> str:
    """Why a backend cannot load a file, by its header alone; empty where nothing speaks for it."""
    backend = get_backend(name, environ)
    problem = backend.why_not(model_path) if isinstance(backend, KnowsFiles) else ""
    return f"cannot load this model: {problem}" if problem else ""


def current_predictors(contenders: Sequence[Contender], store: Store) -> dict[str, Predictor]:
    """The predictor that knows every finished run, for each API that a contender computes with."""
    apis = {c.question.subject.api for c in contenders if c.question is not None}
    return {api: current_predictor(store, api) for api in apis}


def choose_backend(
    contenders: Sequence[Contender],
    store: Store,
    *,
    target: Target,
    predictors: Mapping[str, Predictor] | None = None,
) -> BackendSelection:
    """The best backend by all that the store knows; nothing is run.

    ``predictors`` are :func:`current_predictors`, where somebody has them already. Raises
    NothingFitsError where no backend can be used.
    """
    questions = [c.question for c in contenders if c.question is not None]
    predictors = current_predictors(contenders, store) if predictors is None else predictors
    offers = [
        Offer(backend=contender.name, problem=contender.problem or contender.refusal)
        if contender.question is None or contender.refusal
        else Offer(
            backend=contender.name,
            build=contender.build,
            predictor=predictors[contender.question.subject.api],
            cases=contender.question.cases,
            available_bytes=contender.question.available_bytes,
            limits=contender.question.limits,
        )
        for contender in contenders
    ]
    model_id = questions[0].subject.model.model_id if questions else ""
    return select_backend(
        offers,
        histories(questions[0], store) if questions else {},
        target=target,
        quality=store.quality_costs(model_id),
    )


def require_known(question: Question, store: Store, *, build: str) -> Question:
    """The question, see :func:`name_build`.

    Raises NothingFitsError where this build of its backend said that it does not know the model.
    """
    name = question.study.backend
    history = histories(question, store).get(name, BackendHistory())
    if (refusal := history.refused_by(build)) is not None:
        raise NothingFitsError(
            f"{name} does not know this model (run {refusal.run_id}): {history.last_words}; "
            "--backend auto finds one that does, --fresh asks again"
        )
    return name_build(question, store, build=build)


def name_build(question: Question, store: Store, *, build: str) -> Question:
    """The question; where another build did not know the model, its candidates name this one.

    What is known of the others does not hold for it.
    """
    history = histories(question, store).get(question.study.backend, BackendHistory())
    if history.refused_by("") is None or history.refused_by(build) is not None:
        return question
    cases = tuple(dataclasses.replace(case, build=build) for case in question.cases)
    return dataclasses.replace(question, cases=cases)


def histories(question: Question, store: Store) -> dict[str, BackendHistory]:
    """What each backend did with the question's model on its machine."""
    subject = question.subject
    runs = store.list_runs(model_id=subject.model.model_id, limit=None)
    return read_history(runs, machine_id=subject.machine_id)
