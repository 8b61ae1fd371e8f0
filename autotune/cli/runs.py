"""``autotune runs [MODEL]`` and ``autotune show RUN_ID``: the telemetry."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.cli.options import DbOption, JsonOption, open_store
from autotune.cli.output import (
    console,
    expected_json,
    expected_rates,
    interval_text,
    measurement_json,
    median_text,
    plain_table,
    print_json,
)
from autotune.cli.use import use_table
from autotune.domain.config import Config
from autotune.domain.prediction import Interval
from autotune.domain.run import Purpose, Run
from autotune.domain.stored import RunRecord, StoredRun
from autotune.domain.units import human_bytes, human_rate, human_seconds
from autotune.facts.gguf import read_model

_SHOWN = 40
"""Runs of a table, unless --limit says otherwise."""
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Only the newest N.")
]  # fmt: skip
_PLAIN = Config()
_NAME_WIDTH = 16
_Row = tuple[str, float | None, Interval | None, Callable[[float | None], str]]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("runs", help="Every stored run, newest first.")(runs)
    app.command("show", help="One stored run in full.")(show)


def runs(
    model: Annotated[Path | None, typer.Argument(metavar="[MODEL]")] = None,
    limit: LimitOption = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the stored runs, of one model if it is given."""
    model_id = read_model(model).model_id if model else None
    with open_store(db) as store:
        # A document is whole, a table is for the eye.
        many = limit or (None if as_json else _SHOWN)
        found = store.list_runs(model_id=model_id, limit=many and many + 1)
    if as_json:
        print_json([_summary_json(run) for run in found[:many]])
    elif found:
        _print_table(found[:many])
        if many is not None and len(found) > many and limit is None:
            console.print("older runs are left out: --limit N shows more", style="dim")
    else:
        console.print("no runs yet: autotune bench MODEL or autotune tune MODEL makes some")


def _print_table(found: tuple[StoredRun, ...]) -> None:
    table = plain_table("run", "model", "purpose", "knobs", "prefill", "decode", "memory")
    table.columns[3].justify = table.columns[1].justify = "left"
    table.columns[1].no_wrap, table.columns[1].overflow = True, "ellipsis"
    table.columns[1].max_width = _NAME_WIDTH
    for run in found:
        outcome = (human_rate(run.prefill_tps), human_rate(run.decode_tps))
        if run.prefill_tps is None and run.decode_tps is None:
            outcome = (run.reason or run.state.value, "")
        memory = human_bytes(run.peak_rss_bytes)
        knobs = _knobs(run.config)
        table.add_row(str(run.run_id), run.model_name, run.purpose.value, knobs, *outcome, memory)
    console.print(table)


def _knobs(config: Config) -> str:
    """Threads and batches always, the rest where it is out of the ordinary."""
    words = [f"t{config.n_threads}/{config.n_threads_batch}", f"ub{config.n_ubatch}"]
    if config.flash_attn != "off":
        words.append(f"fa={config.flash_attn}")
    for name in ("use_mmap", "type_k", "type_v", "swa_full", "n_gpu_layers"):
        value = getattr(config, name)
        if value != getattr(_PLAIN, name):
            words.append(f"{name}={str(value).lower()}")
    return " ".join(words)


