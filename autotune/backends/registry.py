"""The backends by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autotune.backends.llama_cpp import LlamaCppBackend
from autotune.backends.llama_server import LlamaServerBackend
from autotune.backends.llamafile import LlamafileBackend
from autotune.backends.protocol import Backend
from autotune.backends.transformers_torch import TransformersBackend
from autotune.domain.errors import UserError

_LIBRARIES: Mapping[str, Callable[[], Backend]] = {
    LlamaCppBackend.name: LlamaCppBackend,
    TransformersBackend.name: TransformersBackend,
}
_PROGRAMS = {
    LlamaServerBackend.name: LlamaServerBackend,
    LlamafileBackend.name: LlamafileBackend,
}

BACKEND_NAMES = (*_LIBRARIES, *_PROGRAMS)


def get_backend(
    name: str,
    environ: Mapping[str, str],
    *,
    announce: Callable[[int], None] = lambda _pid: None,
) -> Backend:
    """The backend of that name, its library not yet imported. Raises UserError for another.

    An engine that is a program is looked for in ``environ``; ``announce`` is told the number of
    each process that it starts.
    """
    if name in _PROGRAMS:
        return _PROGRAMS[name](environ, announce=announce)
    if name not in _LIBRARIES:
        raise UserError(f"unknown backend {name!r}: choose one of {', '.join(BACKEND_NAMES)}")
    return _LIBRARIES[name]()
