"""Out of the store: frozen values. Nothing here can change a row."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, joinedload

from autotune.domain.errors import UserError
from autotune.domain.machine import DiskProbe, MachineFacts, Probe
from autotune.domain.model import ModelFacts
from autotune.domain.run import Purpose
from autotune.domain.stored import (
    RunRecord,
    RunState,
    StoredRecommendation,
    StoredRun,
    StoredStudy,
)
from autotune.domain.study import Observation, Study
from autotune.domain.workload import Workload
from autotune.store.engine import Database
from autotune.store.observations import TEACHES, latest_probe, read_observations
from autotune.store.rates import Rates, read_rates
from autotune.store.tables import (
    ConfigRow,
    GenerationRow,
    LoadRunRow,
    MachineRow,
    ModelLocationRow,
    ModelRow,
    RecommendationRow,
    StudyRow,
)
from autotune.store.translate.facts import (
    build_value,
    config_value,
    disk_probe,
    machine_facts,
    model_facts,
)
from autotune.store.translate.history import (
    load_time,
    prediction_value,
    recommendation_value,
    run_value,
    study_value,
    trial_value,
)

_LARGEST = 2**63 - 1
"""The largest number that SQLite can hold."""


class Reader:
    """Finds what was recorded. Every method sees one moment of the store, writers or not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find_machine(self, machine_id: str) -> MachineFacts | None:
        """The facts last recorded of a machine; None for an unknown one."""
        with self._database.read() as session:
            row = session.get(MachineRow, machine_id)
            return None if row is None else machine_facts(row)

    def load_machine(self, machine_id: str) -> MachineFacts:
        """The facts last recorded of a machine. Raises UserError for an unknown one."""
        machine = self.find_machine(machine_id)
        if machine is None:
            raise UserError(f"no machine {machine_id} is recorded in {self._database.label}")
        return machine

    def load_probe(self, machine_id: str) -> Probe | None:
        """The latest probe of a machine; None for one that was never probed."""
        with self._database.read() as session:
            return latest_probe(session, machine_id)

    def load_disk(self, model_id: str, path: Path) -> DiskProbe | None:
        """How fast a model's file was read where it lies; None where nobody looked."""
        with self._database.read() as session:
            row = session.get(ModelLocationRow, (model_id, str(path)))
            return disk_probe(row) if row else None

    def load_model(self, model_id: str) -> ModelFacts:
        """The facts of a model. Raises UserError for an unknown one."""
        with self._database.read() as session:
            row = session.get(ModelRow, model_id)
            if row is None:
                raise UserError(f"no model {model_id} is recorded in {self._database.label}")
            return model_facts(row)

    def list_runs(
        self,
        *,
        model_id: str | None = None,
        study_id: int | None = None,
        limit: int | None = 50,
    ) -> tuple[StoredRun, ...]:
        """The latest runs, newest first; all of them without a limit."""
        wanted = {LoadRunRow.model_id: model_id, LoadRunRow.study_id: study_id}
        runs = (
            select(LoadRunRow.run_id)
            .where(*(column == value for column, value in wanted.items() if value is not None))
            .order_by(LoadRunRow.run_id.desc())
            .limit(None if limit is None else min(limit, _LARGEST))
        )
        with self._database.read() as session:
            rates, n = read_rates(session, runs), _count_generations(session, runs)
            rows = session.scalars(_with_names().where(LoadRunRow.run_id.in_(runs)))
            return tuple(
                _stored_run(row, rates.get(row.run_id, {}), n.get(row.run_id, 0)) for row in rows
            )

    def count_runs(self) -> int:
        """Runs of every state."""
        with self._database.read() as session:
            return session.scalar(select(func.count(LoadRunRow.run_id))) or 0

    def load_run(self, run_id: int) -> RunRecord:
        """Everything stored of one run. Raises UserError for an unknown one."""
        with self._database.read() as session:
            row = None
            if 0 < run_id <= _LARGEST:
                row = session.scalar(_with_names().where(LoadRunRow.run_id == run_id))
            if row is None:
                raise UserError(f"no run {run_id}: autotune runs lists them")
            rates = read_rates(session, select(LoadRunRow.run_id).filter_by(run_id=run_id))
            n = len(row.generations)
            return RunRecord(
                summary=_stored_run(row, rates.get(run_id, {}), n),
                trial=trial_value(row),
                run=run_value(row),
                prediction=prediction_value(row),
                planned_bytes=row.planned_bytes,
                source=row.source,
                measure_version=row.measure_version,
            )

    def observations(
        self, *, machine_id: str | None = None, backend: str | None = None
    ) -> tuple[Observation, ...]:
        """What finished runs teach, oldest first: successes, and failures that say something.

        Imported runs are among them: purpose ``import``, no probe. Left out: open, cancelled and
        interrupted runs, and our own of another measuring procedure.
        A run that failed before it generated has the workload it was asked for, and no rates.
        Equal machines, models and configurations are the same instances.
        """
        wanted = {LoadRunRow.machine_id: machine_id, LoadRunRow.backend: backend}
        conditions = [column == value for column, value in wanted.items() if value is not None]
        with self._database.read() as session:
            return read_observations(session, TEACHES, *conditions)

    def observation(self, run_id: int) -> Observation:
        """What one run teaches, however it ended. Raises UserError for an unknown run."""
        with self._database.read() as session:
            found = read_observations(session, LoadRunRow.run_id == run_id)
        if not found:
            raise UserError(f"no run {run_id}: autotune runs lists them")
        return next(observation for observation in found if observation.counts)

    def list_studies(
        self, *, model_id: str | None = None, limit: int | None = 50
    ) -> tuple[StoredStudy, ...]:
        """The latest studies, newest first; all of them without a limit."""
        query = _studies().order_by(StudyRow.study_id.desc()).limit(limit)
        if model_id is not None:
            query = query.where(StudyRow.model_id == model_id)
        with self._database.read() as session:
            return tuple(_stored_study(*row) for row in session.execute(query))

    def find_study(self, question: Study, *, machine_id: str, model_id: str) -> StoredStudy | None:
        """The newest study that asked the same of the same model and machine, if any."""
        query = _studies().order_by(StudyRow.study_id.desc()).limit(1)
        query = query.where(
            StudyRow.machine_id == machine_id,
            StudyRow.model_id == model_id,
            StudyRow.backend == question.backend,
            StudyRow.workload_id == question.workload.label,
            StudyRow.default_config_id == question.default.config_id,
            StudyRow.question_id == question.question_id,
        )
        with self._database.read() as session:
            row = session.execute(query).one_or_none()
            return None if row is None else _stored_study(*row)

    def load_study(self, study_id: int) -> StoredStudy:
        """One study. Raises UserError for an unknown one."""
        with self._database.read() as session:
            row = session.execute(_studies().where(StudyRow.study_id == study_id)).one_or_none()
            if row is None:
                raise UserError(f"no study {study_id} is recorded in {self._database.label}")
            return _stored_study(*row)

    def find_recommendation(self, *, machine_id: str, model_id: str) -> StoredRecommendation | None:
        """The newest advice for a model on a machine; None where none was given.

        What a study ended with comes before what was only predicted, however new.
        """
        row = RecommendationRow
        query = (
            select(row, ConfigRow.canonical_json)
            .join(ConfigRow, ConfigRow.config_id == row.config_id)
            .where(row.machine_id == machine_id, row.model_id == model_id)
            .order_by(row.study_id.is_not(None).desc(), row.recommendation_id.desc())
            .limit(1)
        )
        with self._database.read() as session:
            found = session.execute(query).one_or_none()
            return recommendation_value(*found) if found else None

    def find_verdict(self, study_id: int, *, backend: str) -> StoredRecommendation | None:
        """What a study of a backend ended with; None where it ended without an answer."""
        row = RecommendationRow
        query = (
            select(row, ConfigRow.canonical_json)
            .join(ConfigRow, ConfigRow.config_id == row.config_id)
            .where(row.study_id == study_id, row.backend == backend)
            .order_by(row.recommendation_id.desc())
            .limit(1)
        )
        with self._database.read() as session:
            found = session.execute(query).one_or_none()
            return recommendation_value(*found) if found else None


