"""``autotune bench MODEL``: measure one configuration and store it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.backends.registry import get_backend
from autotune.cli.baseline import (
    BaselineOption,
    ProgramOption,
    comparable,
    compare,
    require_baseline,
)
from autotune.cli.options import (
    DEFAULT_BACKEND,
    DEFAULT_WORKLOAD,
    BackendOption,
    DbOption,
    JsonOption,
    ModelArgument,
    SetOption,
    WorkloadOption,
    open_store,
    parse_config,
    parse_workload,
)
from autotune.cli.output import (
    changes_text,
    console,
    expected_json,
    measurement_json,
    messages,
    plain_table,
    print_json,
)
from autotune.domain.config import Config
from autotune.domain.errors import MeasurementError, UserError
from autotune.domain.machine import MachineFacts
from autotune.domain.model import ModelFacts
from autotune.domain.prediction import Interval, Prediction, Target
from autotune.domain.run import Measurement, Purpose, Run, Spread
from autotune.domain.units import counted, human_bytes, human_rate, human_seconds
from autotune.domain.workload import Workload
from autotune.facts.gguf import read_model
from autotune.facts.machine import read_machine, read_state
from autotune.facts.pagecache import evict, residency
from autotune.features.case import Case
from autotune.measure.engine import ask_engine
from autotune.measure.runner import LocalRunner
from autotune.predict.life import current_predictor
from autotune.recommend.candidates import choose_n_ctx
from autotune.recommend.subject import Subject, register_subject
from autotune.store.store import Store
from autotune.tune.recording import RecordedRunner

ColdOption = Annotated[
    bool, typer.Option("--cold", help="Drop the model file from the page cache before the load.")
]
RepsOption = Annotated[int, typer.Option("--reps", min=1, help="Fewest repetitions to measure.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench", help="Measure one configuration and store it.")(bench)


def bench(
    model: ModelArgument,
    changes: SetOption = None,
    workload: WorkloadOption = DEFAULT_WORKLOAD,
    backend: BackendOption = DEFAULT_BACKEND,
    reps: RepsOption = 3,
    cold: ColdOption = False,
    baseline: BaselineOption = None,
    llama_bench: ProgramOption = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure one configuration; knobs that are not set keep the newcomer's default."""
    work = parse_workload(workload)
    program = require_baseline(baseline, llama_bench) if baseline else None
    facts, machine = read_model(model), read_machine()
    default = default_config(facts, machine, work, backend=backend)
    config = parse_config(changes, default)
    work.require_context(config.n_ctx)
    with open_store(db) as store:
        gpus = ask_engine(backend, model).gpus
        subject = register_subject(model, facts, machine, store, engine_gpus=gpus)
        bench = _Bench(subject, backend, store, reps)
        if program:
            bench.compare(comparable(config, slides=facts.slides), work, program, as_json=as_json)
            return
        if cold and not evict(model):
            raise UserError(f"the system keeps {model.name} cached: leave out --cold")
        run_id, run, prediction = bench.measure(config, work)
    if as_json:
        print_json(_document(model, run_id, run, prediction))
    elif run.ok:
        print_run(run_id, run, prediction, default)
    if not run.ok:
        raise MeasurementError(f"run {run_id} failed ({run.reason}): {run.message}")


def default_config(
    model: ModelFacts, machine: MachineFacts, workload: Workload, *, backend: str = DEFAULT_BACKEND
) -> Config:
    """The newcomer's default with the context of a balanced recommendation."""
    n_ctx = choose_n_ctx(Target.BALANCED, model, workload)
    return get_backend(backend, os.environ).default_config(n_ctx=n_ctx, machine=machine)


