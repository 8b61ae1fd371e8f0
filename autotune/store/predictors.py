"""Fits of the predictor: what each learned from, how good it was, and the state of the newest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Select, case, func, literal, select, update

from autotune.domain.run import Purpose
from autotune.domain.stored import RunState, StoredPredictor
from autotune.store.codec import to_json
from autotune.store.engine import Database
from autotune.store.observations import TEACHES
from autotune.store.tables import GenerationRow, LoadRunRow, PredictorRow, ProbeRow

_NEWS = (1, 4, 16, 64, 256)
"""Generations of a run at which there is something new to learn from it."""


def fingerprint(database: Database) -> str:
    """Changes whenever a run that teaches is added or taken back, or a machine is probed anew.

    A run of ordinary use changes it a few times as its generations become many, and at its end: a
    predictor that learned from each one would do nothing else.
    """
    with database.read() as session:
        n, newest = session.execute(
            select(func.count(LoadRunRow.run_id), func.max(LoadRunRow.run_id)).where(TEACHES)
        ).one()
        probe = session.scalar(select(func.max(ProbeRow.probe_id)))
        used = session.scalar(_news_of_use())
    return f"{n} runs to {newest or 0}, use {used or 0}, probe {probe or 0}"


def _news_of_use() -> Select[int]:
    """How often runs of ordinary use said something new: at :data:`_NEWS`, and when they ended."""
    n = func.count(GenerationRow.generation_id)
    news = sum((case((n >= least, 1), else_=0) for least in _NEWS), start=literal(0))
    run = (
        select((news + case((LoadRunRow.state == RunState.RUNNING, 0), else_=1)).label("news"))
        .outerjoin(GenerationRow, GenerationRow.run_id == LoadRunRow.run_id)
        .where(TEACHES, LoadRunRow.purpose == Purpose.USER)
        .group_by(LoadRunRow.run_id, LoadRunRow.state)
        .subquery()
    )
    return select(func.sum(run.c.news))


def record_predictor(
    database: Database,
    *,
    api: str,
    versions: str,
    fingerprint: str,
    n_runs: int,
    promoted: bool,
    reason: str,
    errors: Mapping[str, float],
    elapsed_s: float,
    state: bytes,
    fitted_at: datetime,
) -> int:
    """Keep a fit; returns its number. The states of earlier fits for this API are dropped."""
    with database.write() as session:
        session.execute(update(PredictorRow).where(PredictorRow.api == api).values(state=None))
        row = PredictorRow(
            api=api,
            versions=versions,
            fingerprint=fingerprint,
            n_runs=n_runs,
            promoted=promoted,
            reason=reason,
            errors_json=to_json(dict(errors)),
            fitted_at=fitted_at,
            elapsed_s=elapsed_s,
            state=state,
        )
        session.add(row)
        session.flush()
        return row.predictor_id


def latest_predictor(database: Database, *, api: str, versions: str) -> StoredPredictor | None:
    """The newest fit for this API, if these versions made it; else None."""
    newest = (
        select(PredictorRow)
        .where(PredictorRow.api == api)
        .order_by(PredictorRow.predictor_id.desc())
        .limit(1)
    )
    with database.read() as session:
        row = session.scalar(newest)
        if row is None or row.versions != versions:
            return None
        return StoredPredictor(
            predictor_id=row.predictor_id,
            fingerprint=row.fingerprint,
            n_runs=row.n_runs,
            promoted=row.promoted,
            reason=row.reason,
            fitted_at=row.fitted_at,
            state=row.state,
        )
