"""``llama-bench -o sql``: a CREATE TABLE and INSERTs, executed where they can do no harm."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import count

from autotune.store.importers.rows import Problem, Row

_CREATES = re.compile(r"^\s*CREATE\s+TABLE\b", re.IGNORECASE | re.MULTILINE)
_STATEMENT = re.compile(r"\s*(CREATE|INSERT)\b", re.IGNORECASE)
"""Transactions are left out: each version is read into a database of its own."""
_MADE = re.compile(r"\s*CREATE\s+TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?[\"'`\[]?(\w+)", re.IGNORECASE)
"""The name of the table that a statement makes."""
_NEXT = re.compile(r"(?:INSERT\s+INTO|CREATE\s+TABLE)\b", re.IGNORECASE)
"""llama-bench does not double an apostrophe in a path: what it leaves open ends here."""
_ALLOWED = frozenset(
    {
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_INSERT,
        sqlite3.SQLITE_READ,
        sqlite3.SQLITE_SELECT,
        sqlite3.SQLITE_UPDATE,
    }
)
"""No file is attached, no function called, nothing recursive computed."""
_LONGEST = 1_000_000
"""Characters of one statement; llama-bench's have about a thousand."""


def recognises(text: str) -> bool:
    """Whether the text makes a table and fills one."""
    return bool(_CREATES.search(text)) and "INSERT INTO" in text.upper()


def read_rows(text: str) -> Iterator[Row | Problem]:
    """Every row of every table that the scripts make; a statement that fails is named."""
    numbers = count(1)
    for script in _scripts(_statements(text)):
        with closing(_connect()) as connection:
            for line, statement in script:
                try:
                    connection.execute(statement)
                except (sqlite3.Error, sqlite3.Warning) as error:
                    yield Problem(place=f"line {line}", cause=f"SQL: {error}")
            for cells in _rows(connection):
                yield Row(place=f"row {next(numbers)}", cells=cells)


def _connect() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.set_authorizer(_authorise)
    return connection


def _authorise(action: int, *_: object) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Statements with the line that each begins on; lines of a log between them are left out."""
    begin, statement = 0, ""
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if statement and _NEXT.match(line):
            yield begin, statement
            statement = ""
        if not statement and not _STATEMENT.match(line):
            continue
        begin = begin if statement else number
        statement += line
        if len(statement) > _LONGEST or sqlite3.complete_statement(statement):
            yield begin, statement
            statement = ""
    if statement:
        yield begin, statement


def _scripts(statements: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """The statements, parted where a table is made again: another version has other columns."""
    script: list[tuple[int, str]] = []
    names: set[str] = set()
    for line, statement in statements:
        made = _MADE.match(statement)
        if made and made[1].lower() in names:
            yield script
            script, names = [], set()
        if made:
            names.add(made[1].lower())
        script.append((line, statement))
    yield script


def _rows(connection: sqlite3.Connection) -> Iterator[dict[str, object]]:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        name = table.replace('"', '""')
        for found in connection.execute(f'SELECT * FROM "{name}"'):  # noqa: S608 - quoted
            yield dict(found)