class _Bench:
    """Measures configurations of one subject."""

    def __init__(self, subject: Subject, backend: str, store: Store, n_reps: int) -> None:
        self._subject, self._backend = subject, backend
        self._store, self._n_reps = store, n_reps
        self._available_bytes = read_state().ram_available_bytes

    def measure(self, config: Config, workload: Workload) -> tuple[int, Run, Prediction]:
        """Predict, measure, record; progress goes to standard error."""
        case, prediction = self._predict(config, workload)
        recorded = RecordedRunner(
            self._subject,
            LocalRunner(case.backend, residency=residency),
            self._store,
            memory_limit_bytes=self._available_bytes,
        )
        with messages.status("starting") as status:
            run_id, run = recorded.run(
                case,
                prediction,
                purpose=Purpose.BENCH,
                n_reps=self._n_reps,
                notify=status.update,
            )
        return run_id, run, prediction

    def compare(self, config: Config, workload: Workload, program: Path, *, as_json: bool) -> None:
        """Measure beside llama-bench and print the ratios."""
        case, prediction = self._predict(config, workload)
        compare(
            self._subject,
            case,
            prediction,
            self._store,
            program=program,
            n_reps=self._n_reps,
            memory_limit_bytes=self._available_bytes,
            as_json=as_json,
        )

    def _predict(self, config: Config, workload: Workload) -> tuple[Case, Prediction]:
        case = self._subject.case(self._backend, config, workload)
        predictor = current_predictor(self._store, self._subject.api)
        forecast = predictor.forecast([case], available_bytes=self._available_bytes)
        return case, forecast.prediction(0)


def _document(model: Path, run_id: int, run: Run, prediction: Prediction) -> dict[str, Any]:
    return {
        "model": str(model),
        "run_id": run_id,
        "backend": run.backend,
        "config": run.trial.config.as_dict(),
        "workload": run.trial.workload.label,
        "ok": run.ok,
        "reason": run.reason,
        "message": run.message,
        "measured": measurement_json(run.measurement),
        "predicted": expected_json(prediction),
        "evidence": prediction.evidence.value,
        "cached_ratio": run.cached_ratio,
        "foreign_cpu_ratio": run.conditions.foreign_cpu_ratio,
    }


def print_run(run_id: int, run: Run, prediction: Prediction, default: Config) -> None:
    """The measurement beside what was predicted before it."""
    measured = run.measurement
    assert measured is not None
    table = plain_table("measured", "median", "range", "predicted before")
    for row in _rows(measured, prediction):
        table.add_row(*row)
    console.print(f"[bold]{changes_text(run.trial.config, default)}[/]")
    console.print(table)
    console.print(
        f"run {run_id}: {run.trial.workload.label}, {counted(measured.request_s.n, 'repetition')}, "
        f"n_ctx={run.trial.config.n_ctx}; decode runs at depth "
        f"{run.trial.workload.n_depth + run.trial.workload.n_prompt}",
        style="dim",
    )


def _rows(measured: Measurement, prediction: Prediction) -> list[tuple[str, str, str, str]]:
    rows = [
        ("load", human_seconds(measured.load_s), "", _shown(prediction.load_s, human_seconds)),
        (
            "peak memory",
            human_bytes(measured.peak_memory_bytes),
            "",
            _shown(prediction.peak_memory_bytes, human_bytes),
        ),
    ]
    for name, spread, interval, human in (
        ("prefill", measured.prefill_tps, prediction.prefill_tps, human_rate),
        ("decode", measured.decode_tps, prediction.decode_tps, human_rate),
        ("first token", measured.ttft_s, prediction.ttft_s, human_seconds),
    ):
        if spread is not None:
            rows.append(
                (name, human(spread.median), _range(spread, human), _shown(interval, human))
            )
    return rows


def _range(spread: Spread, human: Callable[[float | None], str]) -> str:
    return _span(human(spread.low), human(spread.high))


def _shown(interval: Interval, human: Callable[[float | None], str]) -> str:
    return f"{human(interval.q50)} ({_span(human(interval.q05), human(interval.q95))})"


def _span(low: str, high: str) -> str:
    """Both ends; a unit that they share is said once, or the table outgrows a terminal."""
    unit = f" {high.partition(' ')[2]}"
    return f"{low.removesuffix(unit)} – {high}"
