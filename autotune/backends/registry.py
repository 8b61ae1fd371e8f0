"""The backends by name."""

from __future__ import annotations

from autotune.backends.llama_cpp import LlamaCppBackend
from autotune.backends.protocol import Backend
from autotune.domain.errors import UserError

_BACKENDS = {LlamaCppBackend.name: LlamaCppBackend}

BACKEND_NAMES = tuple(_BACKENDS)


def get_backend(name: str) -> Backend:
    """The backend of that name, its library not yet imported. Raises UserError for another."""
    if name not in _BACKENDS:
        raise UserError(f"unknown backend {name!r}: choose one of {', '.join(BACKEND_NAMES)}")
    return _BACKENDS[name]()
