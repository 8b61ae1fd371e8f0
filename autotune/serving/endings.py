"""How a request can end without an answer."""

from __future__ import annotations

from autotune.backends.protocol import EngineError
from autotune.domain.errors import UserError, WorkFailedError
from autotune.domain.run import Reason
from autotune.domain.units import human_seconds

_SURVIVED = frozenset({Reason.CONSTRAINT, Reason.UNSUPPORTED, Reason.TIMEOUT, Reason.CANCELLED})
"""Reasons for which an engine refuses or gives up a request, and goes on."""


class RequestError(WorkFailedError):
    """A request got no answer; ``reason`` tells which of the known things happened to it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def is_fatal(error: BaseException) -> bool:
    """Whether an error means that the engine is gone, by its reason. Its owner may know better."""
    return isinstance(error, EngineError) and error.reason not in _SURVIVED


def too_late(waited_s: float) -> RequestError:
    """Its turn did not come in time."""
    cure = "give it a longer timeout or a higher priority"
    return RequestError(Reason.TIMEOUT, f"not started within {human_seconds(waited_s)}: {cure}")


def cancelled() -> RequestError:
    """It was taken back while it was served, or the queue was stopped."""
    return RequestError(
        Reason.CANCELLED, "the request was cancelled, or the queue stopped: submit it again"
    )


def asked_within() -> UserError:
    """A listener waits for another answer of the engine that waits for the listener."""
    return UserError("this listener's own answer has not ended: ask for another one after that")


def died(error: BaseException) -> RequestError:
    """The engine died before its turn."""
    reason = error.reason if isinstance(error, EngineError) else Reason.CRASH
    return RequestError(reason, f"the engine died ({error}): load the model again")
