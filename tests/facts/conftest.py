"""Recorded systems, planted as a file tree, and small GGUF files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

RECORDED = Path(__file__).parent / "recorded"


def recorded(name: str) -> str:
    """The text of a recording."""
    return (RECORDED / f"{name}.txt").read_text()


@pytest.fixture
def plant(tmp_path: Path) -> Callable[[str], Path]:
    """Plants a recording (``=== path`` before each file) and returns the root of the tree."""

    def plant(name: str) -> Path:
        root = tmp_path / name
        for file in recorded(name).split("=== ")[1:]:
            path, _, text = file.partition("\n")
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return root

    return plant
