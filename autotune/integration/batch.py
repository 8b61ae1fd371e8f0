"""The guide's ``BatchProcessor``: requests by id, over the queue that serves them."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from autotune.domain.arguments import require_number
from autotune.domain.errors import UserError
from autotune.domain.units import MIB
from autotune.facts.machine import read_state
from autotune.integration.configs import GenerationConfig
from autotune.integration.current import find_serve, give_back
from autotune.integration.dropped import end_with
from autotune.serving.crew import Serve
from autotune.serving.endings import asked_within, cancelled, is_fatal
from autotune.serving.queue_stats import Counts, Times
from autotune.serving.request_queue import RequestQueue
from autotune.serving.ticket import RequestFuture

_MAX_RESULTS = 1000
_KEEP_S = 600.0
_TIGHT_BYTES = 512 * MIB
_NO_MODEL = (
    "no model is loaded, so nothing is served: load one with "
    "PerformanceIntegratedBackendManager().load_model_optimized(path), or attach() an engine"
)


def is_memory_tight() -> bool:
    """Whether this machine, or the cgroup of this process, has less than 512 MiB left."""
    return read_state().ram_available_bytes < _TIGHT_BYTES


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A request that somebody may ask about."""

    future: RequestFuture
    is_fetched: bool = False


class BatchProcessor:
    """Serves text requests by priority on the loaded model.

    Without one (see :meth:`attach`) they go to the model that this process loaded last, else to
    the one that was recommended last; where there is neither, they wait. The latest 1000 results
    are kept for 10 minutes after they were made, and can be fetched as often as wanted meanwhile.
    """

    def __init__(
        self,
        max_batch_size: int = 8,
        max_wait_time: float = 0.1,
        *,
        max_results: int = _MAX_RESULTS,
        keep_s: float = _KEEP_S,
        is_memory_tight: Callable[[], bool] = is_memory_tight,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """At most ``max_batch_size`` (1 to 1024) requests are ordered together for the engine's
        cache, collected for at most ``max_wait_time`` seconds. Raises UserError for absurd values.
        """
        require_number("max_wait_time", max_wait_time, low=0, high=60)
        self.max_batch_size, self.max_wait_time = max_batch_size, max_wait_time
        self.queue = RequestQueue(
            max_batch_size=max_batch_size,
            max_wait_s=max_wait_time,
            is_memory_tight=is_memory_tight,
            clock=clock,
            name="autotune-batch",
        )
        """What serves; for futures, which can be awaited, submit there."""
        end_with(self, partial(_stop, self.queue))
        self._has_owner = False
        self._max_results, self._keep_s, self._clock = max_results, keep_s, clock
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._done: deque[tuple[float, str]] = deque()  # since when, and which; the oldest first
        self._numbers = itertools.count(1)

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

    def start(self) -> None:
        """Take requests; harmless where it does already."""
        self.queue.start()

    def stop(self, *, drain: bool = False, timeout_s: float | None = None) -> None:
        """Take no more requests; harmless where it is stopped. Results can still be fetched.

        With ``drain``, what waits is served first, for at most ``timeout_s``. What then waits or
        runs fails with CANCELLED. A model that was loaded for this queue alone is unloaded.
        """
        _stop(self.queue, drain=drain, timeout_s=timeout_s)

    def attach(
        self,
        serve: Serve,
        *,
        n_slots: int = 1,
        is_fatal: Callable[[BaseException], bool] = is_fatal,
    ) -> None:
        """Serve requests on a loaded model: see :meth:`RequestQueue.attach`.

        Where it dies, or is taken out of :attr:`queue` for a while, no other is looked for until
        :meth:`detach`.
        """
        self._has_owner = True
        self.queue.attach(serve, n_slots=n_slots, is_fatal=is_fatal)
        give_back(self.queue)

    def detach(self, *, timeout_s: float = 5.0) -> None:
        """Take the model away; what waits goes on waiting: see :meth:`RequestQueue.detach`."""
        self._has_owner = False
        self.queue.detach(timeout_s=timeout_s)
        give_back(self.queue)

    def submit_request(
        self,
        prompt: str,
        generation_config: GenerationConfig,
        priority: int = 0,
        *,
        chat: bool = False,
        timeout_s: float | None = None,
        on_text: Callable[[str], bool] = lambda _piece: True,
    ) -> str:
        """Submit a request, and get the id to ask for its result with.

        A higher ``priority`` (−1000 to 1000) goes first. ``chat`` puts the prompt into the model's
        chat template; a request that is not started within ``timeout_s`` fails with TIMEOUT;
        ``on_text`` is given each piece of the answer, and ends it by returning False. Raises
        UserError for absurd arguments and while it is stopped, RequestError while its engine is
        dead.
        """
        if not isinstance(generation_config, GenerationConfig):
            raise UserError(
                f"generation_config={generation_config!r} is not valid: give a GenerationConfig"
            )
        request = generation_config.to_request(prompt, chat=chat)
        if self._needs_model and (serve := find_serve(self.queue)):
            self.queue.attach(serve)
        future = self.queue.submit(request, priority=priority, timeout_s=timeout_s, on_text=on_text)
        request_id = f"request-{next(self._numbers)}"
        with self._lock:
            self._entries[request_id] = _Entry(future=future)
        future.add_done_callback(lambda _: self._note_done(request_id))
        return request_id

    def get_result(self, request_id: str, timeout: float | None = 30.0) -> str | None:
        """The text of the answer, waited for up to ``timeout`` seconds (None: until it is there).

        None where it is not there in time, as the guide's applications expect: ask again, the
        request goes on. Raises the error that the request failed with, and UserError where no
        model is loaded after that time, nothing is known of the request (any more), or a listener
        asks whose own answer has to end first.
        """
        if timeout is not None:
            require_number("timeout", timeout, low=0)
        with self._lock:
            entry = self._entry(request_id)
        if timeout != 0 and not entry.future.done() and self.queue.is_served_here_alone:
            raise asked_within()
        if not wait([entry.future], timeout).done:
            if not self.queue.has_engine:
                raise UserError(_NO_MODEL)
            return None
        entry.is_fetched = True
        if entry.future.cancelled():
            raise cancelled()
        return entry.future.result().text

    def cancel_request(self, request_id: str) -> bool:
        """Take a request back; False where it is done, or runs: then it ends at its next text.

        Raises UserError where nothing is known of it (any more).
        """
        with self._lock:
            entry = self._entry(request_id)
        return entry.future.cancel()

    def get_queue_stats(self) -> dict[str, Any]:
        """Counts of requests; times in seconds, None before the first was served.

        The guide's keys (``completed_results``: results that nobody has fetched yet), those of
        :class:`Counts` with their times flattened, and the latter ``by_priority``.
        """
        stats = self.queue.stats()
        with self._lock:
            self._forget_old()
            entries = list(self._entries.values())
        return {
            "is_running": stats.is_running,
            "pending_requests": stats.total.pending,
            "completed_results": sum(e.future.done() and not e.is_fetched for e in entries),
            "max_batch_size": self.max_batch_size,
            "max_wait_time": self.max_wait_time,
            "is_model_loaded": stats.has_engine,
            "n_slots": stats.n_slots,
            "batch_size": stats.batch_size,
            **_flat(stats.total),
            "by_priority": {level: _flat(counts) for level, counts in stats.by_priority.items()},
        }

    @property
    def _needs_model(self) -> bool:
        """Whether what it takes is served by nobody, and nobody is going to attach a model."""
        return self.queue.is_running and not (self._has_owner or self.queue.has_engine)

    def _entry(self, request_id: str) -> _Entry:
        """Called with the lock held."""
        self._forget_old()
        if request_id not in self._entries:
            raise UserError(
                f"nothing is known of the request {request_id!r}: submit_request() gives ids, "
                f"results are kept for {self._keep_s / 60:g} minutes"
            )
        return self._entries[request_id]

    def _note_done(self, request_id: str) -> None:
        with self._lock:
            self._done.append((self._clock(), request_id))
            self._forget_old()

    def _forget_old(self) -> None:
        """Called with the lock held. Those that are not done are bounded by the queue."""
        oldest_at = self._clock() - self._keep_s
        while self._done and (len(self._done) > self._max_results or self._done[0][0] < oldest_at):
            del self._entries[self._done.popleft()[1]]


def _stop(queue: RequestQueue, *, drain: bool = False, timeout_s: float | None = None) -> None:
    """Stop a queue; what it was lent, it gives back."""
    try:
        queue.stop(drain=drain, timeout_s=timeout_s)
    finally:  # also on Ctrl-C while it drains
        if not queue.is_running and give_back(queue):
            queue.detach()


def _flat(counts: Counts) -> dict[str, Any]:
    """Counts by name, with their times as ``waiting_median_s`` and so on."""
    values = dataclasses.asdict(counts)
    for name, times in (("waiting", counts.waiting), ("service", counts.service)):
        del values[name]
        values |= _flat_times(name, times)
    return values


def _flat_times(name: str, times: Times | None) -> dict[str, float | None]:
    return {
        f"{name}_median_s": None if times is None else times.median_s,
        f"{name}_p95_s": None if times is None else times.p95_s,
    }