def _with_names() -> Select[LoadRunRow]:
    """Runs, newest first, with the rows that a table of runs shows."""
    parts = (LoadRunRow.model, LoadRunRow.build, LoadRunRow.config, LoadRunRow.workload)
    return (
        select(LoadRunRow)
        .options(*(joinedload(part) for part in parts))
        .order_by(LoadRunRow.run_id.desc())
    )


def _count_generations(session: Session, runs: Select[int]) -> dict[int, int]:
    """How many generations each of the runs has; a run without any is left out."""
    query = (
        select(GenerationRow.run_id, func.count(GenerationRow.generation_id))
        .where(GenerationRow.run_id.in_(runs))
        .group_by(GenerationRow.run_id)
    )
    return {run_id: int(n) for run_id, n in session.execute(query)}


def _stored_run(row: LoadRunRow, rates: dict[str, Rates], n_generations: int) -> StoredRun:
    load = load_time(row.model_s, row.context_s, row.first_eval_s)
    workload_id = row.workload_id
    if row.purpose is Purpose.USER:  # what it was used for most is known when it was used
        workload_id = next(iter(rates), workload_id)
    rate = rates.get(workload_id, Rates())
    return StoredRun(
        run_id=row.run_id,
        study_id=row.study_id,
        machine_id=row.machine_id,
        model_id=row.model_id,
        model_name=row.model.name,
        backend=row.backend,
        build=build_value(row.build).label if row.build else "",
        config=config_value(row.config.canonical_json),
        workload=Workload.parse(workload_id),
        purpose=row.purpose,
        state=row.state,
        started_at=row.started_at,
        reason=row.reason,
        message=row.message,
        elapsed_s=row.elapsed_s,
        load_s=load.total_s if load else None,
        peak_rss_bytes=row.peak_rss_bytes,
        peak_vram_bytes=row.peak_vram_bytes,
        prefill_tps=rate.prefill_tps,
        decode_tps=rate.decode_tps,
        ttft_s=rate.ttft_s,
        n_reps=n_generations if row.purpose is Purpose.USER else rate.n,
        discarded_at=row.discarded_at,
    )


def _studies() -> Select[StudyRow, int, int]:
    """Studies with their numbers of runs and of failed runs."""
    n_runs = func.count(LoadRunRow.run_id)
    return (
        select(StudyRow, n_runs, n_runs.filter(LoadRunRow.state == RunState.FAILED))
        .outerjoin(LoadRunRow, LoadRunRow.study_id == StudyRow.study_id)
        .group_by(StudyRow.study_id)
    )


def _stored_study(row: StudyRow, n_runs: int, n_failed: int) -> StoredStudy:
    return StoredStudy(
        study_id=row.study_id,
        study=study_value(row),
        machine_id=row.machine_id,
        model_id=row.model_id,
        model_name=row.model.name,
        state=row.state,
        note=row.note,
        started_at=row.started_at,
        finished_at=row.finished_at,
        n_runs=n_runs,
        n_failed=n_failed,
    )
