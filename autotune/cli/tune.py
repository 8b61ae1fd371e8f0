"""``autotune tune MODEL``: measure, learn, choose, prove."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.backends.registry import backend_names, get_backend
from autotune.cli.backends import AUTO, BackendChoiceOption
from autotune.cli.baseline import ProgramOption
from autotune.cli.contest import tune_auto
from autotune.cli.options import (
    DEFAULT_BACKEND,
    DEFAULT_WORKLOAD,
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
    utc_now,
)
from autotune.cli.output import (
    changes_text,
    console,
    measurement_json,
    messages,
    plain_table,
    print_json,
    recommendation_json,
)
from autotune.cli.progress import StudyDisplay, verdict_line
from autotune.cli.recommend import print_lines
from autotune.domain.errors import UserError
from autotune.domain.prediction import Hardware, Target
from autotune.domain.run import Measurement, Spread
from autotune.domain.units import counted, human_bytes, human_rate, human_seconds, parse_seconds
from autotune.facts.pagecache import residency
from autotune.measure.engine import ask_engine
from autotune.measure.llama_bench import NAME as LLAMA_BENCH
from autotune.measure.llama_bench import LlamaBenchRunner, find_llama_bench
from autotune.measure.runner import LocalRunner, Runner
from autotune.store.store import Store
from autotune.tune.backends import require_known
from autotune.tune.framing import Wishes, frame_question
from autotune.tune.loop import tune as carry_out
from autotune.tune.past import Trials, past_answer, stopped_trials
from autotune.tune.question import Answer, Question
from autotune.tune.strategy import StrategyName
from autotune.tune.verdict import Measured

TrialsOption = Annotated[int, typer.Option("--trials", min=1, help="Most trials to run.")]
TimeOption = Annotated[
    str, typer.Option("--time-limit", metavar="TIME", help="Time to spend, such as 90s or 5m.")
]


StrategyOption = Annotated[
    StrategyName, typer.Option("--strategy", help="How candidates are picked.")
]
FreshOption = Annotated[
    bool, typer.Option("--fresh", help="Measure again, whatever is known from before.")
]
RunnerOption = Annotated[
    str | None,
    typer.Option(
        "--runner",
        metavar=LLAMA_BENCH,
        help=f"Measure with {LLAMA_BENCH}, not with our own procedure.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tune", help="Find the fastest safe configuration by measuring.")(tune)


def tune(
    model: ModelArgument,
    target: TargetOption = Target.BALANCED,
    hardware: HardwareOption = Hardware.AUTO,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    n_ctx: ContextOption = None,
    max_memory: MemoryOption = None,
    max_ttft: LatencyOption = None,
    lossy: LossyOption = False,
    strategy: StrategyOption = StrategyName.MODEL_GUIDED,
    fresh: FreshOption = False,
    trials: TrialsOption = 16,
    time_limit: TimeOption = "5m",
    backend: BackendChoiceOption = DEFAULT_BACKEND,
    runner: RunnerOption = None,
    llama_bench: ProgramOption = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tune a model on this machine and prove the result against the newcomer's default."""
    wishes = Wishes(
        workload=parse_workload(workload),
        target=target,
        hardware=hardware,
        n_ctx=n_ctx,
        limits=parse_limits(max_memory, max_ttft),
        lossy=LOSSY_TYPES if lossy else (),
        max_trials=trials,
        time_limit_s=parse_seconds(time_limit),
    )
    if backend == AUTO:
        if runner is not None:
            raise UserError(f"--runner measures one backend: leave it out, or --backend {AUTO}")
        tune_auto(model, wishes, db, strategy=strategy, fresh=fresh, as_json=as_json)
        return
    name = get_backend(backend or DEFAULT_BACKEND, os.environ).name
    measurer, engine = _runner(name, runner, llama_bench), ask_engine(name, model)
    build = engine.build.label
    with open_store(db) as store:
        question = frame_question(
            model,
            store,
            backend=name,
            wishes=wishes,
            environ=os.environ,
            engine_gpus=engine.gpus,
            measured_by=measurer.backend,
        )
        if not fresh:
            question = require_known(question, store, build=build)
        is_own = measurer.backend == name
        known = build if is_own else None
        answer = None if fresh else past_answer(question, store, build=known, now=utc_now)
        past = None
        if not (fresh or answer):
            past = stopped_trials(question, store, build=known, now=utc_now)
        answer = answer or _search(question, measurer, store, strategy, past)
    if as_json:
        print_json(_document(answer, model))
    else:
        _print(answer, question)


