"""The store: one database, opened, brought up to date, written and read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from autotune.domain.imported import ImportedTest
from autotune.domain.quality import QualityCost
from autotune.domain.stored import StoredPredictor
from autotune.store import predictors, quality, schema
from autotune.store.engine import Database
from autotune.store.imports import Imported, import_tests, known_keys
from autotune.store.kpis import Kpis, Scope, read_kpis
from autotune.store.reader import Reader
from autotune.store.writer import Writer


class Store(Writer, Reader):
    """A :class:`Writer` and a :class:`Reader` of one database. Close it, or use ``with``."""

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        Writer.__init__(self, database, now=now)
        Reader.__init__(self, database)
        self.database = database

    @classmethod
    def open(cls, address: str | Path, *, now: Callable[[], datetime]) -> Store:
        """The store at a path or SQLAlchemy URL, created or upgraded when it must be.

        Before an upgrade the file is copied to ``<file>.<old revision>``. ``now`` tells the time,
        aware. Raises UserError, DataError or SchemaError with one line that names the cure.
        """
        database = Database.connect(address)
        try:
            schema.prepare(database)
        except BaseException:
            database.close()
            raise
        return cls(database, now=now)

    def import_tests(self, tests: Iterable[ImportedTest]) -> Imported:
        """Keep somebody else's tests as runs, all in one transaction; what is known is not added.

        Raises DataError or UserError where the database refuses; then nothing is kept.
        """
        return import_tests(self.database, tests, now=self._now())

    def import_keys(self) -> set[str]:
        """What tells the tests that are there already: see :mod:`autotune.store.imports`."""
        with self.database.read() as session:
            return known_keys(session)

    def fingerprint(self) -> str:
        """Changes whenever a run that teaches is added or taken back."""
        return predictors.fingerprint(self.database)

    def record_predictor(self, **fit: Any) -> int:
        """Keep a fit: see :func:`autotune.store.predictors.record_predictor`."""
        return predictors.record_predictor(self.database, **fit, fitted_at=self._now())

    def latest_predictor(self, *, api: str, versions: str) -> StoredPredictor | None:
        """The newest fit for what an engine computes with, if these versions made it."""
        return predictors.latest_predictor(self.database, api=api, versions=versions)

    def kpis(self, scope: Scope | None = None) -> Kpis:
        """Key figures of ordinary use: see :mod:`autotune.store.kpis`."""
        return read_kpis(self.database, scope or Scope())

    def record_quality(self, cost: QualityCost, **measured: Any) -> int:
        """Keep a quality cost: see :func:`autotune.store.quality.record_quality`."""
        return quality.record_quality(self.database, cost, **measured, measured_at=self._now())

    def quality_costs(self, model_id: str) -> dict[tuple[str, str], QualityCost]:
        """What each judged cache costs a model: (type_k, type_v) → the newest figures."""
        return quality.quality_costs(self.database, model_id)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
