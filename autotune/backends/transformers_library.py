"""PyTorch and transformers, imported without a network, quiet, and listened to."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from autotune.backends.protocol import EngineError
from autotune.domain.run import Reason

CURE = "pip install 'gguf-autotune[transformers]'"

_SETTINGS = {
    # Models are files of this machine: nothing is looked up on a hub, and nothing is told to it.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
_NEEDED_TO_READ_GGUF = ("accelerate", "gguf")
"""transformers asks for them only when a file is read."""
_EXCERPT_LINES = 20

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
_UNSUPPORTED = ("not supported", "unsupported", "unknown gguf model_type", "unrecognized")


class LibraryLog(logging.Handler):
    """Keeps what transformers warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message."""
        self.note(record.getMessage())

    def note(self, message: str) -> None:
        """Keep a line as if it had been logged."""
        self._lines.append(" ".join(message.split()))

    def clear(self) -> None:
        """Forget what was logged so far."""
        self._lines.clear()

    def excerpt(self) -> str:
        """The latest lines, newest last."""
        return "\n".join(self._lines[-_EXCERPT_LINES:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Libraries:
    """The imported libraries."""

    torch: Any
    transformers: Any
    log: LibraryLog

    @property
    def gpu_family(self) -> str:
        """What PyTorch's GPUs are called here: ``CUDA``, or ``ROCm`` where they are AMD's."""
        return "ROCm" if self.torch.version.hip else "CUDA"

    def failure(self, otherwise: Reason, message: str, error: BaseException) -> EngineError:
        """A failure in the libraries' own words, classed by them."""
        words = " ".join(str(error).split()) or type(error).__name__
        self.log.note(words)
        return EngineError(self._reason(error, words.lower(), otherwise), f"{message}: {words}")

    def _reason(self, error: BaseException, words: str, otherwise: Reason) -> Reason:
        memory = (MemoryError, self.torch.OutOfMemoryError)
        if isinstance(error, memory) or any(hint in words for hint in _NO_MEMORY):
            return Reason.OOM
        unread = isinstance(error, NotImplementedError | ImportError)
        if unread or any(hint in words for hint in _UNSUPPORTED):
            return Reason.UNSUPPORTED
        return otherwise


def import_libraries(environ: MutableMapping[str, str]) -> Libraries:
    """Import them; settings that keep them offline and quiet are put into ``environ`` before.

    ``environ`` is this process's: the libraries read it when they are imported. Raises ImportError
    with the command that installs what is missing.
    """
    environ.update(_SETTINGS)
    for name in _NEEDED_TO_READ_GGUF:
        if importlib.util.find_spec(name) is None:
            raise ImportError(f"No module named {name!r}; get it with: {CURE}")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise ImportError(f"{error}; get it with: {CURE}") from error
    log = LibraryLog()
    transformers.utils.logging.disable_default_handler()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.add_handler(log)
    return Libraries(torch=torch, transformers=transformers, log=log)