def _search(
    question: Question, runner: Runner, store: Store, strategy: StrategyName, past: Trials | None
) -> Answer:
    """Carry the study out, with a live line."""
    with messages.status("starting") as status:
        display = StudyDisplay(status)
        try:
            return carry_out(
                question,
                runner=runner,
                store=store,
                notify=lambda progress: display.show(progress, question.study.default),
                strategy=strategy,
                past=past,
            )
        except KeyboardInterrupt:
            messages.print(
                "stopped; what was measured is kept: the same command goes on from there"
            )
            raise typer.Exit(130) from None


def _runner(backend: str, runner: str | None, program: str | None) -> Runner:
    """The runner of ``--runner``. Raises UserError for an unknown one."""
    if runner is None:
        return LocalRunner(backend, residency=residency)
    if runner == LLAMA_BENCH:
        return LlamaBenchRunner(find_llama_bench(program, os.environ))
    cure = f"--backend {runner}" if runner in backend_names() else f"--runner {LLAMA_BENCH}"
    raise UserError(f"{runner!r} is no runner: say {cure}")


def _document(answer: Answer, model: Path) -> dict[str, Any]:
    speedup = dataclasses.asdict(answer.speedup) if answer.speedup else None
    return recommendation_json(answer.recommendation, model) | {
        "default": _measured_json(answer.default),
        "winner": _measured_json(answer.winner),
        "is_default": answer.is_default,
        "speedup": speedup,
        "study_id": answer.study_id,
        "trials": answer.n_trials,
        "elapsed_s": answer.elapsed_s,
        "discarded_trials": answer.n_discarded,
        "resumed_trials": answer.n_resumed,
        "measured_at": answer.measured_at.isoformat() if answer.measured_at else None,
    }


def _measured_json(measured: Measured | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    return {
        "config": measured.config.as_dict(),
        "measured": measurement_json(measured.measurement),
        "runs": measured.n_runs,
    }


def _print(answer: Answer, question: Question) -> None:
    default = question.study.default
    if line := verdict_line(answer, question.limits):
        console.print(line, style="bold", soft_wrap=True)
    console.print(f"winner: [bold]{changes_text(answer.winner.config, default)}[/]", soft_wrap=True)
    console.print(_table(answer))
    n_runs = answer.winner.n_runs
    is_alone = answer.is_default or answer.default is None
    pairs = counted(n_runs, "fresh run") if is_alone else f"{n_runs} fresh runs each, alternating"
    console.print(
        f"{answer.recommendation.workload.label}, {pairs}; {counted(answer.n_trials, 'trial')}"
        f"{_when(answer)}; study {answer.study_id}",
        style="dim",
        soft_wrap=True,
    )
    for reason in answer.recommendation.reasons:
        console.print(f"• {reason}", soft_wrap=True)
    print_lines(question.subject, answer.recommendation)


def _when(answer: Answer) -> str:
    """How long it took and what was special, or that it was there already."""
    if answer.measured_at is not None:
        at = answer.measured_at.strftime("%Y-%m-%d %H:%M UTC")
        return f", measured {at}: --fresh measures again"
    special = {
        "from before it was stopped": answer.n_resumed,
        "taken back, because the machine had drifted": answer.n_discarded,
    }
    told = "".join(f", {n} {what}" for what, n in special.items() if n)
    return f" in {human_seconds(answer.elapsed_s)}{told}"


def _table(answer: Answer) -> Any:
    table = plain_table("", "default", "winner", "gain")
    ours, theirs = answer.winner, answer.default
    for name, key, human in _ROWS:
        left = _value(theirs.measurement, key) if theirs else None
        right = _value(ours.measurement, key)
        # A rate gains by growing, a time and a size by shrinking.
        gain = (right / left if key.endswith("_tps") else left / right) if left and right else None
        table.add_row(name, human(left), human(right), f"{gain:.2f}×" if gain else "–")
    return table


_ROWS = (
    ("prefill", "prefill_tps", human_rate),
    ("decode", "decode_tps", human_rate),
    ("first token", "ttft_s", human_seconds),
    ("request", "request_s", human_seconds),
    ("load", "load_s", human_seconds),
    ("peak memory", "peak_memory_bytes", human_bytes),
)


def _value(measurement: Measurement, key: str) -> float | None:
    value = getattr(measurement, key)
    return value.median if isinstance(value, Spread) else value
