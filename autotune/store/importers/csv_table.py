"""CSV: ``llama-bench -o csv`` of any year, and the common table that public sets are kept in."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from autotune.store.importers.rows import Problem, Row

_SEARCHED_LINES = 200
"""Lines of an engine's log that may stand before the header."""


def recognises(text: str) -> bool:
    """Whether a line near the beginning is the header of a benchmark table."""
    lines = text.splitlines()[:_SEARCHED_LINES]
    return any(_is_header(line.split(",")) for line in lines)


def read_rows(text: str) -> Iterator[Row | Problem]:
    """Every row below a header; a later header, of another version, begins another table."""
    columns: list[str] = []
    lines = list(io.StringIO(text.replace("\0", ""), newline=""))
    reader = csv.reader(lines)
    while True:
        begin = reader.line_num
        cells = _next(reader)
        if cells is None:
            return
        here = [(reader.line_num, cells)]
        if reader.line_num > begin + 1 and len(cells) != len(columns):
            # A quote that a cut row left open swallowed the lines below it.
            alone = range(begin, reader.line_num)
            here = [(n + 1, _next(csv.reader([lines[n]])) or []) for n in alone]
        for number, found in here:
            if found and _is_header(found):
                columns = [_plain(cell) for cell in found]
            elif found and columns:
                yield _row(f"line {number}", columns, found)


def _next(reader: Iterator[list[str]]) -> list[str] | None:
    """The next cells; one that is too long for any table stands alone; None at the end."""
    try:
        return next(reader, None)
    except csv.Error as error:
        return [str(error)]


def _row(place: str, columns: Sequence[str], cells: Sequence[str]) -> Row | Problem:
    if len(cells) != len(columns):
        return Problem(place=place, cause=f"{len(cells)} cells, but {len(columns)} columns")
    return Row(place=place, cells=dict(zip(columns, cells, strict=True)))


def _is_header(cells: Sequence[str]) -> bool:
    names = {_plain(cell) for cell in cells}
    return bool(names & {"ts", "avg_ts"}) and bool(names & {"n_prompt", "n_gen"})


def _plain(cell: str) -> str:
    return cell.strip().strip('"')
