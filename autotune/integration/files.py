"""Model files by path, their headers read once as long as they stay the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import RLock

from autotune.domain.errors import UserError
from autotune.domain.model import ModelFacts
from autotune.facts.gguf import read_model


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """A model file that can be read."""

    path: Path
    """Absolute."""
    facts: ModelFacts


class ModelFiles:
    """Reads headers; a file that changed is read again."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[tuple[int, int], ModelFile]] = {}
        self._lock = RLock()

    def find(self, model_path: str | Path) -> ModelFile:
        """The model in a file.

        Raises GGUFError where it is missing, damaged or no model, UserError for what is no path.
        """
        path = _path(model_path)
        stamp = _stamp(path)
        with self._lock:
            known = self._known.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            file = ModelFile(path=path, facts=read_model(path))
            self._known[path] = (stamp, file)
            return file


def _path(model_path: str | Path) -> Path:
    try:
        path = Path(model_path).expanduser().absolute()
    except (TypeError, RuntimeError):  # the latter: a home of nobody's
        path = None
    if path is None or "\0" in str(path):
        raise UserError(f"model_path={model_path!r} is not valid: give the path of a GGUF file")
    return path


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)  # what is wrong with it is told by who reads it
    return status.st_mtime_ns, status.st_size