def show(
    run_id: Annotated[int, typer.Argument(metavar="RUN_ID")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one run: what was asked, predicted, done and measured."""
    with open_store(db) as store:
        record = store.load_run(run_id)
    if as_json:
        print_json(_record_json(record))
    else:
        _print_record(record)


def _summary_json(run: StoredRun) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "study_id": run.study_id,
        "model": run.model_name,
        "model_id": run.model_id,
        "machine_id": run.machine_id,
        "backend": run.backend,
        "build": run.build,
        "purpose": run.purpose.value,
        "state": run.state.value,
        "reason": run.reason,
        "message": run.message,
        "started_at": run.started_at.isoformat(),
        "elapsed_s": run.elapsed_s,
        "config": run.config.as_dict(),
        "workload": run.workload.label,
        "load_s": run.load_s,
        "peak_memory_bytes": run.peak_rss_bytes,
        "prefill_tps": run.prefill_tps,
        "decode_tps": run.decode_tps,
        "ttft_s": run.ttft_s,
        "n_reps": run.n_reps,
    }


def _record_json(record: RunRecord) -> dict[str, Any]:
    run = record.run
    document = _summary_json(record.summary) | {
        "model_path": None if record.is_imported else str(record.trial.model_path),
        "source": record.source,
        "predicted": expected_json(record.prediction) if record.prediction else None,
        "evidence": record.prediction.evidence.value if record.prediction else None,
        "measured": measurement_json(run.measurement) if run else None,
    }
    return document | _run_json(run) if run else document


def _run_json(run: Run) -> dict[str, Any]:
    return {
        "log_excerpt": run.log_excerpt,
        "cached_ratio": run.cached_ratio,
        "contamination": list(run.contamination),
        "load_contamination": list(run.load_contamination),
        "conditions": dataclasses.asdict(run.conditions),
        "peak_anon_bytes": run.peak_anon_bytes,
        "peak_file_bytes": run.peak_file_bytes,
        "peak_pss_bytes": run.peak_pss_bytes,
        "peak_vram": {peak.device: peak.n_bytes for peak in run.peak_vram},
        "buffers": [
            {"device": buffer.device, "kind": buffer.kind, "bytes": buffer.n_bytes}
            for buffer in run.report.buffers
        ],
        "generations": [
            {
                "repetition": generation.repetition,
                "workload": generation.workload.label,
                "prefill_tps": generation.prefill_tps,
                "decode_tps": generation.decode_tps,
                "ttft_s": generation.ttft_s,
                "token_ns": list(generation.token_ns),
                "prefill_cpu_ns": generation.prefill_cpu_ns,
                "decode_cpu_ns": generation.decode_cpu_ns,
                "n_drafted": generation.n_drafted,
                "n_accepted": generation.n_accepted,
                "contamination": list(generation.contamination),
                "conditions": dataclasses.asdict(generation.conditions),
            }
            for generation in run.generations
        ],
    }


def _print_record(record: RunRecord) -> None:
    summary, run = record.summary, record.run
    console.print(
        f"[bold]run {summary.run_id}[/]: {summary.model_name}, {summary.workload.label}, "
        f"{summary.purpose.value}, {summary.state.value}"
        + (f" ({summary.reason}: {summary.message})" if summary.reason else "")
    )
    console.print(f"{_when(record)}, {summary.backend} {summary.build}")
    knobs = " ".join(f"{k}={v}" for k, v in summary.config.as_dict().items())
    console.print(knobs, style="dim")
    if run is None:
        return
    if run.cached_ratio is not None:
        console.print(f"{run.cached_ratio:.0%} of the file in the page cache before the load")
    if record.prediction is not None and run.measurement is not None:
        console.print(_against(record))
    if run.generations:
        is_use = summary.purpose is Purpose.USER
        console.print(use_table(run.generations) if is_use else _generations(run))
    if run.is_contaminated and record.summary.purpose is not Purpose.USER:
        console.print(f"contaminated ({', '.join(run.contamination)}): not taken at full weight")
    if run.log_excerpt:
        console.print(run.log_excerpt, style="dim", markup=False)


def _when(record: RunRecord) -> str:
    """When it was measured; of an imported run also by whom."""
    at = record.summary.started_at
    told = f"{at:%Y-%m-%d %H:%M:%S} UTC" if at.timestamp() else "at an unknown time"
    return f"{told}, measured by {record.source}" if record.is_imported else told


def _against(record: RunRecord) -> Any:
    """Measured beside predicted."""
    assert record.prediction is not None
    assert record.run is not None
    measured, expected = record.run.measurement, record.prediction
    assert measured is not None
    table = plain_table("", "measured", "predicted", "90 % interval")
    is_use = record.summary.purpose is Purpose.USER
    prefill, decode = expected_rates(expected)
    whole: tuple[_Row, ...] = (
        ("load", measured.load_s, expected.load_s, human_seconds),
        ("peak memory", measured.peak_memory_bytes, expected.peak_memory_bytes, human_bytes),
    )
    rates: tuple[_Row, ...] = (
        ("prefill", _median(measured.prefill_tps), prefill, human_rate),
        ("decode", _median(measured.decode_tps), decode, human_rate),
        ("first token", _median(measured.ttft_s), expected.ttft_s, human_seconds),
    )
    # Of the many workloads of ordinary use, one was predicted.
    for name, value, interval, human in whole if is_use else (*whole, *rates):
        median = median_text(interval, human)
        table.add_row(name, human(value), median, interval_text(interval, human))
    return table


def _median(spread: Any) -> float | None:
    return spread.median if spread else None


def _generations(run: Run) -> Any:
    table = plain_table(
        "repetition", "prefill", "decode", "first token", "foreign CPU", "contamination"
    )
    for generation in run.generations:
        foreign = generation.conditions.foreign_cpu_ratio
        table.add_row(
            str(generation.repetition),
            human_rate(generation.prefill_tps),
            human_rate(generation.decode_tps),
            human_seconds(generation.ttft_s),
            "–" if foreign is None else f"{foreign:.1%}",
            ", ".join(generation.contamination),
        )
    return table
