"""``autotune tune MODEL``: measure, learn, choose, prove."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.status import Status

from autotune.backends.registry import BUILT_IN, backend_names, get_backend
from autotune.cli.baseline import ProgramOption
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
from autotune.cli.recommend import print_lines
from autotune.domain.config import Config
from autotune.domain.prediction import Hardware, Target
from autotune.domain.run import Measurement, Run, Spread
from autotune.domain.units import human_bytes, human_rate, human_seconds, parse_seconds
from autotune.facts.pagecache import residency
from autotune.measure.engine import ask_engine
from autotune.measure.llama_bench import NAME as LLAMA_BENCH
from autotune.measure.llama_bench import LlamaBenchRunner, find_llama_bench
from autotune.measure.runner import LocalRunner, Runner
from autotune.store.store import Store
from autotune.tune.framing import Wishes, frame_question
from autotune.tune.loop import tune as carry_out
from autotune.tune.past import Trials, past_answer, stopped_trials
from autotune.tune.question import Answer, Progress, Question
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
    str,
    typer.Option("--runner", help=f"What measures: {', '.join(BUILT_IN)} or {LLAMA_BENCH}."),
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
    runner: RunnerOption = DEFAULT_BACKEND,
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
    measurer, engine = _runner(runner, llama_bench), ask_engine(backend_of(runner))
    with open_store(db) as store:
        question = frame_question(
            model,
            store,
            backend=backend_of(runner),
            wishes=wishes,
            environ=os.environ,
            engine_gpus=engine.gpus,
            measured_by=measurer.backend,
        )
        build = engine.build.label if measurer.backend == backend_of(runner) else None
        answer = None if fresh else past_answer(question, store, build=build, now=utc_now)
        past = None if fresh or answer else stopped_trials(question, store)
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
        display = _Display(status, question.study.default)
        try:
            return carry_out(
                question,
                runner=runner,
                store=store,
                notify=display.show,
                strategy=strategy,
                past=past,
            )
        except KeyboardInterrupt:
            messages.print(
                "stopped; what was measured is kept: the same command goes on from there"
            )
            raise typer.Exit(130) from None


def backend_of(runner: str) -> str:
    """The backend whose default is what a newcomer to a runner gets."""
    return runner if runner in backend_names() else DEFAULT_BACKEND


def _runner(name: str, program: str | None) -> Runner:
    """The runner of ``--runner``. Raises UserError for an unknown one."""
    if name == LLAMA_BENCH:
        return LlamaBenchRunner(find_llama_bench(program, os.environ))
    return LocalRunner(get_backend(name, os.environ).name, residency=residency)


class _Display:
    """The live line: trial, configuration, elapsed, best so far, time left."""

    def __init__(self, status: Status, default: Config) -> None:
        self._status, self._default = status, default
        self._shown = 0

    def show(self, progress: Progress) -> None:
        """Update the live line; where nobody watches, print one line a trial."""
        changes = changes_text(progress.config, self._default)
        text = (
            f"trial {progress.trial}/{progress.max_trials} [bold]{changes}[/] {progress.doing} · "
            f"{human_seconds(progress.elapsed_s)}, {human_seconds(progress.left_s)} left"
            f"{self._best(progress)}"
        )
        if messages.is_terminal:
            self._status.update(text)
        elif progress.trial != self._shown:
            messages.print(text, soft_wrap=True)
        self._shown = progress.trial

    def _best(self, progress: Progress) -> str:
        best, default = _request_s(progress.best), _request_s(progress.default)
        return f" · best {default / best:.2f}× default" if best and default else ""


def _request_s(run: Run | None) -> float | None:
    return run.measurement.request_s.median if run and run.measurement else None


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
    if answer.is_default:
        console.print("[bold]The default is the answer: nothing beat it beyond noise.[/]")
    console.print(f"winner: [bold]{changes_text(answer.winner.config, default)}[/]", soft_wrap=True)
    console.print(_table(answer))
    pairs = f"{answer.winner.n_runs} fresh runs each, alternating"
    console.print(
        f"{answer.recommendation.workload.label}, {pairs}; {answer.n_trials} trials"
        f"{_when(answer)}; study {answer.study_id}",
        style="dim",
        soft_wrap=True,
    )
    for reason in answer.recommendation.reasons:
        console.print(f"• {reason}", soft_wrap=True)
    print_lines(question.subject, answer.winner.config)


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
