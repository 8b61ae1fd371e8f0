"""``llama-bench -o json`` and ``-o jsonl``: objects in a list, or one a line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from autotune.store.importers.rows import Problem, Row

_MARKS = frozenset({"avg_ts", "ts", "avg_ns", "n_prompt", "n_gen"})
_LOOKED_AT = 5
_BETWEEN = re.compile(r"[\s,]*")
_BEGIN = re.compile(r"^\s*[\[{]", re.MULTILINE)
_APPENDED = re.compile(r"[\]\n][\s,]*\[?\s*(?={)")
"""Where a list that was appended begins, looked for from the end of the list before it."""


def recognises(text: str) -> bool:
    """Whether the first object is a benchmark's: it names its rate or its tokens."""
    return any(map(_is_test, _objects(text, limit=_LOOKED_AT)))


def read_rows(text: str) -> Iterator[Row | Problem]:
    """Every object; what is damaged is named, and what follows on a line of its own is read."""
    for number, value in enumerate(_objects(text), start=1):
        if isinstance(value, Problem):
            yield value
        elif _is_test(value):
            yield Row(place=f"row {number}", cells=value)
        else:
            yield Problem(place=f"row {number}", cause="not a test")


def _is_test(value: Any) -> bool:
    return isinstance(value, dict) and len(_MARKS & value.keys()) > 1


def _objects(text: str, limit: int | None = None) -> Iterator[Any]:
    """Objects of lists, or one after the other: a list that was cut off keeps what it has."""
    begin = _BEGIN.search(text)
    if begin is None:
        return
    decoder, at, n_found = json.JSONDecoder(), begin.end() - 1, 0
    if text[at] == "[":
        at += 1
    while limit is None or n_found < limit:
        at = _after(_BETWEEN, text, at)
        if text.startswith("]", at):
            appended = _APPENDED.search(text, at)
            at = appended.end() if appended else len(text)
        if at >= len(text):
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            line = text.count("\n", 0, at) + 1
            value = Problem(place=f"line {line}", cause="damaged JSON")
            at = _next_object(text, at)
        n_found += 1
        yield value


def _after(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at


def _next_object(text: str, at: int) -> int:
    """Where the next object begins on a line of its own; the end where none does."""
    begin = re.compile(r"\n\s*(?={)").search(text, at)
    return begin.end() if begin else len(text)
