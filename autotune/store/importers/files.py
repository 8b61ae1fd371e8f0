"""A file of somebody else's telemetry as tests, whatever its format.

The format is told by what is in the file: people rename files, and redirect every format to
``.txt``.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autotune.domain.errors import DataError, UserError
from autotune.domain.imported import ImportedTest
from autotune.store.importers import app_cache, csv_table, json_lists, markdown, sql_script
from autotune.store.importers.columns import read_test
from autotune.store.importers.rows import Problem, Row

FORMATS = "llama-bench JSON, JSONL, CSV, markdown or SQL, or model_performance_cache.json"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MOST_BYTES = 512 * 1024**2
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Windows PowerShell redirects as UTF-16."""
_READERS: tuple[tuple[Callable[[str], bool], Callable[[str], Iterator[Row | Problem]]], ...] = (
    (json_lists.recognises, json_lists.read_rows),
    (app_cache.recognises, app_cache.read_rows),
    (sql_script.recognises, sql_script.read_rows),
    (csv_table.recognises, csv_table.read_rows),
    (markdown.recognises, markdown.read_rows),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedFile:
    """What a file says."""

    tests: tuple[ImportedTest, ...]
    problems: tuple[str, ...]
    """A line for each row that could not be read: where, and why."""


def read_file(path: Path, *, machine: str | None = None) -> ImportedFile:
    """The tests of a file, and what is wrong with the rows that are left out.

    ``machine`` names the machine where the file does not. Raises UserError for a file that is not
    there, DataError for one of no known format.
    """
    text = _read_text(path)
    read_rows = next((read for recognises, read in _READERS if recognises(text)), None)
    if read_rows is None:
        raise DataError(f"{path} is no benchmark that can be read: give {FORMATS}")
    tests: list[ImportedTest] = []
    problems: list[str] = []
    for row in read_rows(text):
        try:
            tests.append(_test(row, source=path.name, machine=machine))
        except DataError as error:
            problems.append(_printable(f"{row.place}: {error}"))
    if not tests and not problems:
        raise DataError(f"{path} has no test in it: give {FORMATS}")
    return ImportedFile(tests=tuple(tests), problems=tuple(problems))


def _test(row: Row | Problem, *, source: str, machine: str | None) -> ImportedTest:
    if isinstance(row, Problem):
        raise DataError(row.cause)
    return read_test(row.cells, source=source, machine=machine, place=row.place)


def _printable(line: str) -> str:
    """A damaged file's own characters do not reach the terminal as commands."""
    return "".join(letter if letter.isprintable() else _REPLACEMENT for letter in line)


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise DataError(f"{path} is too large to be a benchmark: give {FORMATS}")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give another FILE") from error
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    return data.decode(encoding, "replace").replace("\0", _REPLACEMENT)
