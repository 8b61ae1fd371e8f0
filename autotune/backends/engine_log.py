"""Listening to llama.cpp: everything it logs, and its errors as ours."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

from autotune.backends.llama_log import read_reason
from autotune.backends.protocol import EngineError
from autotune.domain.run import Reason

_LOG_WARN = 3
"""ggml_log_level: 1 debug, 2 info, 3 warn, 4 error, 5 the continuation of the line before."""
_LOG_ERROR = 4
_LOG_CONT = 5


class EngineLog:
    """Receives everything llama.cpp logs; installed once per process."""

    _installed: ClassVar[Any] = None
    """The callback in use. llama.cpp holds only its raw pointer, and longer than any backend lives:
    a collected one would be called all the same."""

    def __init__(self, llama: Any) -> None:
        self.lines: list[str] = []
        self._levels: list[int] = []
        callback = llama.llama_log_callback(self._receive)
        llama.llama_log_set(callback, ctypes.c_void_p(0))
        EngineLog._installed = callback

    def _receive(self, level: int, text: bytes, _user_data: object) -> None:
        line = text.decode("utf-8", "replace")
        if level == _LOG_CONT and self.lines:
            self.lines[-1] += line
        else:
            self.lines.append(line)
            self._levels.append(level)

    def clear(self) -> None:
        """Forget what was logged so far."""
        self.lines.clear()
        self._levels.clear()

    def problems(self, level: int = _LOG_WARN) -> list[str]:
        """Lines of at least that level (warnings and errors by default), oldest first."""
        pairs = zip(self._levels, self.lines, strict=True)
        return [line.strip() for at, line in pairs if at >= level and line.strip()]

    def error(self, otherwise: Reason, message: str) -> EngineError:
        """The failure in llama.cpp's own words, classed by them."""
        problems = self.problems(_LOG_ERROR)
        reason = read_reason(problems, otherwise)
        return EngineError(reason, f"{message}: {problems[0]}" if problems else message)
