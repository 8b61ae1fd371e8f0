"""The backends by name: those that are built in, and those that installed packages add."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from autotune.backends.ctransformers_llm import CtransformersBackend
from autotune.backends.entry_point import added_backends, make_backend
from autotune.backends.llama_cpp import LlamaCppBackend
from autotune.backends.llama_server import LlamaServerBackend
from autotune.backends.llamafile import LlamafileBackend
from autotune.backends.protocol import Backend
from autotune.backends.transformers_torch import TransformersBackend
from autotune.domain.errors import UserError

_LIBRARIES: Mapping[str, Callable[[], Backend]] = {
    LlamaCppBackend.name: LlamaCppBackend,
    CtransformersBackend.name: CtransformersBackend,
    TransformersBackend.name: TransformersBackend,
}
_PROGRAMS = {
    LlamaServerBackend.name: LlamaServerBackend,
    LlamafileBackend.name: LlamafileBackend,
}

BUILT_IN = (*_LIBRARIES, *_PROGRAMS)
"""Names that no package can take."""


def backend_names() -> tuple[str, ...]:
    """The names that :func:`get_backend` knows; takes milliseconds and imports no backend."""
    return (*BUILT_IN, *(name for name in added_backends() if name not in BUILT_IN))


def get_backend(
    name: str,
    environ: Mapping[str, str],
    *,
    announce: Callable[[int], None] = lambda _pid: None,
) -> Backend:
    """The backend of that name, its library not yet imported. Raises UserError for another.

    An engine that is a program is looked for in ``environ``; ``announce`` is told the number of
    each process that it starts. A package's backend that cannot be made raises EngineError, with
    what is wrong with it, from all that it is asked.
    """
    if name in _PROGRAMS:
        return _PROGRAMS[name](environ, announce=announce)
    if name in _LIBRARIES:
        return _LIBRARIES[name]()
    if (point := added_backends().get(name)) is not None:
        return make_backend(point, environ, announce=announce)
    raise UserError(f"unknown backend {name!r}: choose one of {', '.join(backend_names())}")
