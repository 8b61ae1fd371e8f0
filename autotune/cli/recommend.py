"""``autotune recommend MODEL``: the best configuration by prediction alone; runs nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import typer

from autotune.cli.backends import (
    AUTO,
    BackendChoiceOption,
    ask_backends,
    print_ranking,
    verdict_json,
)
from autotune.cli.front import ParetoOption, print_front
from autotune.cli.options import (
    DEFAULT_BACKEND,
    DEFAULT_WORKLOAD,
    FRONT_TYPES,
    LOSSY_TYPES,
    ContextOption,
    DbOption,
    HardwareOption,
    JsonOption,
    LatencyOption,
    LossyOption,
    MemoryOption,
    ModelArgument,
    TargetOption,
    WorkloadOption,
    open_store,
    parse_limits,
    parse_workload,
)
from autotune.cli.output import (
    changes_text,
    console,
    prediction_table,
    print_json,
    recommendation_json,
)
from autotune.domain.engine import LLAMA_CPP, engine_of
from autotune.domain.prediction import Hardware, Recommendation, Target
from autotune.facts.machine import machine_id, read_machine
from autotune.measure.engine import Engine
from autotune.recommend.export.llama_cpp_python import python_line
from autotune.recommend.export.llama_server import server_line
from autotune.recommend.subject import Subject
from autotune.store.store import Store
from autotune.tune.backends import (
    Contender,
    choose_backend,
    current_predictors,
    frame_contenders,
)
from autotune.tune.framing import Wishes
from autotune.tune.question import Question


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("recommend", help="The best configuration by prediction alone; runs nothing.")(
        recommend
    )


def recommend(
    model: ModelArgument,
    target: TargetOption = Target.BALANCED,
    hardware: HardwareOption = Hardware.AUTO,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    n_ctx: ContextOption = None,
    max_memory: MemoryOption = None,
    max_ttft: LatencyOption = None,
    lossy: LossyOption = False,
    backend: BackendChoiceOption = None,
    pareto: ParetoOption = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend a configuration from what the store knows."""
    wishes = Wishes(
        workload=parse_workload(workload),
        target=target,
        hardware=hardware,
        n_ctx=n_ctx,
        limits=parse_limits(max_memory, max_ttft),
        lossy=FRONT_TYPES if pareto else LOSSY_TYPES if lossy else (),
    )
    named = ask_backends(backend, model) if backend else None
    with open_store(db) as store:
        engines = named or _newcomers(store)
        contenders = frame_contenders(
            model, store, engines=engines, wishes=wishes, environ=os.environ
        )
        predictors = current_predictors(contenders, store)
        selection = choose_backend(contenders, store, target=target, predictors=predictors)
        recommendation = selection.chosen
        question = _question(contenders, recommendation.backend)
        subject = question.subject
        if pareto:
            costs = store.quality_costs(subject.model.model_id)
            print_front(question, predictors[subject.api], costs, as_json=as_json)
            return
        store.record_recommendation(
            recommendation,
            machine_id=subject.machine_id,
            model_id=subject.model.model_id,
            cached=all(predictor.cached for predictor in predictors.values()),
        )
    if as_json:
        ranking = {"ranking": [verdict_json(verdict) for verdict in selection.ranking]}
        print_json(recommendation_json(recommendation, model) | ranking)
        return
    if backend == AUTO:
        print_ranking(selection.ranking)
    _print(recommendation, question)


def _newcomers(store: Store) -> Mapping[str, Engine | str | None]:
    """The newcomer's backend: asked where there is a GPU that it may or may not use."""
    machine = read_machine()
    known = store.find_machine(machine_id(machine))
    if not machine.gpus and not (known and known.gpus):
        return {DEFAULT_BACKEND: None}
    engine = ask_backends(DEFAULT_BACKEND)[DEFAULT_BACKEND]
    return {DEFAULT_BACKEND: engine if isinstance(engine, Engine) else None}


def _question(contenders: Sequence[Contender], backend: str) -> Question:
    """The question of the chosen backend."""
    return next(c.question for c in contenders if c.name == backend and c.question)


def _print(recommendation: Recommendation, question: Question) -> None:
    prediction, default = recommendation.prediction, question.study.default
    console.print(
        f"[bold]{changes_text(recommendation.config, default)}[/]  "
        f"(n_ctx={recommendation.config.n_ctx}, {recommendation.backend})"
    )
    console.print(prediction_table(prediction))
    for reason in recommendation.reasons:
        console.print(f"• {reason}", soft_wrap=True)
    for alternative in recommendation.alternatives:
        changes = changes_text(alternative.prediction.config, default)
        console.print(f"or {changes}: {alternative.trade}", style="dim", soft_wrap=True)
    console.print(
        f"evidence: {prediction.evidence.value}; probability to be within 5% of the best "
        f"{recommendation.confidence:.0%}, to succeed {prediction.p_success:.0%}",
        style="dim",
        soft_wrap=True,
    )
    print_lines(question.subject, recommendation)


def print_lines(subject: Subject, recommendation: Recommendation) -> None:
    """The lines to paste, unwrapped; none for an engine that is not llama.cpp."""
    if engine_of(recommendation.backend) is not LLAMA_CPP:
        return
    config = recommendation.config
    model, slides = subject.model_path, subject.model.slides
    console.print("\nllama-server:", style="bold")
    console.print(server_line(model, config, slides=slides), soft_wrap=True, markup=False)
    console.print("llama-cpp-python:", style="bold")
    console.print(python_line(model, config), soft_wrap=True, markup=False)
