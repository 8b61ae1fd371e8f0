"""The threads that serve requests on one engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from autotune.domain.request import TextCompletion, TextRequest
from autotune.domain.run import Reason
from autotune.serving.endings import RequestError
from autotune.serving.ticket import Ticket

Serve = Callable[[TextRequest, Callable[[str], bool]], TextCompletion]
"""Answers a request; its second argument is given each piece of text, and ends it by False."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What answers requests."""

    serve: Serve
    n_slots: int
    """Requests that it serves at once."""
    is_fatal: Callable[[BaseException], bool]
    """Whether the engine is gone with an error."""


class Crew:
    """One thread for each slot of an engine, each serving one request after another.

    ``take`` waits for the next ticket, given the request before it, and is told by None that the
    crew is no longer wanted; ``leave`` is given the ticket back with its answer or its error.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        name: str,
        take: Callable[[Crew, TextRequest | None], Ticket | None],
        leave: Callable[[Crew, Ticket, TextCompletion | Exception], None],
    ) -> None:
        self.engine = engine
        self.running: dict[Ticket, float] = {}
        """When each was started; guarded by the queue's lock."""
        self._take, self._leave = take, leave
        self.threads = [
            threading.Thread(target=self._work, name=f"{name}-slot-{slot}", daemon=True)
            for slot in range(engine.n_slots)
        ]

    def start(self) -> None:
        """Begin to serve."""
        for thread in self.threads:
            thread.start()

    def _work(self) -> None:
        last: TextRequest | None = None
        while (ticket := self._take(self, last)) is not None:
            self._leave(self, ticket, self._answer(ticket))
            last = ticket.request
            del ticket  # whoever listens to it is not held while it waits

    def _answer(self, ticket: Ticket) -> TextCompletion | Exception:
        try:
            return self.engine.serve(ticket.request, ticket.pass_on)
        except Exception as error:  # it fails alone, the thread goes on
            return error
        except BaseException as error:  # an exit would end whoever asks for the result
            return RequestError(Reason.CRASH, f"the request was ended by {error!r}: ask again")


def join(threads: Iterable[threading.Thread], *, timeout_s: float) -> bool:
    """Wait for threads, never for the own one; whether they have ended."""
    end_at = time.monotonic() + timeout_s
    others = [thread for thread in threads if thread is not threading.current_thread()]
    for thread in others:
        thread.join(max(0.0, end_at - time.monotonic()))
    return not any(thread.is_alive() for thread in others)
