"""What came of loading a model, as applications read it: by attribute or by key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LoadingResult(Mapping[str, Any]):
    """``result.success`` and ``result["success"]`` are the same."""

    success: bool
    backend_used: str
    """Name of the backend that holds the model, or that was tried last."""
    hardware_used: str = "cpu"
    """``cpu``, ``gpu``, or ``cpu+gpu`` where the layers are shared."""
    load_time: float = 0.0
    """Milliseconds from nothing to ready; 0 where nothing was loaded."""
    memory_usage: int = 0
    """Resident memory of the engine after the load, in MiB; 0 where nothing was loaded."""
    error_message: str | None = None
    """Why it failed, in one line."""
    reasoning: tuple[str, ...] = ()
    """Why this backend and this configuration, each line with its number."""
    tried: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The backends that failed before: name → why."""

    def __getitem__(self, key: str) -> Any:
        if key not in self._names():
            raise KeyError(key)
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    @classmethod
    def failure(cls, backend: str, error: Exception) -> LoadingResult:
        """Nothing was loaded; the error says why, in one line."""
        return cls(success=False, backend_used=backend, error_message=str(error))

    def replace(self, **changes: Any) -> LoadingResult:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, JSON-ready."""
        return {**self, "reasoning": list(self.reasoning), "tried": dict(self.tried)}

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(cls))
