"""What a request queue has done, counted and timed."""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from autotune.domain import stats

_N_KEPT = 1024
"""Served requests whose times are kept."""


class Outcome(enum.StrEnum):
    """What became of a request."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    """It failed since its turn did not come in time."""
    CANCELLED = "cancelled"
    """Whoever asked took it back, or the queue was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Median and 95 % quantile of some times, in seconds."""

    median_s: float
    p95_s: float

    @classmethod
    def of(cls, times_s: Sequence[float]) -> Times | None:
        """None where there are none."""
        if not times_s:
            return None
        return cls(median_s=stats.median(times_s), p95_s=stats.quantile(times_s, 0.95))


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Requests by what became of them, and how long the latest 1024 served ones took."""

    pending: int
    running: int
    completed: int
    failed: int
    """Those that timed out included."""
    timed_out: int
    cancelled: int
    waiting: Times | None
    """From coming to being started; None before the first was served."""
    service: Times | None
    """From being started to the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats:
    """A queue at one moment; counts are since it was made."""

    is_running: bool
    has_engine: bool
    n_slots: int
    """Requests that are served at once, at most; 0 without an engine."""
    batch_size: int
    """Requests that make a batch now."""
    total: Counts
    by_priority: Mapping[int, Counts]
    """Highest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Served:
    priority: int
    waited_s: float
    service_s: float


class Tally:
    """Counts what became of requests, in bounded memory. Not locked: its owner is."""

    def __init__(self) -> None:
        self._outcomes: Counter[tuple[int, Outcome]] = Counter()
        self._served: deque[_Served] = deque(maxlen=_N_KEPT)

    def count(self, priority: int, outcome: Outcome) -> None:
        """One request has come to its end."""
        self._outcomes[priority, outcome] += 1

    def served(self, priority: int, *, waited_s: float, service_s: float) -> None:
        """One request has left the engine, with whatever outcome."""
        self._served.append(_Served(priority=priority, waited_s=waited_s, service_s=service_s))

    def total(self, *, pending: Sequence[int], running: Sequence[int]) -> Counts:
        """Over all priorities; ``pending`` and ``running`` are the priorities of such requests."""
        return self._counts(self._priorities(pending, running), pending, running)

    def by_priority(
        self, *, pending: Sequence[int], running: Sequence[int]
    ) -> Mapping[int, Counts]:
        """For each priority that was seen, the highest first."""
        seen = sorted(self._priorities(pending, running), reverse=True)
        return {priority: self._counts({priority}, pending, running) for priority in seen}

    def _priorities(self, pending: Iterable[int], running: Iterable[int]) -> set[int]:
        return {priority for priority, _ in self._outcomes} | set(pending) | set(running)

    def _counts(
        self, priorities: set[int], pending: Sequence[int], running: Sequence[int]
    ) -> Counts:
        def count(*outcomes: Outcome) -> int:
            return sum(self._outcomes[p, outcome] for p in priorities for outcome in outcomes)

        served = [one for one in self._served if one.priority in priorities]
        return Counts(
            pending=sum(priority in priorities for priority in pending),
            running=sum(priority in priorities for priority in running),
            completed=count(Outcome.COMPLETED),
            failed=count(Outcome.FAILED, Outcome.TIMED_OUT),
            timed_out=count(Outcome.TIMED_OUT),
            cancelled=count(Outcome.CANCELLED),
            waiting=Times.of([one.waited_s for one in served]),
            service=Times.of([one.service_s for one in served]),
        )
