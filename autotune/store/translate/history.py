"""Studies, runs, generations and predictions."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from autotune.domain.prediction import TARGETS, Interval, Prediction
from autotune.domain.run import Buffer, DevicePeak, EngineReport, Generation, LoadTime, Run, Trial
from autotune.domain.stored import RunState, StoredRecommendation
from autotune.domain.study import Study
from autotune.domain.workload import Workload
from autotune.store.codec import from_json, to_json
from autotune.store.tables import (
    SUCCESS,
    DevicePeakRow,
    EngineBufferRow,
    GenerationRow,
    LoadRunRow,
    PredictionRow,
    RecommendationRow,
    StudyRow,
)
from autotune.store.translate.conditions import (
    condition_columns,
    conditions_value,
    contamination_text,
    contamination_value,
)
from autotune.store.translate.facts import build_value, config_value, workload_value


def study_value(row: StudyRow) -> Study:
    """The question that a row asks."""
    return Study(
        backend=row.backend,
        target=row.target,
        hardware=row.hardware,
        workload=workload_value(row.workload),
        default=config_value(row.default.canonical_json),
        max_trials=row.max_trials,
        time_limit_s=row.time_limit_s,
        seed=row.seed,
        question_id=row.question_id,
    )


def recommendation_value(row: RecommendationRow, canonical_json: str) -> StoredRecommendation:
    """The advice of a row; ``canonical_json`` is its configuration."""
    return StoredRecommendation(
        recommendation_id=row.recommendation_id,
        study_id=row.study_id,
        backend=row.backend,
        config=config_value(canonical_json),
        target=row.target,
        workload=Workload.parse(row.workload_id),
        confidence=row.confidence,
        reasons=from_json(tuple[str, ...], row.reasons),
        speedup=row.speedup,
        made_at=row.made_at,
    )


def trial_value(row: LoadRunRow) -> Trial:
    """What the run was asked to do."""
    return Trial(
        model_path=Path(row.model_path or row.model.name),
        config=config_value(row.config.canonical_json),
        workload=workload_value(row.workload),
        n_reps=row.n_reps,
        max_reps=row.max_reps,
        sampling_s=row.sampling_s,
        timeout_s=row.timeout_s,
        memory_limit_bytes=row.memory_limit_bytes,
        purpose=row.purpose,
    )


def fill_outcome(row: LoadRunRow, run: Run) -> None:
    """Write into an open run's row what came of it; :func:`run_value` reads it."""
    fill_end(row, run)
    row.started_at = run.started_at
    row.model_s = run.load.model_s if run.load else None
    row.context_s = run.load.context_s if run.load else None
    row.first_eval_s = run.load.first_eval_s if run.load else None
    row.cached_ratio = run.cached_ratio
    row.load_contamination = contamination_text(run.load_contamination)
    row.contamination = contamination_text(run.contamination)
    row.layers_offloaded = run.report.layers_offloaded
    row.layers_total = run.report.layers_total
    row.flash_attn_done = run.report.flash_attn
    row.n_ctx_done = run.report.n_ctx
    row.buffers = [
        EngineBufferRow(position=i, device=b.device, kind=b.kind, n_bytes=b.n_bytes)
        for i, b in enumerate(run.report.buffers)
    ]
    row.peak_vram = device_peak_rows(run)
    row.generations = [generation_row(generation) for generation in run.generations]


def fill_end(row: LoadRunRow, run: Run) -> None:
    """Write how a run ended, how long it took, and what it needed at most."""
    row.elapsed_s = run.elapsed_s
    row.state = RunState.COMPLETE if run.ok else RunState.FAILED
    row.reason, row.message, row.log_excerpt = run.reason, run.message, run.log_excerpt
    fill_peaks(row, run)
    for name, value in condition_columns(run.conditions).items():
        setattr(row, name, value)


def fill_peaks(row: LoadRunRow, run: Run) -> None:
    """Write the most memory that was seen until now."""
    row.peak_anon_bytes = run.peak_anon_bytes
    row.peak_file_bytes = run.peak_file_bytes
    row.peak_rss_bytes = run.peak_rss_bytes
    row.peak_pss_bytes = run.peak_pss_bytes
    row.peak_vram_bytes = run.peak_vram_bytes


def device_peak_rows(run: Run) -> list[DevicePeakRow]:
    """The peaks of its GPUs, in order."""
    return [
        DevicePeakRow(position=i, device=peak.device, n_bytes=peak.n_bytes)
        for i, peak in enumerate(run.peak_vram)
    ]


