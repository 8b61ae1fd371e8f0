"""Small files in which a system states one fact each. A file that is not there states nothing."""

from __future__ import annotations

from pathlib import Path


def read_text(path: Path) -> str | None:
    """The text of a file; None if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The whole number that is all of a file; None for anything else."""
    try:
        return int(read_text(path) or "")
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
