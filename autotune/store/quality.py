"""What lossy configurations were found to cost in quality."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select

from autotune.domain.config import Config
from autotune.domain.machine import Build
from autotune.domain.quality import QualityCost
from autotune.store.codec import content_id
from autotune.store.engine import Database
from autotune.store.tables import ConfigRow, QualityRow
from autotune.store.translate.facts import build_row, config_row


def record_quality(
    database: Database,
    cost: QualityCost,
    *,
    machine_id: str,
    model_id: str,
    build: Build,
    config: Config,
    reference: Config,
    text: str,
    measured_at: datetime,
) -> int:
    """Keep what a configuration of a recorded model cost; returns its number."""
    with database.write() as session:
        row = QualityRow(
            machine_id=machine_id,
            model_id=model_id,
            build_id=session.merge(build_row(build)).build_id,
            config_id=session.merge(config_row(config)).config_id,
            reference_config_id=session.merge(config_row(reference)).config_id,
            text_id=content_id(text),
            kl_mean=cost.kl_mean,
            kl_p99=cost.kl_p99,
            top1_agreement=cost.top1_agreement,
            n_tokens=cost.n_tokens,
            measured_at=measured_at,
        )
        session.add(row)
        session.flush()
        return row.quality_id


def quality_costs(database: Database, model_id: str) -> dict[tuple[str, str], QualityCost]:
    """What each cache that was judged costs a model: (type_k, type_v) → the newest figures.

    Machines and the other knobs are not told apart: they change the arithmetic, not the cache.
    """
    query = (
        select(QualityRow, ConfigRow.type_k, ConfigRow.type_v)
        .join(ConfigRow, ConfigRow.config_id == QualityRow.config_id)
        .where(QualityRow.model_id == model_id)
        .order_by(QualityRow.measured_at, QualityRow.quality_id)
    )
    with database.read() as session:
        return {
            (type_k, type_v): QualityCost(
                kl_mean=row.kl_mean,
                kl_p99=row.kl_p99,
                top1_agreement=row.top1_agreement,
                n_tokens=row.n_tokens,
            )
            for row, type_k, type_v in session.execute(query)
        }