def run_value(row: LoadRunRow) -> Run | None:
    """What came of a run; None for one that has not reported.

    How long somebody else's run took is not known: 0.
    """
    if row.elapsed_s is None and row.import_key is None:
        return None
    return Run(
        trial=trial_value(row),
        backend=row.backend,
        build=build_value(row.build) if row.build else None,
        started_at=row.started_at,
        elapsed_s=row.elapsed_s or 0.0,
        reason=row.reason,
        message=row.message,
        log_excerpt=row.log_excerpt,
        load=load_time(row.model_s, row.context_s, row.first_eval_s),
        cached_ratio=row.cached_ratio,
        peak_anon_bytes=row.peak_anon_bytes,
        peak_file_bytes=row.peak_file_bytes,
        peak_rss_bytes=row.peak_rss_bytes,
        peak_pss_bytes=row.peak_pss_bytes,
        peak_vram=tuple(
            DevicePeak(device=peak.device, n_bytes=peak.n_bytes) for peak in row.peak_vram
        ),
        conditions=conditions_value(row),
        load_contamination=contamination_value(row.load_contamination),
        report=EngineReport(
            buffers=tuple(
                Buffer(device=b.device, kind=b.kind, n_bytes=b.n_bytes) for b in row.buffers
            ),
            layers_offloaded=row.layers_offloaded,
            layers_total=row.layers_total,
            flash_attn=row.flash_attn_done,
            n_ctx=row.n_ctx_done,
        ),
        generations=tuple(generation_value(generation) for generation in row.generations),
    )


def load_time(
    model_s: float | None, context_s: float | None, first_eval_s: float | None
) -> LoadTime | None:
    """The load's three phases; None unless all are known."""
    if model_s is None or context_s is None or first_eval_s is None:
        return None
    return LoadTime(model_s=model_s, context_s=context_s, first_eval_s=first_eval_s)


def generation_row(generation: Generation) -> GenerationRow:
    """Raw times and what follows from them; :func:`generation_value` reads it."""
    return GenerationRow(
        workload_id=generation.workload.label,
        repetition=generation.repetition,
        n_prompt=generation.workload.n_prompt,
        n_gen=generation.n_gen,
        prefill_tps=generation.prefill_tps,
        decode_tps=generation.decode_tps,
        ttft_s=generation.ttft_s,
        itl_p50_s=generation.itl_p50_s,
        itl_p95_s=generation.itl_p95_s,
        prefill_ns=generation.prefill_ns,
        ttft_ns=generation.ttft_ns,
        token_ns=to_json(generation.token_ns),
        decode_ns=generation.decode_ns,
        prefill_cpu_ns=generation.prefill_cpu_ns,
        decode_cpu_ns=generation.decode_cpu_ns,
        contamination=contamination_text(generation.contamination),
        n_drafted=generation.n_drafted,
        n_accepted=generation.n_accepted,
        **condition_columns(generation.conditions),
    )


def generation_value(row: GenerationRow) -> Generation:
    """The raw times of one generate call."""
    return Generation(
        workload=workload_value(row.workload),
        repetition=row.repetition,
        prefill_ns=row.prefill_ns,
        ttft_ns=row.ttft_ns,
        token_ns=from_json(tuple[int, ...], row.token_ns),
        decode_ns=row.decode_ns,
        prefill_cpu_ns=row.prefill_cpu_ns,
        decode_cpu_ns=row.decode_cpu_ns,
        conditions=conditions_value(row),
        n_drafted=row.n_drafted or 0,
        n_accepted=row.n_accepted or 0,
    )


def prediction_rows(prediction: Prediction, *, made_at: datetime) -> list[PredictionRow]:
    """A row for each target and one for success; :func:`prediction_value` reads them."""

    def row(target: str, interval: Interval | None, p_success: float | None) -> PredictionRow:
        return PredictionRow(
            target=target,
            q05=interval and interval.q05,
            q50=interval and interval.q50,
            q95=interval and interval.q95,
            p_success=p_success,
            evidence=prediction.evidence,
            n_runs=prediction.n_runs,
            predictor_id=prediction.predictor_id,
            made_at=made_at,
        )

    intervals = [row(target, getattr(prediction, target), None) for target in TARGETS]
    return [*intervals, row(SUCCESS, None, prediction.p_success)]


def prediction_value(run: LoadRunRow) -> Prediction | None:
    """What was expected of a run; None where nothing was."""
    rows = {row.target: row for row in run.predictions}
    if not rows:
        return None
    success = rows.pop(SUCCESS)
    assert success.p_success is not None  # the table forbids it
    return Prediction(
        config=config_value(run.config.canonical_json),
        workload=workload_value(run.workload),
        p_success=success.p_success,
        evidence=success.evidence,
        n_runs=success.n_runs,
        predictor_id=success.predictor_id,
        **{target: _interval(row) for target, row in rows.items()},
    )


def _interval(row: PredictionRow) -> Interval:
    assert row.q05 is not None  # the table forbids it
    assert row.q50 is not None
    assert row.q95 is not None
    return Interval(q05=row.q05, q50=row.q50, q95=row.q95)
