"""Write the frozen database of the newest revision: ``python -m tests.store.make_upgrade_asset``.

Run it once for each released revision, with the program of that release, and commit the file: from
then on test_upgrade.py opens it with every later program. Never write an old one again.
"""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from autotune.domain.run import Reason
from autotune.domain.study import StudyState
from autotune.store import schema
from autotune.store.store import Store
from tests.factories import make_run
from tests.store import examples

ASSETS = Path(__file__).parent / "upgrade_assets"


def make_asset() -> Path:
    """A study with a good and a failed run, and a quality cost, as SQL text; returns the file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "asset.db"
        with Store.open(file, now=examples.epoch) as store:
            _fill(store)
            # Which process recorded it, on which boot, is nobody's business.
            with store.database.write() as session:
                for table in ("load_run", "study"):
                    session.connection().exec_driver_sql(
                        f"UPDATE {table} SET recorder_pid = 1, recorder_birth = NULL"
                    )
        asset = ASSETS / f"{schema.head(schema.migrations_folder())}.sql"
        with closing(sqlite3.connect(file)) as connection:
            asset.write_text("\n".join(connection.iterdump()) + "\n", encoding="utf-8")
    return asset


def _fill(store: Store) -> None:
    examples.record_facts(store)
    study_id = examples.start_study(store)
    prediction = examples.make_prediction()
    examples.record(store, study_id=study_id, prediction=prediction, planned_bytes=100_000_000)
    failed = make_run(reason=Reason.OOM, message="out of memory", generations=(), load=None)
    examples.record(store, failed, study_id=study_id)
    store.record_recommendation(
        examples.make_recommendation(),
        machine_id=examples.MACHINE_ID,
        model_id=examples.MODEL_ID,
        study_id=study_id,
        speedup=1.4,
    )
    examples.record_quality(store)
    store.finish_study(study_id, StudyState.COMPLETE, "done")


if __name__ == "__main__":
    make_asset()
