"""What every format comes down to: rows, each with its place in the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: cells by the names of :mod:`autotune.store.importers.columns`."""

    place: str
    """Such as ``line 12``."""
    cells: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A row that cannot be read."""

    place: str
    cause: str

    def __str__(self) -> str:
        return f"{self.place}: {self.cause}"
