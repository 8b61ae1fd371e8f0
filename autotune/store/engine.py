"""Connections: how a database is opened, written and read. Whatever only SQLite needs is here.

Three kinds of connection, because SQLite decides these things per connection:

* *writing*: every transaction begins with ``BEGIN IMMEDIATE``. A deferred one that reads first
  and writes then cannot wait for its turn: of 4,500 such transactions from three processes, 1,704
  failed with "database is locked"; begun immediately, none did.
* *reading*: refuses to write; sees the last commit while somebody else is writing.
* *migrating*: as writing, with foreign keys off. With them on, rebuilding a parent table deletes
  the rows that refer to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection as SQLiteConnection
from sqlite3 import OperationalError

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.orm import Session

from autotune.domain.errors import AutotuneError, DataError, UserError

_PATIENCE_S = 5.0
_BUSY = f"busy_timeout = {_PATIENCE_S * 1000:.0f}"
_WAL = "journal_mode = WAL"
_WRITING = (_BUSY, _WAL, "synchronous = NORMAL", "foreign_keys = ON")
_READING = (_BUSY, "query_only = ON")
_MIGRATING = ("busy_timeout = 60000", _WAL, "foreign_keys = OFF")

_EXPLANATIONS: dict[str, tuple[type[AutotuneError], str]] = {
    "SQLITE_FULL": (DataError, "the disk that holds {} is full: free some space and try again"),
    "SQLITE_BUSY": (DataError, "another program keeps {} locked: try again when it is done"),
    "SQLITE_READONLY": (
        UserError,
        "{} cannot be written: make the file and its folder writable, or use another --db",
    ),
    "SQLITE_CANTOPEN": (
        UserError,
        "{} cannot be opened: check that it is a file in a folder you can write, "
        "or use another --db",
    ),
    "SQLITE_NOTADB": (DataError, "{} is not an autotune database: use another --db"),
    "SQLITE_CORRUPT": (DataError, "{} is damaged: restore a copy of it, or use another --db"),
    "SQLITE_CONSTRAINT": (DataError, "{} refused a row that contradicts its rules ({detail})"),
}
"""What SQLite's result codes (or the family they begin with) mean to a person."""


@dataclass(frozen=True, slots=True)
class Database:
    """One database and the two ways into it. Close it, or use ``with``."""

    url: URL
    writer: Engine
    reader: Engine

    @classmethod
    def connect(cls, address: str | Path) -> Database:
        """The database at a path or SQLAlchemy URL; nothing is opened or made yet.

        Raises UserError for an address that no database can have.
        """
        url = parse_address(address)
        try:
            engines = [_make_engine(url, pragmas) for pragmas in (_WRITING, _READING)]
        except (ArgumentError, ImportError) as error:
            raise UserError(f"{_shown(url)} cannot be opened: {error}") from error
        return cls(url, *engines)

    @property
    def file(self) -> Path | None:
        """The SQLite file; None for a database server."""
        return Path(self.url.database or "") if _is_sqlite(self.url) else None

    @property
    def is_there(self) -> bool:
        """Whether there is something to read; a server is taken to be there."""
        with suppress(OSError):
            return self.file is None or self.file.exists()
        return False

    @property
    def label(self) -> str:
        """The name to call it by in messages, without a password."""
        return _shown(self.url)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session in one transaction: committed at the end, rolled back on any error.

        Raises DataError or UserError with one line where the database refuses. Never hold it
        across a measurement: everybody else's writes wait for it.
        """
        with _explained(self.url), Session(self.writer) as session, session.begin():
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one moment of the database and cannot change it."""
        with _explained(self.url), Session(self.reader) as session:
            yield session

    @contextmanager
    def migrate(self) -> Iterator[Connection]:
        """A connection in one transaction, foreign keys off; all or nothing, as :meth:`write`.

        Makes the database's folder when there is none.
        """
        _make_folder(self.file)
        engine = _make_engine(self.url, _MIGRATING)
        try:
            with _explained(self.url), engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def close(self) -> None:
        """Close every connection."""
        self.writer.dispose()
        self.reader.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def parse_address(address: str | Path) -> URL:
    """The URL that ``--db`` means: a path, or an SQLAlchemy URL. Raises UserError."""
    if "://" not in str(address):
        url = URL.create("sqlite", database=str(Path(address).expanduser()))
    else:
        try:
            url = make_url(str(address))
        except ArgumentError:
            raise UserError("--db is not valid: give a path or sqlite:///path") from None
    if _is_sqlite(url) and (url.database or ":memory:") == ":memory:":
        raise UserError("a database in memory would forget everything: give --db a path")
    return url


def broken_references(connection: Connection) -> int:
    """Rows that refer to a row that is not there (a server never lets that happen: 0)."""
    if connection.dialect.name != "sqlite":
        return 0
    return len(connection.exec_driver_sql("PRAGMA foreign_key_check").all())


def _make_engine(url: URL, pragmas: tuple[str, ...]) -> Engine:
    engine = create_engine(url)
    if _is_sqlite(url):
        begin = "BEGIN" if pragmas is _READING else "BEGIN IMMEDIATE"

        def prepare(connection: SQLiteConnection, _: object) -> None:
            # Otherwise Python's driver begins transactions itself: late, deferred, not for DDL.
            connection.isolation_level = None
            for pragma in pragmas:
                _set(connection, pragma)

        event.listen(engine, "connect", prepare)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _set(connection: SQLiteConnection, pragma: str) -> None:
    """Set it, waiting for our turn: the change to WAL fails at once where others would wait."""
    give_up_at = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute(f"PRAGMA {pragma}")
            return
        except OperationalError as error:
            if (
                not error.sqlite_errorname.startswith("SQLITE_BUSY")
                or time.monotonic() > give_up_at
            ):
                raise
            time.sleep(0.01)


def _make_folder(file: Path | None) -> None:
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder {file.parent} cannot be made ({error.strerror}): use another --db"
        ) from error


@contextmanager
def _explained(url: URL) -> Iterator[None]:
    """Turn what the driver says into one line that names the database and the cure."""
    try:
        yield
    except DBAPIError as error:
        raise _explain(url, error) from error


def _explain(url: URL, error: DBAPIError) -> AutotuneError:
    code = getattr(error.orig, "sqlite_errorname", "")
    detail = str(error.orig).splitlines()[0]
    for family, (kind, text) in _EXPLANATIONS.items():
        if code.startswith(family):
            return kind(text.format(_shown(url), detail=detail))
    return DataError(f"{_shown(url)} failed: {detail}")


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _shown(url: URL) -> str:
    return str(url.database) if _is_sqlite(url) else url.render_as_string(hide_password=True)
