"""Telemetry of ordinary use, off the hot path: whoever generates hands a value over and goes on.

One thread writes what has come together, a transaction for each model in use. A store that cannot
be written (locked, read-only, a full disk) costs telemetry, never a generation: what was generated
meanwhile is counted as dropped, loads and ends are written as soon as they can be. Of a prompt, its
number of tokens is all that is ever kept.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, ProgrammingError

from autotune.domain.prediction import Prediction
from autotune.domain.run import Generation, Reason, Run
from autotune.store.store import Store
from autotune.store.use import Ended, Generated, Loaded, Use

CAPACITY = 1024
"""Generations that may wait to be written."""
MOST_UNSAVED = 64
"""Loads and ends that may wait for a store that cannot be written; the oldest are given up."""
LINGER_S = 0.2
"""For how long generations are gathered before they are written together."""
PATIENCE_S = 10.0
"""For how long :meth:`Telemetry.close` waits for the last write."""
_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Ticket:
    """A load that was reported: hand it over with what comes of the load, and change nothing."""

    loaded: Loaded
    ending: Ended | None = None
    """The end that is not written yet."""
    n_generations: int = 0
    run_id: int | None = None
    """Number of the run's row; None as long as it is not written."""


class Telemetry:
    """Writes loads and generations of ordinary use. Close it, or use ``with``.

    Every method returns at once, from any thread. The store must be open until this is closed;
    machine and model must be recorded in it. What is still queued when the program ends is written
    then; a hard kill loses it, and the run is closed by whoever opens the store next
    (:meth:`Writer.close_dead_runs`).
    """

    def __init__(
        self,
        store: Store,
        *,
        now: Callable[[], datetime],
        capacity: int = CAPACITY,
        linger_s: float = LINGER_S,
    ) -> None:
        self._store, self._now = store, now
        self._capacity, self._linger_s = capacity, linger_s
        self._news = threading.Condition()
        self._generated: deque[tuple[Ticket, Generated]] = deque()
        self._unsaved: dict[Ticket, None] = {}
        """Whose load or end is not written, oldest first."""
        self._asked = self._answered = self._dropped = 0
        self._is_hurried = self._is_closed = self._has_warned = False
        self._thread = threading.Thread(target=self._work, name="autotune-telemetry", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @property
    def dropped(self) -> int:
        """Loads, ends and generations that were not written and never will be."""
        return self._dropped

    def loaded(
        self,
        run: Run,
        *,
        machine_id: str,
        model_id: str,
        prediction: Prediction | None = None,
        planned_bytes: int | None = None,
        recommendation_id: int | None = None,
    ) -> Ticket:
        """A model was loaded, or was not (``run.reason``). ``run`` is as it is now.

        ``prediction`` was made before; ``recommendation_id`` is the advice that was at hand,
        whether or not the load follows it.
        """
        ticket = Ticket(
            Loaded(
                run=run,
                machine_id=machine_id,
                model_id=model_id,
                prediction=prediction,
                planned_bytes=planned_bytes,
                recommendation_id=recommendation_id,
            )
        )
        self._put(ticket)
        return ticket

    def generated(self, ticket: Ticket, generation: Generation, *, run: Run | None = None) -> None:
        """A generation is done; ``run`` as it is now refreshes the peaks."""
        ended_at = self._now()
        with self._news:
            if len(self._generated) >= self._capacity or self._is_closed:
                self._drop(1, "it is closed" if self._is_closed else "too many wait for the store")
                return
            new = Generated(
                generation=generation, repetition=ticket.n_generations, ended_at=ended_at, run=run
            )
            ticket.n_generations += 1
            self._generated.append((ticket, new))
            self._wake()

    def failed(self, ticket: Ticket, reason: Reason, message: str) -> None:
        """The engine died, or gave nonsense: why, in one line."""
        self._put(ticket, Ended(reason=reason, message=message, at=self._now()))

    def unloaded(self, ticket: Ticket, run: Run) -> None:
        """The model was let go: final peaks and conditions. A failure told before stays."""
        self._put(ticket, Ended(run=run, at=self._now()))

    def flush(self, timeout_s: float = PATIENCE_S) -> bool:
        """Wait until all that was reported is written; whether it is, in that time."""
        with self._news:
            if self._is_closed:
                return False
            dropped = self._dropped
            self._is_hurried = True
            self._wake()
            asked = self._asked
            in_time = self._news.wait_for(lambda: self._answered >= asked, timeout_s)
            return in_time and not self._unsaved and self._dropped == dropped

    def close(self, timeout_s: float = PATIENCE_S) -> None:
        """Write what is left and end the thread; later reports are dropped."""
        atexit.unregister(self.close)
        with self._news:
            if self._is_closed:
                return
            self._is_closed = True
            self._wake()
        self._thread.join(timeout_s)
        with self._news:
            left = len(self._unsaved) + len(self._generated)
            if left:
                self._drop(left, "it was closed before the store could be written")

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, ticket: Ticket, ending: Ended | None = None) -> None:
        """Note a load or an end; a failure is not forgotten for the end that follows it."""
        with self._news:
            if self._is_closed:
                self._drop(1, "it is closed")
                return
            if ending is not None:
                ticket.ending = _both(ticket.ending, ending)
            self._unsaved[ticket] = None
            if len(self._unsaved) > MOST_UNSAVED:
                del self._unsaved[next(iter(self._unsaved))]
                self._drop(1, "too many wait for the store")
            self._wake()

    def _wake(self) -> None:
        self._asked += 1
        self._news.notify_all()

    def _drop(self, n: int, why: object) -> None:
        self._dropped += n
        if not self._has_warned:
            self._has_warned = True
            _log.warning("telemetry is not written, generations go on: %s", why)

    def _work(self) -> None:
        """The thread: write what has come together, until closed."""
        while True:
            with self._news:
                self._news.wait_for(lambda: self._asked > self._answered)
                self._news.wait_for(lambda: self._is_hurried or self._is_closed, self._linger_s)
                asked, self._is_hurried = self._asked, False
                uses = self._take()
            self._write(uses)
            with self._news:
                self._answered = asked
                self._news.notify_all()
                if self._is_closed and self._answered >= self._asked:
                    return

    def _take(self) -> dict[Ticket, Use]:
        """What there is to write: of each model in use, oldest load first."""
        found: dict[Ticket, list[Generated]] = {ticket: [] for ticket in self._unsaved}
        while self._generated:
            ticket, new = self._generated.popleft()
            found.setdefault(ticket, []).append(new)
        return {
            ticket: Use(loaded=ticket.loaded, generations=tuple(new), ending=ticket.ending)
            for ticket, new in found.items()
        }

    def _write(self, uses: dict[Ticket, Use]) -> None:
        """Write them one after another; where the store itself is the trouble, none of the rest."""
        left = dict(uses)
        for ticket, use in uses.items():
            try:
                ticket.run_id = self._store.record_use(use, run_id=ticket.run_id)
            except Exception as error:
                # Whatever it was: an application must not stop for its telemetry.
                if _is_of_the_store(error):
                    self._give_up(left, error)
                    return
                self._give_up({ticket: use}, error, forever=True)
            else:
                self._saved(ticket, use)
            del left[ticket]

    def _saved(self, ticket: Ticket, use: Use) -> None:
        with self._news:
            if ticket.ending is use.ending:
                self._unsaved.pop(ticket, None)
                ticket.ending = None

    def _give_up(self, uses: dict[Ticket, Use], error: Exception, *, forever: bool = False) -> None:
        """Forget generations; loads and ends, too, where the store will never have them."""
        with self._news:
            lost = sum(len(use.generations) for use in uses.values())
            if forever:
                known = [ticket for ticket in uses if ticket in self._unsaved]
                lost += len(known)
                for ticket in known:
                    del self._unsaved[ticket]
            self._drop(lost, error)


def _is_of_the_store(error: Exception) -> bool:
    """Whether it is the store that cannot be written now: it is locked, read-only, full …"""
    cause = error.__cause__
    ours = (IntegrityError, DataError, ProgrammingError)
    return isinstance(cause, DatabaseError) and not isinstance(cause, ours)


def _both(earlier: Ended | None, later: Ended) -> Ended:
    """A failure, and the end of its process, which may come before either is written."""
    if earlier is None or earlier.reason is None or later.reason is not None:
        return later
    return Ended(run=later.run, reason=earlier.reason, message=earlier.message, at=later.at)
