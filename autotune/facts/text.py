"""Small files in which a system states one fact each. A file that is not there states nothing."""

from __future__ import annotations

import os
from pathlib import Path

_MAX_BYTES = 1 << 16
"""More than any file that states a fact holds, less than a page of trouble."""


def read_text(path: Path) -> str | None:
    """The text of a file; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


class KeptFile:
    """A file that is read again and again: opening it would cost more than reading it (3×)."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            return

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def read(self) -> str | None:
        """The text at this moment; None where there is no such file, or no longer its process."""
        if self._descriptor is None:
            return None
        try:
            return os.pread(self._descriptor, _MAX_BYTES, 0).decode("utf-8", "replace")
        except OSError:
            return None


def read_int(path: Path) -> int | None:
    """The whole number that is all of a file; None for anything else."""
    return parse_int(read_text(path))


def parse_int(text: str | None) -> int | None:
    """The whole number that is all of a text; None for anything else."""
    try:
        return int(text or "")
    except ValueError:
        return None


def parse_id_list(text: str) -> frozenset[int]:
    """``"0-3,8\\n"`` → {0, 1, 2, 3, 8}."""
    ids: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.strip().isdigit():
            ids.update(range(int(first), int(last or first) + 1))
    return frozenset(ids)
