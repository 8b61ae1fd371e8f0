"""Packages with backends of their own, installed as a wheel would be, in a folder of a test."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent.parent / "README.md"


def readme_backend() -> str:
    """The backend that the README shows."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    code: str,
    points: str,
    name: str = "reading",
) -> None:
    """Install a package of one module with entry points, for this process and for its children."""
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[autotune.backends]\n{points}\n")
    monkeypatch.syspath_prepend(str(folder))
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    importlib.invalidate_caches()
