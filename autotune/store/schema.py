"""The revision of a database: which one it has, and how it gets to this program's.

Revisions are numbered files in ``migrations/versions``, one after the other. A new database takes
the same road as an old one: every table is made by a migration.
"""

from __future__ import annotations

import enum
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from autotune.domain.errors import DataError, SchemaError
from autotune.store.engine import Database, broken_references

VERSION_TABLE = "autotune_revision"
"""Where alembic notes the revision. A name of our own tells our databases from others'."""
_MAGIC = b"SQLite format 3\0"


class State(enum.StrEnum):
    """How a database stands to this program; reads well after "it is"."""

    EMPTY = "empty"
    CURRENT = "current"
    OLD = "older than this program"
    NEWER = "newer than this program"
    FOREIGN = "not an autotune database"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A database beside this program."""

    label: str
    """The database's name in messages."""
    state: State
    revision: str | None
    """None for a database that is empty or not ours."""
    head: str
    """The revision this program works with."""


def migrations_folder() -> Path:
    """The migrations inside the installed package, else those of the checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "_migrations"
    return packaged if packaged.is_dir() else package.parent / "migrations"


def revisions(folder: Path) -> list[str]:
    """Every revision this program knows, oldest first.

    Read from the file names, so that opening a current database need not import alembic (0.1 s).
    """
    return sorted(file.name.split("_")[0] for file in folder.glob("versions/[0-9]*.py"))


def head(folder: Path) -> str:
    """The revision this program works with."""
    return revisions(folder)[-1]


def current(connection: Connection) -> str | None:
    """The revision of a database; None for one that is empty or not ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608
    return None if revision is None else str(revision)


def check(connection: Connection, folder: Path) -> State:
    """How a database stands to the program whose migrations lie in the folder."""
    revision = current(connection)
    if revision is None:
        return State.FOREIGN if inspect(connection).get_table_names() else State.EMPTY
    if revision == head(folder):
        return State.CURRENT
    return State.OLD if revision in revisions(folder) else State.NEWER


def standing(database: Database, folder: Path | None = None) -> Standing:
    """How a database stands to this program; changes nothing. Raises DataError or UserError."""
    folder = folder or migrations_folder()
    state, revision = State.EMPTY, None
    if database.is_there:
        with database.read() as session:
            connection = session.connection()
            state, revision = check(connection, folder), current(connection)
    return Standing(label=database.label, state=state, revision=revision, head=head(folder))


def prepare(database: Database, folder: Path | None = None) -> Standing:
    """Create, upgrade or refuse a database; returns how it stood before.

    Raises SchemaError for a newer one, DataError for one that is not ours, and leaves both as
    they are.
    """
    folder = folder or migrations_folder()
    before = standing(database, folder)
    if before.state is State.NEWER:
        raise SchemaError(
            f"{before.label} was written by a newer autotune (revision {before.revision}): "
            "upgrade autotune, or use another --db"
        )
    if before.state is State.FOREIGN:
        raise DataError(f"{before.label} is not an autotune database: use another --db")
    if before.state is not State.CURRENT:
        upgrade(database, folder)
    return before


def upgrade(database: Database, folder: Path) -> Path | None:
    """Bring a database to the newest revision, all or nothing; returns the copy made before.

    The copy lies beside the file, ``telemetry.db`` → ``telemetry.db.0001``; a new database needs
    none. Raises SchemaError when a migration fails; then nothing has changed.
    """
    with database.migrate() as connection:
        # Asked again inside the transaction: another process may have been here first.
        state, revision = check(connection, folder), current(connection)
        if state is State.CURRENT:
            return None
        try:
            copy = _copy_before(database, revision)
            _run_migrations(connection, folder)
            if broken := broken_references(connection):
                raise DataError(f"{broken} rows refer to rows that are gone")
        except Exception as error:
            reason = (str(error) or repr(error)).splitlines()[0]
            raise SchemaError(
                f"{database.label} could not be upgraded from revision {revision or 'nothing'} "
                f"to {head(folder)} and stays as it was: {reason}"
            ) from error
    return copy


def backup(file: Path, copy: Path) -> Path:
    """Copy a database as of its last commit, whoever is writing; returns the copy's path.

    An older copy of that name is replaced, and only by a complete one. Raises DataError, also
    where the copy would take the place of what is no database, or of the database itself: who has
    that open would go on writing into a file that nobody finds.
    """
    if copy.is_dir():
        raise DataError(f"{copy} is a folder: name a file in it")
    if copy.exists() and copy.samefile(file):
        raise DataError(f"{copy} is the store itself: give its copy another name")
    if copy.exists() and not _is_sqlite(copy):
        raise DataError(f"{copy} is there, and no copy of a store: give the copy another name")
    partial = copy.with_name(f"{copy.name}.partial")
    try:
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, not three
        return partial.replace(copy)
    except (sqlite3.Error, OSError) as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{file} could not be copied to {copy}: {error}") from error


def _is_sqlite(file: Path) -> bool:
    """By its first bytes (https://www.sqlite.org/fileformat.html, section 1.3); or it is empty."""
    with file.open("rb") as start:
        return start.read(len(_MAGIC)) in (_MAGIC, b"")


def _copy_before(database: Database, revision: str | None) -> Path | None:
    if revision is None or database.file is None:
        return None
    return backup(database.file, database.file.with_name(f"{database.file.name}.{revision}"))


def _run_migrations(connection: Connection, folder: Path) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    command.upgrade(config, "head")
