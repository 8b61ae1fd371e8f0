"""Revisions: new, old, newer and foreign databases, and migrations that fail."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine

from autotune.domain.errors import DataError, SchemaError
from autotune.store import schema
from autotune.store.engine import Database
from autotune.store.store import Store
from autotune.store.tables import Base
from tests.factories import make_machine
from tests.store import examples

REVISION = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "9001", {head!r}

def upgrade():
    {body}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations, to plant some in."""
    return Path(shutil.copytree(schema.migrations_folder(), tmp_path / "100% migrations"))


@pytest.fixture
def old_file(store: Store, file: Path) -> Path:
    """A database with rows, closed; a planted revision makes it old."""
    examples.record(store)
    store.close()
    return file


@pytest.fixture
def database(old_file: Path) -> Iterator[Database]:
    with Database.connect(old_file) as database:
        yield database


def plant(folder: Path, body: str) -> None:
    """Add a revision that does this."""
    text = REVISION.format(head=schema.head(folder), body=body)
    (folder / "versions" / "9001_planted.py").write_text(text)


def dump(file: Path) -> list[str]:
    """Every table, index and row, as SQL."""
    with closing(sqlite3.connect(file)) as connection:
        return list(connection.iterdump())


def declarations(connection: Connection) -> set[str]:
    """Every line of every CREATE statement: checks and defaults too, which alembic overlooks.

    What was added to a table later stands on its last line.
    """
    query = (
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND type <> 'view' "
        "AND name <> 'autotune_revision'"
    )
    statements = "\n".join(connection.exec_driver_sql(query).scalars())
    return {line.strip(" \t,") for line in re.split(r"\n|, (?=\w+ [A-Z])", statements)}


def differences(database: Database) -> list[object]:
    """What alembic would change to make the database what the tables say."""
    with database.read() as session:
        options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(session.connection(), opts=options)
        return list(compare_metadata(context, Base.metadata))


def test_the_migrations_make_what_the_tables_say(empty_store: Store) -> None:
    """Alembic finds no difference between a migrated database and the classes."""
    assert differences(empty_store.database) == []


@pytest.mark.parametrize(
    "fault",
    [
        "ALTER TABLE load_run ADD COLUMN stray TEXT",
        "DROP INDEX ix_load_run_study_id",
        "CREATE TABLE stray (id INTEGER)",
    ],
)
def test_a_planted_difference_is_found(empty_store: Store, fault: str) -> None:
    """The comparison can fail."""
    with empty_store.database.write() as session:
        session.connection().exec_driver_sql(fault)

    assert differences(empty_store.database) != []


def test_the_migrations_declare_the_same_checks(empty_store: Store) -> None:
    """Line by line, as SQL: closed sets, signs and names of constraints."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        expected = declarations(connection)
    engine.dispose()

    with empty_store.database.read() as session:
        assert declarations(session.connection()) == expected
    assert any("reason IN ('timeout'" in line for line in expected)


def test_alembic_agrees_with_the_file_names(folder: Path) -> None:
    """The newest number is the head, and there is one."""
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))

    assert ScriptDirectory.from_config(config).get_heads() == [schema.head(folder)]


def test_a_new_file_is_migrated_and_needs_no_copy(file: Path) -> None:
    """Empty before, current after, and nothing lies beside it."""
    with Database.connect(file) as database:
        assert schema.prepare(database).state is schema.State.EMPTY
        assert schema.standing(database).state is schema.State.CURRENT
    assert [path.name for path in file.parent.iterdir() if path.name != "home"] == [file.name]


def test_looking_at_nothing_makes_nothing(file: Path) -> None:
    """A database that is not there stands as empty and is not created."""
    with Database.connect(file) as database:
        assert schema.standing(database).state is schema.State.EMPTY
    assert not file.exists()


def test_an_old_database_is_copied_and_upgraded(
    database: Database, old_file: Path, folder: Path
) -> None:
    """Parents may be rebuilt: with foreign keys off no child row is lost."""
    plant(
        folder,
        'with op.batch_alter_table("machine", recreate="always") as table:\n'
        '        table.add_column(sa.Column("colour", sa.Text()))',
    )
    before = dump(old_file)

    assert schema.prepare(database, folder).state is schema.State.OLD

    assert schema.standing(database, folder).state is schema.State.CURRENT
    copy = f"telemetry.db.{schema.head(schema.migrations_folder())}"
    assert dump(old_file.with_name(copy)) == before
    with database.read() as session:
        count = "SELECT count(*) FROM probe_point JOIN probe USING (probe_id) JOIN machine"
        assert session.connection().exec_driver_sql(count).scalar() == 2


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (
            "op.add_column('load_run', sa.Column('x', sa.Text())); raise RuntimeError('boom')",
            "boom",
        ),
        ("op.execute(\"UPDATE load_run SET state = 'odd'\")", "CHECK constraint failed"),
        ("op.execute('DELETE FROM machine')", "refer to rows that are gone"),
    ],
)
def test_a_failed_migration_changes_nothing(
    database: Database, old_file: Path, folder: Path, body: str, complaint: str
) -> None:
    """Schema, rows and revision are as before, and the error is one line."""
    plant(folder, body)
    before = dump(old_file)

    with pytest.raises(SchemaError, match=complaint) as raised:
        schema.prepare(database, folder)

    assert "\n" not in str(raised.value)
    assert str(old_file) in str(raised.value)
    assert dump(old_file) == before
    assert schema.standing(database).state is schema.State.CURRENT


def test_a_newer_database_is_refused_and_kept(old_file: Path) -> None:
    """The message says who must be upgraded."""
    with closing(sqlite3.connect(old_file)) as connection, connection:
        connection.execute("UPDATE autotune_revision SET version_num = '9999'")
    before = dump(old_file)

    with pytest.raises(SchemaError) as raised:
        Store.open(old_file, now=examples.epoch)

    assert str(raised.value) == (
        f"{old_file} was written by a newer autotune (revision 9999): "
        "upgrade autotune, or use another --db"
    )
    assert dump(old_file) == before


@pytest.mark.parametrize("table", ["alembic_version (version_num)", "notes (text)"])
def test_a_database_of_another_program_is_refused_and_kept(file: Path, table: str) -> None:
    """Not one byte of it changes: not even its journal mode."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"CREATE TABLE {table}")
    before = file.read_bytes()

    with pytest.raises(DataError, match="is not an autotune database: use another --db"):
        Store.open(file, now=examples.epoch)

    assert file.read_bytes() == before


