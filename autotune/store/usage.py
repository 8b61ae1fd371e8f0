"""What is known of the use of models: our own runs, and what applications told of theirs.

A report is a row of somebody else's telemetry about our own model on our own machine. Its load
time and its rate teach as those of a contaminated run do: a little, until something was measured.
Its memory is shown and teaches nothing: nobody knows what the application counted.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, and_, func, or_, select, update

from autotune.domain.conditions import Contamination
from autotune.domain.config import Config
from autotune.domain.imported import ImportedTest
from autotune.domain.run import Generation, LoadTime, Purpose, Reason, Run, Trial
from autotune.domain.stored import RunState
from autotune.domain.workload import Workload
from autotune.store.engine import Database
from autotune.store.importers.app_cache import CACHE_WORKLOAD
from autotune.store.imports import MEASURE_VERSION, import_key, imported_build
from autotune.store.observations import UNTOLD
from autotune.store.rates import Rates, read_rates
from autotune.store.recorder import Recorder
from autotune.store.tables import ConfigRow, LoadRunRow, ModelRow
from autotune.store.translate.facts import build_row, config_row, config_value, workload_row
from autotune.store.translate.history import fill_outcome, load_time

_config = functools.lru_cache(maxsize=4096)(config_value)
_COUNTS = and_(
    LoadRunRow.discarded_at.is_(None),
    or_(
        LoadRunRow.state != RunState.RUNNING,
        and_(LoadRunRow.purpose == Purpose.USER, LoadRunRow.model_s.is_not(None)),
    ),
)
"""A run that ended, or a model in use, and not taken back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One use of a model: a load and what was generated, measured here or told by somebody."""

    run_id: int
    machine_id: str
    model_id: str
    model_name: str
    backend: str
    config: Config
    started_at: datetime
    model_path: Path | None
    """Where the file was; None where somebody else had it."""
    reason: Reason | None
    """Why it failed; None for a success."""
    load_s: float | None
    memory_bytes: int | None
    """Highest resident memory; of a report, what the application called its memory."""
    prefill_tps: float | None
    decode_tps: float | None
    """Of a report, what the application called tokens per second."""
    contamination: tuple[Contamination, ...]
    """What spoils it, where that is told."""
    is_spoilt: bool
    """Whether its rates are not clean."""
    is_reported: bool
    """Told by somebody, not measured by us."""
    n_uses: int = 1
    """Uses that it sums up: an application's means are over several."""
    success_ratio: float | None = None
    """Share of these that succeeded; None for a run that counts or never happened (cancelled)."""
    hardware: Mapping[str, Any] = field(default_factory=dict)
    """What the application said of the machine."""


class Totals(NamedTuple):
    """How much the store knows."""

    n_models: int
    """Models with at least one run that counts."""
    n_profiles: int
    """Distinct (machine, model, backend) among these runs."""
    n_runs: int
    n_described: int
    """Models that are described, with runs or without."""


def record_report(
    database: Database,
    test: ImportedTest,
    *,
    machine_id: str,
    model_id: str,
    model_path: Path,
    config: Config,
    told: Mapping[str, Any],
    reported_at: datetime,
) -> int:
    """Keep what an application tells of one use of a recorded model; returns its number.

    ``told`` are further words of the application, JSON-ready: ``success_ratio``, ``hardware``.
    Raises DataError or UserError where the database refuses.
    """
    run = _run(test, model_path, config, reported_at)
    said = {**dataclasses.asdict(test), **told, "measured_at": reported_at.isoformat()}
    recorder = Recorder.this_process()
    with database.write() as session:
        row = LoadRunRow(
            machine_id=machine_id,
            model_id=model_id,
            model_path=str(model_path),
            backend=test.backend,
            build=session.merge(build_row(imported_build(test))),
            config=session.merge(config_row(config)),
            workload=session.merge(workload_row(run.trial.workload)),
            purpose=Purpose.IMPORT,
            n_reps=1,
            max_reps=1,
            sampling_s=0.0,
            timeout_s=0.0,
            source=test.source,
            measure_version=MEASURE_VERSION,
            # The same figures twice are two uses.
            import_key=f"{import_key(test)}-{uuid.uuid4().hex}",
            import_json=json.dumps(said, sort_keys=True),
            started_at=reported_at,
            state=RunState.RUNNING,
            recorder_pid=recorder.pid,
            recorder_birth=recorder.birth,
        )
        fill_outcome(row, run)
        row.elapsed_s = None
        row.contamination = row.load_contamination = Contamination.REPORTED
        for generation in row.generations:
            generation.contamination = Contamination.REPORTED
        session.add(row)
        session.flush()
        return row.run_id


def _run(test: ImportedTest, model_path: Path, config: Config, reported_at: datetime) -> Run:
    """The report as one of our own runs would have it, without its memory."""
    workload = Workload(n_prompt=test.n_prompt, n_gen=test.n_gen, n_depth=test.n_depth)
    decode_ns = round(test.n_gen * 1e9 / test.tps) if test.tps else None
    generation = Generation(workload=workload, repetition=0, prefill_ns=None, decode_ns=decode_ns)
    return Run(
        trial=Trial(model_path=model_path, config=config, workload=workload, n_reps=1),
        backend=test.backend,
        build=None,
        started_at=reported_at,
        elapsed_s=0.0,
        reason=test.reason,
        message=f"failed, says {test.source}" if test.reason else "",
        load=(test.load_s and LoadTime(model_s=test.load_s, context_s=0, first_eval_s=0)) or None,
        generations=(generation,) if decode_ns else (),
    )


