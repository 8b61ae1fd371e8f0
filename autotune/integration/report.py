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
    # Names of files may hold bytes that are no text; JSON has a word for them.
    data = text.encode("utf-8", errors="backslashreplace")
    try:
        _publish(target, data)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"the report cannot be written to {target}: {why}; choose a folder that can be written"
        ) from error
    return target


def _publish(target: Path, data: bytes) -> None:
    """Write beside and move; what cannot be moved is taken away."""
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=f".{target.name}.", delete=False
    ) as file:
        written = Path(file.name)
        try:
            file.write(data)
            file.close()
            written.replace(target)
        except BaseException:
            written.unlink()
            raise