def test_a_file_of_another_kind_is_refused_and_kept(file: Path) -> None:
    """A model given as --db stays a model."""
    file.write_bytes(b"GGUF" * 1000)

    with pytest.raises(DataError, match="is not an autotune database: use another --db"):
        Store.open(file, now=examples.epoch)

    assert file.read_bytes() == b"GGUF" * 1000


def test_a_copy_is_whole_while_somebody_writes(store: Store, file: Path, tmp_path: Path) -> None:
    """It holds the last commit, in one file, and replaces an older copy."""
    copy = tmp_path / "copy.db"
    schema.backup(file, copy)
    with store.database.write() as session:
        session.connection().exec_driver_sql("UPDATE machine SET cpu = 'uncommitted'")
        assert schema.backup(file, copy) == copy

    with Store.open(copy, now=examples.epoch) as copied:
        assert copied.load_machine(examples.MACHINE_ID) == make_machine()


def test_a_copy_that_cannot_be_made_says_so(store: Store, file: Path, tmp_path: Path) -> None:
    """One line with both names."""
    with pytest.raises(DataError, match=r"telemetry\.db could not be copied to .*nowhere"):
        schema.backup(file, tmp_path / "nowhere" / "copy.db")
    with pytest.raises(DataError, match="is a folder: name a file in it"):
        schema.backup(file, tmp_path)


def test_a_copy_takes_the_place_of_nothing_else(store: Store, file: Path, tmp_path: Path) -> None:
    """Such as a model, by a slip of the hand. A file that is empty holds nothing."""
    model, empty = tmp_path / "model.gguf", tmp_path / "empty.db"
    model.write_bytes(b"GGUF" * 10)
    empty.touch()

    with pytest.raises(DataError, match="no copy of a store: give the copy another name"):
        schema.backup(file, model)

    assert model.read_bytes() == b"GGUF" * 10
    assert schema.backup(file, empty).stat().st_size


def test_a_copy_does_not_take_the_place_of_the_store(store: Store, file: Path) -> None:
    """Neither by the store's own name nor by another one; the file stays the one that is open."""
    before = file.stat().st_ino
    link = file.with_name("link.db")
    link.hardlink_to(file)
    for name in (file, link):
        with pytest.raises(DataError, match="is the store itself: give its copy another name"):
            schema.backup(file, name)

    assert file.stat().st_ino == before


def test_the_template_writes_a_revision_that_runs(database: Database, folder: Path) -> None:
    """``alembic revision`` works with script.py.mako, without an alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    command.revision(config, message="say something", rev_id="9001")

    schema.prepare(database, folder)

    assert schema.standing(database, folder).revision == "9001"
