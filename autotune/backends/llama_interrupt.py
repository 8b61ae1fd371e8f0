"""Ending a computation of llama.cpp that nobody wants any more, in the middle of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

_LOOK_S = 0.05
"""Time between two looks: llama.cpp asks before each of a thousand steps of a batch."""


class Interrupt:
    """Computing inside this context ends soon after ``is_wanted`` returns False or raises.

    llama.cpp then fails, and what its cache holds is not known. Only computing on processors and
    on Metal can be ended so. What ``is_wanted`` raises is raised when the context is left.
    """

    def __init__(self, llama: Any, context: Any, is_wanted: Callable[[], bool]) -> None:
        self._llama, self._context, self._is_wanted = llama, context, is_wanted
        self._due = time.monotonic() + _LOOK_S
        self._error: BaseException | None = None
        # Kept on self: llama.cpp holds only the raw pointer.
        self._callback = llama.ggml_abort_callback(self._answer)
        self.came = False
        """Whether computing was ended."""

    def _answer(self, _data: object) -> bool:
        """Whether to end; a callback must not raise."""
        if not self.came and time.monotonic() >= self._due:
            try:
                self.came = not self._is_wanted()
            except BaseException as error:  # passed on in __exit__
                self.came, self._error = True, error
            self._due = time.monotonic() + _LOOK_S
        return self.came

    def __enter__(self) -> Self:
        self._llama.llama_set_abort_callback(self._context, self._callback, None)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _raised: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        nothing = self._llama.ggml_abort_callback()
        self._llama.llama_set_abort_callback(self._context, nothing, None)
        if self._error is not None:
            raise self._error
