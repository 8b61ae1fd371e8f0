"""The row of a run: entered when it begins, filled when it has reported."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from autotune.domain.prediction import Prediction
from autotune.domain.run import MEASURE_VERSION, Run, Trial
from autotune.domain.stored import RunState
from autotune.store.recorder import Recorder
from autotune.store.tables import LoadRunRow, ModelLocationRow
from autotune.store.translate.facts import build_row, config_row, workload_row
from autotune.store.translate.history import fill_outcome, prediction_rows


def run_row(
    session: Session,
    trial: Trial,
    *,
    machine_id: str,
    model_id: str,
    backend: str,
    now: datetime,
    recorder: Recorder,
    study_id: int | None = None,
    prediction: Prediction | None = None,
    planned_bytes: int | None = None,
    recommendation_id: int | None = None,
    source: str = "local",
) -> LoadRunRow:
    """A new row, with its number: a run that has begun, and what is expected of it."""
    session.merge(location_row(model_id, trial.model_path, seen_at=now))
    row = LoadRunRow(
        study_id=study_id,
        machine_id=machine_id,
        model_id=model_id,
        model_path=str(trial.model_path),
        backend=backend,
        config=session.merge(config_row(trial.config)),
        workload=session.merge(workload_row(trial.workload)),
        purpose=trial.purpose,
        n_reps=trial.n_reps,
        max_reps=trial.max_reps,
        sampling_s=trial.sampling_s,
        timeout_s=trial.timeout_s,
        memory_limit_bytes=trial.memory_limit_bytes,
        planned_bytes=planned_bytes,
        recommendation_id=recommendation_id,
        source=source,
        measure_version=MEASURE_VERSION,
        started_at=now,
        state=RunState.RUNNING,
        message="",
        log_excerpt="",
        recorder_pid=recorder.pid,
        recorder_birth=recorder.birth,
        predictions=prediction_rows(prediction, made_at=now) if prediction else [],
    )
    session.add(row)
    session.flush()
    return row


def report(session: Session, row: LoadRunRow, run: Run) -> None:
    """Write what came of a run: outcome, build, buffers and generations."""
    row.build = session.merge(build_row(run.build)) if run.build else None
    for workload in {generation.workload for generation in run.generations}:
        session.merge(workload_row(workload))
    fill_outcome(row, run)


def location_row(
    model_id: str, path: Path, *, seen_at: datetime, **known: object
) -> ModelLocationRow:
    """Where a model's file was seen, and what else is known of the place."""
    return ModelLocationRow(model_id=model_id, path=str(path), last_seen_at=seen_at, **known)
