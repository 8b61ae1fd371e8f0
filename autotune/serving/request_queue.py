"""The queue of requests before an engine."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Self

from autotune.domain.arguments import require_number, require_whole
from autotune.domain.errors import UserError
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.serving.batch_size import BatchSize
from autotune.serving.crew import Crew, Engine, Serve, join
from autotune.serving.endings import RequestError, cancelled, died, is_fatal, too_late
from autotune.serving.queue_stats import Outcome, QueueStats, Tally
from autotune.serving.ticket import RequestFuture, Ticket
from autotune.serving.waiting_line import WaitingLine

MAX_PRIORITY = 1000
_GRACE_S = 5.0
"""How long a request that was told to end is waited for."""

_log = logging.getLogger(__name__)


class RequestQueue:
    """Serves requests on an engine: one after another, or ``n_slots`` at once.

    Each ends as its future says: with a completion, with the engine's own error, or with a
    :class:`RequestError` (TIMEOUT: its turn did not come in time; CANCELLED: it was taken back, or
    the queue was stopped; another reason: the engine died before its turn). Higher priorities
    go first (see :func:`ticket.rank`); within one, who came first, except inside a batch, which is
    ordered by what the engine's cache can reuse (see :func:`ticket.choose`). A batch is collected
    for at most ``max_wait_s`` while the engine is idle; its size adapts (see :class:`BatchSize`).

    Without an engine requests wait for one. Memory is bounded: at most ``max_pending`` wait, an
    answer is kept by nobody but the future's holder, and times by the latest 1024. The threads
    are daemons: a program that ends does not wait for them. As a context manager: serves
    everything on leaving, drops what waits on leaving by an exception (Ctrl-C).
    """

    def __init__(
        self,
        serve: Serve | None = None,
        *,
        n_slots: int = 1,
        max_batch_size: int = 8,
        max_wait_s: float = 0.1,
        max_pending: int = 10_000,
        aging_s: float = 30.0,
        service_goal_s: float = 30.0,
        is_memory_tight: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        name: str = "autotune-queue",
    ) -> None:
        """``is_memory_tight`` is asked after each request. Raises UserError for absurd numbers."""
        require_whole("max_batch_size", max_batch_size, low=1, high=1024)
        require_number("max_wait_s", max_wait_s, low=0, high=60)
        require_whole("max_pending", max_pending, low=1, high=10**7)
        require_number("aging_s", aging_s, low=1e-3, high=1e9)
        self._max_pending = max_pending
        self._is_memory_tight, self._clock, self._name = is_memory_tight, clock, name
        self._size = BatchSize(max_batch_size, service_goal_s=service_goal_s)
        self._line = WaitingLine(self._size, max_wait_s=max_wait_s, aging_s=aging_s)
        self._tally = Tally()
        self._changed = threading.Condition()
        self._n_tickets = 0
        self._is_open = False
        self._engine: Engine | None = None
        self._crew: Crew | None = None
        self._keeper: threading.Thread | None = None
        self._fault: RequestError | None = None
        if serve is not None:
            self.attach(serve, n_slots=n_slots)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop(drain=error is None)

    @property
    def is_running(self) -> bool:
        """Whether it takes requests."""
        return self._is_open

    @property
    def has_engine(self) -> bool:
        """Whether there is an engine to serve them."""
        return self._engine is not None

    @property
    def is_served_here_alone(self) -> bool:
        """Whether nobody serves but the current thread: what waits, waits for it."""
        crew = self._crew
        return crew is not None and crew.threads == [threading.current_thread()]

    def start(self) -> None:
        """Take and serve requests; harmless where it does already.

        The threads begin with the first request.
        """
        with self._changed:
            if self._keeper is None:
                self._is_open = True

    def stop(self, *, drain: bool = False, timeout_s: float | None = None) -> None:
        """Take no more requests and end the threads; harmless where it is stopped.

        ``drain`` serves what waits first, for at most ``timeout_s`` (None: as long as it takes).
        What then waits fails with CANCELLED, what runs ends at its next piece of text; an engine
        that does not come back within 5 s is left to its thread. Raises UserError where a request
        that is being served would wait for itself.
        """
        with self._changed:
            if drain and self._crew and threading.current_thread() in self._crew.threads:
                raise UserError("a request cannot drain its own queue: call stop(drain=False)")
            self._is_open = False
            self._changed.notify_all()
        try:
            if drain:
                with self._changed:
                    self._changed.wait_for(self._is_drained, timeout_s)
        finally:  # also on Ctrl-C while it waits
            self._close()

    def attach(
        self,
        serve: Serve,
        *,
        n_slots: int = 1,
        is_fatal: Callable[[BaseException], bool] = is_fatal,
    ) -> None:
        """Give the queue an engine, in place of the one it had; what waits is served by it.

        ``is_fatal`` tells of an error whether the engine is gone with it; for a loaded model:
        ``lambda _error: not model.is_usable``. Raises UserError for an absurd number of slots.
        """
        require_whole("n_slots", n_slots, low=1, high=256)
        engine = Engine(serve=serve, n_slots=n_slots, is_fatal=is_fatal)
        while True:
            self.detach()
            with self._changed:
                if self._engine is None:  # else another thread has been faster
                    self._engine, self._fault = engine, None
                    if self._keeper is not None:
                        self._hire()
                    return

    def detach(self, *, timeout_s: float = _GRACE_S) -> None:
        """Take the engine away: what waits goes on waiting, for the next one.

        What runs is finished, for at most ``timeout_s``; then it ends at its next piece of text.
        """
        with self._changed:
            crew, self._crew, self._engine = self._crew, None, None
            self._line.dissolve_batch()
            self._changed.notify_all()
        if crew is not None and not join(crew.threads, timeout_s=timeout_s):
            self._end(crew)

    def submit(
        self,
        request: TextRequest,
        *,
        priority: int = 0,
        timeout_s: float | None = None,
        on_text: Callable[[str], bool] = lambda _piece: True,
    ) -> RequestFuture:
        """Put a request into the queue; a higher priority (−1000 to 1000) goes first.

        One that is not started within ``timeout_s`` fails with TIMEOUT and is never started.
        ``on_text`` is called from the thread that serves. Raises UserError where the queue is
        stopped or full, RequestError where its engine died and there is no other yet.
        """
        require_whole("priority", priority, low=-MAX_PRIORITY, high=MAX_PRIORITY)
        if timeout_s is not None:
            require_number("timeout_s", timeout_s, low=0)
        with self._changed:
            self._require_room()
            self._begin()
            self._n_tickets += 1
            came_at = self._clock()
            ticket = Ticket(
                request=request,
                priority=priority,
                number=self._n_tickets,
                came_at=came_at,
                deadline_at=math.inf if timeout_s is None else came_at + timeout_s,
                on_text=on_text,
                future=RequestFuture(),
            )
            self._line.add(ticket)
            self._changed.notify_all()
        ticket.future.add_done_callback(partial(self._drop_cancelled, ticket))
        return ticket.future

    def stats(self) -> QueueStats:
        """Counts since the queue was made, and times of the latest 1024 served requests."""
        with self._changed:
            pending = [ticket.priority for ticket in self._line]
            running = [ticket.priority for ticket in (self._crew.running if self._crew else ())]
            return QueueStats(
                is_running=self._is_open,
                has_engine=self.has_engine,
                n_slots=self._engine.n_slots if self._engine else 0,
                batch_size=self._size.size,
                total=self._tally.total(pending=pending, running=running),
                by_priority=self._tally.by_priority(pending=pending, running=running),
            )

    # Called with the lock held.

    def _require_room(self) -> None:
        if not self._is_open:
            raise UserError("the request queue is stopped: call start() first")
        if self._fault is not None:
            raise RequestError(self._fault.reason, str(self._fault))
        if len(self._line) >= self._max_pending:
            raise UserError(f"{self._max_pending} requests wait already: wait for some of them")

    def _begin(self) -> None:
        """Start the threads, where they do not run yet."""
        if self._keeper is not None:
            return
        self._keeper = threading.Thread(
            target=self._keep_deadlines, name=f"{self._name}-deadlines", daemon=True
        )
        self._keeper.start()
        self._hire()

    def _hire(self) -> None:
        """Start the threads of the engine, where there is one and the queue is open."""
        if self._engine is None or not self._is_open:
            return
        self._crew = Crew(self._engine, name=self._name, take=self._take, leave=self._leave)
        self._crew.start()

    def _is_drained(self) -> bool:
        return self._crew is None or not (self._line or self._crew.running)

    def _start_next(self, crew: Crew, last: TextRequest | None) -> Ticket | None:
        """The ticket to serve now; None where there is none yet."""
        now = self._clock()
        # A late one may be next: the keeper takes it out first.
        if len(crew.running) >= self._size.ceiling or now >= self._line.next_deadline_at:
            return None
        while ticket := self._line.take_next(now, after=last, is_hurried=not self._is_open):
            if ticket.future.set_running_or_notify_cancel():
                crew.running[ticket] = now
                return ticket
        return None

    # Takes the lock itself. Futures are settled without it, for their callbacks.

    def _keep_deadlines(self) -> None:
        """The keeper's thread: a request that waited too long fails when its time is over."""
        while True:
            with self._changed:
                if self._keeper is not threading.current_thread():
                    return
                left_s = self._line.next_deadline_at - (now := self._clock())
                if left_s > 0:
                    self._changed.wait(_finite(left_s))
                    continue
                late = self._line.take_late(now)
                self._changed.notify_all()  # slots wait where a late one may be next
            self._fail(late, Outcome.TIMED_OUT, lambda late: too_late(late.patience_s))
            del late  # whoever listens to it is not held while it waits

    def _take(self, crew: Crew, last: TextRequest | None) -> Ticket | None:
        """A slot waits for its next ticket; None where the crew is no longer wanted."""
        with self._changed:
            while self._crew is crew:
                ticket = self._start_next(crew, last)
                if ticket is not None:
                    return ticket
                self._changed.wait(self._line.patience_s(self._clock()) or None)
        return None

    def _leave(self, crew: Crew, ticket: Ticket, answer: TextCompletion | Exception) -> None:
        """A request has left the engine."""
        left: list[Ticket] = []
        if isinstance(answer, Exception):
            _log.info("a request failed: %s", answer)
            left = self._bury(crew, answer) if crew.engine.is_fatal(answer) else []
            self._record(crew, ticket, Outcome.FAILED)
            ticket.future.set_exception(answer)
            self._fail(left, Outcome.FAILED, lambda _: died(answer))
        elif ticket.future.is_unwanted and answer.finish is Finish.CANCELLED:
            self._record(crew, ticket, Outcome.CANCELLED)
            ticket.future.set_exception(cancelled())
        else:
            self._record(crew, ticket, Outcome.COMPLETED)
            ticket.future.set_result(answer)

    def _bury(self, crew: Crew, error: Exception) -> list[Ticket]:
        """The engine died: no more is started, and what waits is given out to be failed."""
        with self._changed:
            if self._crew is not crew:  # detached, or found dead by another slot
                return []
            self._crew, self._engine, self._fault = None, None, died(error)
            self._changed.notify_all()
            return self._line.take_all()

    def _record(self, crew: Crew, ticket: Ticket, outcome: Outcome) -> None:
        now, is_tight = self._clock(), self._is_tight()
        with self._changed:
            started_at = crew.running.pop(ticket)
            service_s, waited_s = now - started_at, started_at - ticket.came_at
            self._tally.count(ticket.priority, outcome)
            self._tally.served(ticket.priority, waited_s=waited_s, service_s=service_s)
            self._size.served(service_s)
            self._size.is_memory_tight = is_tight
            self._changed.notify_all()

    def _is_tight(self) -> bool:
        try:
            return self._is_memory_tight()
        except Exception as error:  # a system that does not tell is no reason to stop serving
            _log.info("free memory is unknown: %s", error)
            return False

    def _drop_cancelled(self, ticket: Ticket, _future: object) -> None:
        """Called when a request is done: one that was taken back leaves the queue at once."""
        if not ticket.future.cancelled():
            return
        with self._changed:
            self._tally.count(ticket.priority, Outcome.CANCELLED)
            if self._line.remove(ticket):
                ticket.future.set_running_or_notify_cancel()
            self._changed.notify_all()

    def _fail(
        self,
        tickets: Iterable[Ticket],
        outcome: Outcome,
        error_of: Callable[[Ticket], RequestError],
    ) -> None:
        """Fail requests that were taken out of the queue; some may be cancelled meanwhile."""
        for ticket in tickets:
            if ticket.future.set_running_or_notify_cancel():
                with self._changed:
                    self._tally.count(ticket.priority, outcome)
                ticket.future.set_exception(error_of(ticket))

    def _close(self) -> None:
        with self._changed:
            crew, self._crew, keeper, self._keeper = self._crew, None, self._keeper, None
            left = self._line.take_all()
            self._changed.notify_all()
        self._fail(left, Outcome.CANCELLED, lambda _: cancelled())
        if crew is not None:
            self._end(crew)
        if keeper is not None:
            join([keeper], timeout_s=_GRACE_S)

    def _end(self, crew: Crew) -> None:
        """Tell what runs to end, and wait a while for it."""
        with self._changed:
            for ticket in crew.running:
                ticket.future.is_unwanted = True
        join(crew.threads, timeout_s=_GRACE_S)


def _finite(seconds: float) -> float | None:
    """A time to wait; None for ever."""
    return None if math.isinf(seconds) else min(seconds, threading.TIMEOUT_MAX)
