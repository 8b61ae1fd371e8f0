"""``autotune bench --baseline llama-bench``: ours beside theirs, interleaved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.cli.output import console, messages, plain_table, print_json
from autotune.domain import stats
from autotune.domain.config import Config
from autotune.domain.errors import MeasurementError, UserError
from autotune.domain.prediction import Prediction
from autotune.domain.run import Purpose, Run
from autotune.domain.units import human_rate
from autotune.features.case import Case
from autotune.measure.llama_bench import NAME, LlamaBenchRunner, find_llama_bench
from autotune.measure.runner import LocalRunner
from autotune.recommend.subject import Subject
from autotune.store.store import Store
from autotune.tune.recording import RecordedRunner

BaselineOption = Annotated[
    str | None,
    typer.Option("--baseline", metavar=NAME, help="Run llama.cpp's llama-bench beside ours."),
]
ProgramOption = Annotated[
    str | None,
    typer.Option("--llama-bench", metavar="FILE", help="The llama-bench program to use."),
]
_PAIRS = 3
_PHASES = ("prefill_tps", "decode_tps")


def require_baseline(baseline: str, program: str | None) -> Path:
    """The llama-bench program of ``--baseline``. Raises UserError for another baseline."""
    if baseline != NAME:
        raise UserError(f"unknown --baseline {baseline!r}: it can be {NAME}")
    return find_llama_bench(program, os.environ)


def comparable(config: Config, *, slides: bool) -> Config:
    """The configuration as llama-bench runs it: never a full-size sliding-window cache."""
    return config.replace(swa_full=False) if slides else config


def compare(
    subject: Subject,
    case: Case,
    prediction: Prediction,
    store: Store,
    *,
    program: Path,
    n_reps: int,
    memory_limit_bytes: int,
    as_json: bool,
) -> None:
    """Measure in pairs, record every run, print the ratios. Raises MeasurementError."""
    ours = RecordedRunner(
        subject,
        LocalRunner(case.backend),
        store,
        memory_limit_bytes=memory_limit_bytes,
    )
    theirs = RecordedRunner(
        subject, LlamaBenchRunner(program), store, memory_limit_bytes=memory_limit_bytes
    )
    pairs = []
    with messages.status("starting") as status:
        for number in range(_PAIRS):
            status.update(f"pair {number + 1} of {_PAIRS}")
            pairs.append(
                tuple(
                    _rates(recorded.run(case, prediction, purpose=Purpose.BENCH, n_reps=n_reps))
                    for recorded in (ours, theirs)
                )
            )
    phases = {name: _phase(name, pairs) for name in _PHASES}
    if as_json:
        print_json({"model": str(subject.model_path), "config": case.config.as_dict(), **phases})
    else:
        _print(phases)


def _rates(recorded: tuple[int, Run]) -> dict[str, float | None]:
    """Median rates of one run. Raises MeasurementError for a failed one."""
    run_id, run = recorded
    measured = run.measurement
    if measured is None:
        raise MeasurementError(f"run {run_id} failed ({run.reason}): {run.message}")
    spreads = {name: getattr(measured, name) for name in _PHASES}
    return {name: spread.median if spread else None for name, spread in spreads.items()}


def _phase(name: str, pairs: list[Any]) -> dict[str, Any] | None:
    """Medians of both and of the ratio pair by pair; None where a phase was not asked for."""
    both = [(ours[name], theirs[name]) for ours, theirs in pairs if ours[name] and theirs[name]]
    if not both:
        return None
    ratios = [ours / theirs for ours, theirs in both]
    return {
        "ours": stats.median([ours for ours, _ in both]),
        NAME: stats.median([theirs for _, theirs in both]),
        "ratio": {"median": stats.median(ratios), "low": min(ratios), "high": max(ratios)},
        "pairs": len(both),
    }


def _print(phases: dict[str, dict[str, Any] | None]) -> None:
    table = plain_table("", "ours", NAME, "ours / theirs", "range")
    for name, phase in phases.items():
        if phase is not None:
            ratio = phase["ratio"]
            table.add_row(
                name.removesuffix("_tps"),
                human_rate(phase["ours"]),
                human_rate(phase[NAME]),
                f"{ratio['median']:.3f}",
                f"{ratio['low']:.3f} – {ratio['high']:.3f}",
            )
    console.print(table)
    console.print(f"{_PAIRS} interleaved pairs of the same work", style="dim")
