"""Into the store: every method is one transaction, and none is open while something is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from autotune.domain.errors import UserError
from autotune.domain.machine import DiskFacts, DiskProbe, MachineFacts, Probe
from autotune.domain.model import ModelFacts
from autotune.domain.prediction import Prediction, Recommendation
from autotune.domain.run import Purpose, Reason, Run, Trial
from autotune.domain.stored import RunState
from autotune.domain.study import Study, StudyState
from autotune.store.codec import to_json
from autotune.store.engine import Database
from autotune.store.recorder import Recorder, is_overdue
from autotune.store.run_rows import location_row, report, run_row
from autotune.store.tables import LoadRunRow, ModelLocationRow, RecommendationRow, StudyRow
from autotune.store.translate.facts import (
    config_row,
    machine_row,
    model_row,
    probe_row,
    workload_row,
)
from autotune.store.use import Ended, Use, append_generations, end_use, enter_use

LOST = "the process that measured it went away"
IDLE = timedelta(days=1)
"""Silence after which a model in use is given up, where the system tells nothing of processes."""


class Writer:
    """Records what is true, what is tried and what came of it.

    Every method raises DataError or UserError with one line when the database refuses; then
    nothing of the call is kept.
    """

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now
        self._recorder = Recorder.this_process()

    def record_machine(self, machine_id: str, facts: MachineFacts) -> None:
        """Keep the facts of a machine; later ones replace earlier ones."""
        with self._database.write() as session:
            session.merge(machine_row(machine_id, facts, seen_at=self._now()))

    def record_probe(self, machine_id: str, probe: Probe) -> None:
        """Add a probe of a recorded machine; the latest is the one that counts."""
        with self._database.write() as session:
            session.add(probe_row(machine_id, probe, measured_at=self._now()))

    def record_model(self, model: ModelFacts, path: Path) -> None:
        """Keep the facts of a model and where its file was seen."""
        with self._database.write() as session:
            session.merge(model_row(model))
            session.flush()
            session.merge(self._location(model.model_id, path, modified_at=_modified_at(path)))

    def record_disk(self, model_id: str, path: Path, disk: DiskFacts, probe: DiskProbe) -> None:
        """Keep what disk a recorded model's file lies on, and how fast it is read."""
        known = {
            "mount": disk.mount,
            "disk_kind": disk.kind,
            "cached_bytes_per_s": probe.cached_bytes_per_s,
            "disk_bytes_per_s": probe.disk_bytes_per_s,
        }
        with self._database.write() as session:
            session.merge(self._location(model_id, path, **known))

    def start_study(self, study: Study, *, machine_id: str, model_id: str) -> int:
        """Open a study of a recorded machine and model; returns its number."""
        with self._database.write() as session:
            row = StudyRow(
                machine_id=machine_id,
                model_id=model_id,
                backend=study.backend,
                target=study.target,
                hardware=study.hardware,
                workload=session.merge(workload_row(study.workload)),
                default=session.merge(config_row(study.default)),
                max_trials=study.max_trials,
                time_limit_s=study.time_limit_s,
                seed=study.seed,
                question_id=study.question_id,
                started_at=self._now(),
                state=StudyState.RUNNING,
                note="",
                **self._recorded,
            )
            session.add(row)
            session.flush()
            return row.study_id

    def resume_study(self, study_id: int) -> None:
        """Open a stopped study again, for this process. Raises UserError for an unknown one."""
        with self._database.write() as session:
            row = session.get(StudyRow, study_id)
            if row is None:
                raise UserError(f"no study {study_id} is recorded in {self._database.label}")
            row.state, row.note, row.finished_at = StudyState.RUNNING, "", None
            row.recorder_pid, row.recorder_birth = self._recorder.pid, self._recorder.birth

    def finish_study(self, study_id: int, state: StudyState, note: str = "") -> None:
        """Close a study: how it ended, and why in one line. Raises UserError for an unknown one."""
        with self._database.write() as session:
            row = session.get(StudyRow, study_id)
            if row is None:
                raise UserError(f"no study {study_id} is recorded in {self._database.label}")
            row.state, row.note, row.finished_at = state, note, self._now()

    def begin_run(
        self,
        trial: Trial,
        *,
        machine_id: str,
        model_id: str,
        backend: str,
        study_id: int | None = None,
        prediction: Prediction | None = None,
        planned_bytes: int | None = None,
        source: str = "local",
    ) -> int:
        """Open a run and write down what is expected of it; returns its number.

        The run is ``running`` until :meth:`finish_run`, or until somebody finds that this process
        went away (:meth:`close_dead_runs`).
        """
        with self._database.write() as session:
            row = run_row(
                session,
                trial,
                machine_id=machine_id,
                model_id=model_id,
                backend=backend,
                study_id=study_id,
                prediction=prediction,
                planned_bytes=planned_bytes,
                source=source,
                now=self._now(),
                recorder=self._recorder,
            )
            return row.run_id

    def finish_run(self, run_id: int, run: Run) -> None:
        """Write what came of a run: outcome, build, buffers and generations.

        A run that was given up for lost is taken back. Raises UserError for a run that is unknown
        or has reported already.
        """
        with self._database.write() as session:
            row = _open_run(session, run_id)
            report(session, row, run)

    def record_use(self, use: Use, *, run_id: int | None) -> int:
        """Keep what is new of a model in use, in one transaction; returns the run's number.

        ``run_id`` is that number, None for the first time; a run that the store no longer knows is
        entered once more. So is one that was taken back, when there is more to learn from it: it
        goes on under the number that is returned.
        """
        with self._database.write() as session:
            row = None if run_id is None else session.get(LoadRunRow, run_id)
            if row is not None and row.discarded_at is not None and use.has_lessons:
                end_use(session, row, Ended(at=row.discarded_at))
                row = None
            if row is None:
                row = enter_use(session, use, now=self._now(), recorder=self._recorder)
            append_generations(session, row, use.generations)
            if use.ending is not None:
                end_use(session, row, use.ending)
            return row.run_id

    def cancel_run(self, run_id: int) -> None:
        """Close an open run that somebody stopped; it says nothing about its configuration."""
        with self._database.write() as session:
            _close(_open_run(session, run_id), Reason.CANCELLED, "stopped before it was done")

    def discard_runs(self, run_ids: Iterable[int]) -> None:
        """Mark finished runs as worth nothing: the machine had drifted. They teach no more."""
        with self._database.write() as session:
            session.execute(
                update(LoadRunRow)
                .where(LoadRunRow.run_id.in_([*run_ids]))
                .values(discarded_at=self._now())
            )

    def record_recommendation(
        self,
        recommendation: Recommendation,
        *,
        machine_id: str,
        model_id: str,
        study_id: int | None = None,
        speedup: float | None = None,
        cached: bool | None = None,
    ) -> int:
        """Keep what was advised and why; returns its number.

        ``speedup`` is the measured request time of the default over that of the advice; ``cached``
        is whether the stored predictor answered as it was (None for what a study found out).
        """
        with self._database.write() as session:
            row = RecommendationRow(
                study_id=study_id,
                machine_id=machine_id,
                model_id=model_id,
                backend=recommendation.backend,
                config_id=session.merge(config_row(recommendation.config)).config_id,
                target=recommendation.target,
                workload_id=session.merge(workload_row(recommendation.workload)).workload_id,
                confidence=recommendation.confidence,
                reasons=to_json(recommendation.reasons),
                speedup=speedup,
                cached=cached,
                made_at=self._now(),
            )
            session.add(row)
            session.flush()
            return row.recommendation_id

    def close_dead_runs(self) -> int:
        """Close the runs and studies whose process is gone; returns how many runs.

        Such a run failed as ``interrupted``, which says nothing about its configuration.
        """
        with self._database.write() as session:
            studies = select(StudyRow).where(StudyRow.state == StudyState.RUNNING)
            for study in session.scalars(studies):
                if self._is_abandoned(study):
                    study.state, study.note = StudyState.FAILED, LOST
                    study.finished_at = self._now()
            runs = select(LoadRunRow).where(LoadRunRow.state == RunState.RUNNING)
            dead = [run for run in session.scalars(runs) if self._is_lost(run)]
            for run in dead:
                _close(run, Reason.INTERRUPTED, LOST)
            return len(dead)

    @property
    def _recorded(self) -> dict[str, int | str | None]:
        return {"recorder_pid": self._recorder.pid, "recorder_birth": self._recorder.birth}

    def _is_lost(self, run: LoadRunRow) -> bool:
        """Whether nobody works on a run. A model in use may idle for as long as its process."""
        if run.purpose is not Purpose.USER:
            return self._is_dead(run)
        recorder = Recorder(pid=run.recorder_pid, birth=run.recorder_birth)
        news_at = run.started_at + timedelta(seconds=run.elapsed_s or 0.0)
        is_told = recorder.birth is not None
        return recorder.is_gone() or (not is_told and self._now() - news_at > IDLE)

    def _is_dead(self, run: LoadRunRow) -> bool:
        recorder = Recorder(pid=run.recorder_pid, birth=run.recorder_birth)
        return recorder.is_gone() or is_overdue(run.started_at, run.timeout_s, now=self._now())

    def _is_abandoned(self, study: StudyRow) -> bool:
        """Whether nobody works on a study. One that was resumed may have begun long ago."""
        recorder = Recorder(pid=study.recorder_pid, birth=study.recorder_birth)
        is_told = recorder.birth is not None
        late = is_overdue(study.started_at, study.time_limit_s, now=self._now())
        return recorder.is_gone() or (not is_told and late)

    def _location(self, model_id: str, path: Path, **known: object) -> ModelLocationRow:
        return location_row(model_id, path, seen_at=self._now(), **known)


def _open_run(session: Session, run_id: int) -> LoadRunRow:
    """A run that has not reported yet, also one that was given up for lost."""
    row = session.get(LoadRunRow, run_id)
    is_over = row is None or row.elapsed_s is not None or row.import_key is not None
    if row is None or is_over or row.reason is Reason.CANCELLED:
        raise UserError(f"no open run {run_id}: autotune runs lists them")
    return row


def _close(row: LoadRunRow, reason: Reason, message: str) -> None:
    row.state, row.reason, row.message = RunState.FAILED, reason, message


def _modified_at(path: Path) -> datetime | None:
    with suppress(OSError, ValueError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return None
