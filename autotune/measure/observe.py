"""Observers: what is seen of a run from outside while it goes on."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import psutil

from autotune.facts.text import KeptFile, read_text

MAX_SHARE = 0.0005
"""Share of one core that reading one thing may cost: all of them together stay below 0.5 %."""
Value = TypeVar("Value")


class Observer(Protocol):
    """Looks at a run every time it is polled."""

    def poll(self) -> None:
        """Take one look. Must be cheap, and silent when the process is gone."""

    def follow(self, pid: int) -> None:
        """From now on the engine is that process: a program that the observed one has started."""


class MemoryObserver:
    """Highest resident memory of a process, in bytes; None where the system does not tell.

    Linux splits resident memory into anonymous (heap, KV cache, compute buffers) and file-backed
    (mapped weights), and keeps the process's own high-water mark, so no peak is missed between
    two looks.
    """

    def __init__(self, pid: int, root: Path = Path("/")) -> None:
        self._root = root
        self.follow(pid)

    def follow(self, pid: int) -> None:
        """Observe that process instead; what was seen of the one before is forgotten."""
        self._status = KeptFile(self._root / "proc" / str(pid) / "status")
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None
        self.resident_bytes: int | None = None
        self.peak_bytes: int | None = None
        self.peak_anon_bytes: int | None = None
        self.peak_file_bytes: int | None = None

    def poll(self) -> None:
        """Read the counters once."""
        status = self._status.read()
        fields = self._portable_fields() if status is None else read_status(status)
        self.resident_bytes = fields.get("VmRSS", self.resident_bytes)
        self.peak_bytes = _max(self.peak_bytes, fields.get("VmHWM"))
        self.peak_anon_bytes = _max(self.peak_anon_bytes, fields.get("RssAnon"))
        file_bytes = _sum(fields.get("RssFile"), fields.get("RssShmem"))
        self.peak_file_bytes = _max(self.peak_file_bytes, file_bytes)

    def _portable_fields(self) -> dict[str, int]:
        if self._process is None:
            return {}
        try:
            info = self._process.memory_info()
        except psutil.Error:
            return {}
        return {"VmRSS": info.rss, "VmHWM": getattr(info, "peak_wset", info.rss)}


def read_pss_bytes(pid: int, root: Path = Path("/")) -> int | None:
    """Proportional resident memory of a process; None but on Linux, and for one that is gone.

    The kernel walks every page for it: milliseconds for a large model.
    """
    text = read_text(root / "proc" / str(pid) / "smaps_rollup")
    return None if text is None else read_status(text).get("Pss")


def read_status(text: str) -> dict[str, int]:
    """Sizes in a Linux ``/proc/PID/status`` or ``smaps_rollup``, in bytes."""
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[name] = int(value[:-3]) * 1024
    return fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Span(Generic[Value]):
    """Two readings of a counter, and the time between them."""

    first: Value
    last: Value
    elapsed_s: float

    def rate(self, get: Callable[[Value], float | None]) -> float | None:
        """How fast a part of the reading grew, per second; None where it was not told."""
        before, after = get(self.first), get(self.last)
        return None if before is None or after is None else (after - before) / self.elapsed_s


class Series(Generic[Value]):
    """What was read again and again, each with its moment."""

    def __init__(self) -> None:
        self._moments: list[float] = []
        self._values: list[Value] = []

    def add(self, moment: float, value: Value) -> None:
        """Append a value; moments do not go back."""
        self._moments.append(moment)
        self._values.append(value)

    def forget(
        self,
        moment: float,
        *,
        keep: Callable[[Sequence[Value]], Sequence[Value]] = lambda _values: (),
    ) -> None:
        """Of what was read before the last reading until a moment, leave what ``keep`` picks."""
        start = max(bisect_right(self._moments, moment) - 1, 0)
        kept = list(keep(self._values[:start])) if start else []
        self._values[:start] = kept
        self._moments[:start] = self._moments[:1] * len(kept)

    @property
    def values(self) -> tuple[Value, ...]:
        """Everything that was read, oldest first."""
        return tuple(self._values)

    @property
    def latest(self) -> Value | None:
        """The last reading."""
        return self._values[-1] if self._values else None

    def since(self, moment: float) -> list[Value]:
        """The values read from then on; where there is none, the last before."""
        start = bisect_left(self._moments, moment)
        return self._values[start:] or self._values[-1:]

    def span(self, moment: float) -> Span[Value] | None:
        """From the last reading of that time or before (else the first) to the latest.

        None where no time lies between them.
        """
        start = max(bisect_right(self._moments, moment) - 1, 0)
        elapsed_s = self._moments[-1] - self._moments[start] if self._moments else 0.0
        if elapsed_s <= 0:
            return None
        return Span(first=self._values[start], last=self._values[-1], elapsed_s=elapsed_s)


class Gauge(Generic[Value]):
    """An observer that reads one thing from time to time, and keeps what it was told.

    ``read`` returns None for what the system does not tell, and for a process that is gone. One
    that takes long is read more seldom than ``interval_s``, so that none costs more than
    MAX_SHARE of a core, on a machine with any number of processors.
    """

    def __init__(
        self,
        read: Callable[[], Value | None],
        *,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._read, self._interval_s = read, interval_s
        self._clock, self._cpu_clock = clock, cpu_clock
        self._due = clock()
        self.series: Series[Value] = Series()

    def poll(self) -> None:
        """Read if it is time to."""
        if self._clock() >= self._due:
            self.look()

    def look(self) -> None:
        """Read now."""
        started = self._cpu_clock()
        value = self._read()
        now = self._clock()
        if value is not None:
            self.series.add(now, value)
        self._due = now + max(self._interval_s, (self._cpu_clock() - started) / MAX_SHARE)


def _max(ours: int | None, new: int | None) -> int | None:
    return ours if new is None else max(ours or 0, new)


def _sum(*parts: int | None) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
