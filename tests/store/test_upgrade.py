"""Databases of every released revision open in this program, and say what they said."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from autotune.domain.run import Reason
from autotune.domain.study import StudyState
from autotune.store import schema
from autotune.store.engine import Database
from autotune.store.store import Store
from tests.store import examples
from tests.store.make_upgrade_asset import ASSETS

FROZEN = sorted(ASSETS.glob("*.sql"))


@pytest.fixture
def thawed(request: pytest.FixtureRequest, file: Path) -> Path:
    """The frozen database as a file."""
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(request.param.read_text(encoding="utf-8"))
    return file


def test_every_revision_has_a_frozen_database() -> None:
    """A revision without one was never upgraded by a test."""
    assert [asset.stem for asset in FROZEN] == schema.revisions(schema.migrations_folder())


@pytest.mark.parametrize("thawed", FROZEN, indirect=True, ids=lambda asset: asset.stem)
def test_a_frozen_database_opens(thawed: Path) -> None:
    """Facts, runs, predictions, studies and quality costs are all there."""
    with Store.open(thawed, now=examples.epoch) as store:
        failed, good = store.list_runs()
        record = store.load_run(good.run_id)
        (study,) = store.list_studies()
        machine = store.load_machine(examples.MACHINE_ID)
        model = store.load_model(examples.MODEL_ID)
        costs = store.quality_costs(examples.MODEL_ID)

    assert good.decode_tps == pytest.approx(100)
    assert (failed.reason, failed.message) == (Reason.OOM, "out of memory")
    assert record.run is not None
    assert record.run.generations[0].token_ns == (10_000_000,) * 4
    assert record.prediction is not None
    assert record.prediction.decode_tps.q50 == 100
    assert (study.state, study.n_runs, study.n_failed) == (StudyState.COMPLETE, 2, 1)
    assert costs == {("q8_0", "q8_0"): examples.make_quality()}
    assert (machine.cpu, model.name, model.n_layers) == ("Imaginary 2-Core", "tiny", 4)


@pytest.mark.parametrize("thawed", FROZEN, indirect=True, ids=lambda asset: asset.stem)
def test_a_released_migration_was_not_edited(thawed: Path, tmp_path: Path) -> None:
    """Migrating to a revision today makes the tables that it made when it was released."""
    folder = Path(shutil.copytree(schema.migrations_folder(), tmp_path / "migrations"))
    with Database.connect(thawed) as database:
        revision = schema.standing(database).revision
    assert revision is not None
    for file in folder.glob("versions/[0-9]*.py"):
        if file.name.split("_")[0] > revision:
            file.unlink()
    with Database.connect(tmp_path / "today.db") as database:
        schema.prepare(database, folder)

    assert tables(tmp_path / "today.db") == tables(thawed)


def tables(file: Path) -> set[str]:
    """Every CREATE statement of a database."""
    with closing(sqlite3.connect(file)) as connection:
        return {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql}
