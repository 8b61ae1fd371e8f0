"""Reports as files: whole, or not at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.domain.errors import UserError


def write_report(path: Path, report: Mapping[str, Any]) -> Path:
    """Write a JSON file beside its place and move it there; returns its absolute path.

    Raises UserError where the folder is missing or cannot be written.
    """
    target = path.absolute()
    text = json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n"
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=target.parent, prefix=f".{target.name}.", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
        Path(file.name).replace(target)
    except OSError as error:
        with_cure = f"the report cannot be written to {target}: {error.strerror}"
        raise UserError(f"{with_cure}; choose a folder that can be written") from error
    return target
