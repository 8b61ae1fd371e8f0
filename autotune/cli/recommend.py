"""``autotune recommend MODEL``: the best configuration by prediction alone; runs nothing."""

from __future__ import annotations

import os

import typer

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
from autotune.domain.config import Config
from autotune.domain.prediction import Hardware, Recommendation, Target
from autotune.predict.life import current_predictor
from autotune.recommend.choose import recommend as choose_recommendation
from autotune.recommend.export.llama_cpp_python import python_line
from autotune.recommend.export.llama_server import server_line
from autotune.recommend.subject import Subject
from autotune.tune.framing import Wishes, frame_question
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
    with open_store(db) as store:
        question = frame_question(
            model, store, backend=DEFAULT_BACKEND, wishes=wishes, environ=os.environ
        )
        predictor = current_predictor(store, question.subject.api)
        costs = store.quality_costs(question.subject.model.model_id)
        if pareto:
            print_front(question, predictor, costs, as_json=as_json)
            return
        recommendation = choose_recommendation(
            predictor,
            question.cases,
            target=target,
            default=question.study.default,
            available_bytes=question.available_bytes,
            limits=question.limits,
            quality=costs,
        )
        store.record_recommendation(
            recommendation,
            machine_id=question.subject.machine_id,
            model_id=question.subject.model.model_id,
            cached=predictor.cached,
        )
    if as_json:
        print_json(recommendation_json(recommendation, model))
    else:
        _print(recommendation, question)


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
        f"evidence: {prediction.evidence.value}; within 5 % of the best with "
        f"{recommendation.confidence:.0%}; succeeds with {prediction.p_success:.0%}",
        style="dim",
        soft_wrap=True,
    )
    print_lines(question.subject, recommendation.config)


def print_lines(subject: Subject, config: Config) -> None:
    """The lines to paste, unwrapped."""
    model, slides = subject.model_path, subject.model.slides
    console.print("\nllama-server:", style="bold")
    console.print(server_line(model, config, slides=slides), soft_wrap=True, markup=False)
    console.print("llama-cpp-python:", style="bold")
    console.print(python_line(model, config), soft_wrap=True, markup=False)