def read_usages(
    database: Database,
    *,
    machine_id: str | None = None,
    model_id: str | None = None,
    model_name: str | None = None,
    limit: int | None = None,
) -> tuple[Usage, ...]:
    """The latest uses, newest first.

    ``machine_id`` and ``model_id`` choose our own; ``model_name`` adds what the original
    application's cache told of a model of that name: its machine has no name.
    """
    own = {LoadRunRow.machine_id: machine_id, LoadRunRow.model_id: model_id}
    wanted = [column == value for column, value in own.items() if value is not None]
    chosen: ColumnElement[bool] = and_(*wanted) if wanted else _COUNTS
    if model_name is not None:
        cached = LoadRunRow.workload_id == CACHE_WORKLOAD.label
        chosen = or_(
            chosen, and_(LoadRunRow.import_key.is_not(None), cached, ModelRow.name == model_name)
        )
    runs = (
        select(LoadRunRow.run_id)
        .join(LoadRunRow.model)
        .where(_COUNTS, chosen)
        .order_by(LoadRunRow.run_id.desc())
        .limit(limit)
    )
    query = (
        select(LoadRunRow, ModelRow.name, ConfigRow.canonical_json)
        .join(LoadRunRow.model)
        .join(LoadRunRow.config)
        .where(LoadRunRow.run_id.in_(runs))
        .order_by(LoadRunRow.run_id.desc())
    )
    with database.read() as session:
        rates = read_rates(session, runs)
        return tuple(_usage(row, rates) for row in session.execute(query))


def count_usages(database: Database) -> Totals:
    """How much the store knows, in two queries."""
    place = (LoadRunRow.machine_id, LoadRunRow.model_id, LoadRunRow.backend)
    profiles = select(*place).where(_COUNTS).distinct().subquery()
    runs = select(func.count(LoadRunRow.run_id)).where(_COUNTS)
    with database.read() as session:
        n_models, n_profiles = session.execute(
            select(func.count(profiles.c.model_id.distinct()), func.count()).select_from(profiles)
        ).one()
        n_runs = session.scalar(runs) or 0
        n_described = session.scalar(select(func.count(ModelRow.model_id))) or 0
    return Totals(n_models, n_profiles, n_runs, n_described)


def discard_usages(database: Database, run_ids: list[int] | None, *, now: datetime) -> int:
    """Mark runs as worth nothing, all of them for None; returns how many.

    They have ended, or are models in use: what one of these generates from then on is a run of its
    own, and counts (:meth:`Writer.record_use`).
    """
    chosen = _COUNTS if run_ids is None else and_(_COUNTS, LoadRunRow.run_id.in_(run_ids))
    with database.write() as session:
        found = list(session.scalars(select(LoadRunRow.run_id).where(chosen)))
        session.execute(update(LoadRunRow).where(chosen).values(discarded_at=now))
        return len(found)


def _usage(found: Row[LoadRunRow, str, str], rates: dict[int, dict[str, Rates]]) -> Usage:
    row, name, canonical_json = found
    is_use = row.purpose is Purpose.USER
    rate = _rate(row, rates.get(row.run_id, {}))
    load = load_time(row.model_s, row.context_s, row.first_eval_s)
    told: dict[str, Any] = json.loads(row.import_json) if row.import_json else {}
    words = (row.contamination or "").split()
    return Usage(
        run_id=row.run_id,
        machine_id=row.machine_id,
        model_id=row.model_id,
        model_name=name,
        backend=row.backend,
        config=_config(canonical_json),
        started_at=row.started_at,
        model_path=Path(row.model_path) if row.model_path else None,
        reason=None if is_use and row.reason in UNTOLD else row.reason,
        load_s=load.total_s if load else told.get("load_s"),
        memory_bytes=_memory_bytes(row) or told.get("peak_rss_bytes"),
        prefill_tps=rate.prefill_tps,
        decode_tps=told.get("tps") if told.get("n_gen") else rate.decode_tps,
        contamination=tuple(Contamination(word) for word in words),
        is_spoilt=bool(rate.n) and not rate.n_clean if is_use else bool(words),
        is_reported=row.import_key is not None,
        n_uses=told.get("n_reps") or 1,
        success_ratio=_success_ratio(row, told),
        hardware=told.get("hardware") or {},
    )


def _rate(row: LoadRunRow, rates: Mapping[str, Rates]) -> Rates:
    """Of ordinary use, those of its commonest requests, which come first."""
    label = next(iter(rates), "") if row.purpose is Purpose.USER else row.workload_id
    return rates.get(label, Rates())


def _memory_bytes(row: LoadRunRow) -> int | None:
    """How much ordinary use takes is known when it is over."""
    is_open = row.purpose is Purpose.USER and row.state is not RunState.COMPLETE
    return None if is_open else row.peak_rss_bytes


def _success_ratio(row: LoadRunRow, told: Mapping[str, Any]) -> float | None:
    """A model in use that was stopped has not failed; any other stopped run says nothing."""
    if row.reason in UNTOLD:
        return 1.0 if row.purpose is Purpose.USER and row.model_s is not None else None
    ratio = told.get("success_ratio")
    return float(row.reason is None) if ratio is None else float(ratio)
