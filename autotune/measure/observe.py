"""Observers: what is seen of a run from outside while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil


class Observer(Protocol):
    """Looks at a run every time it is polled."""

    def poll(self) -> None:
        """Take one look. Must be cheap, and silent when the process is gone."""


class MemoryObserver:
    """Highest resident memory of a process, in bytes; None where the system does not tell.

    Linux splits resident memory into anonymous (heap, KV cache, compute buffers) and file-backed
    (mapped weights), and keeps the process's own high-water mark, so no peak is missed between
    two looks.
    """

    def __init__(self, pid: int, root: Path = Path("/")) -> None:
        self._status = root / "proc" / str(pid) / "status"
        self._process = psutil.Process(pid)
        self.resident_bytes: int | None = None
        self.peak_bytes: int | None = None
        self.peak_anon_bytes: int | None = None
        self.peak_file_bytes: int | None = None

    def poll(self) -> None:
        """Read the counters once."""
        try:
            fields = read_status(self._status.read_text())
        except (OSError, ProcessLookupError):
            fields = self._portable_fields()
        self.resident_bytes = fields.get("VmRSS", self.resident_bytes)
        self.peak_bytes = _max(self.peak_bytes, fields.get("VmHWM"))
        self.peak_anon_bytes = _max(self.peak_anon_bytes, fields.get("RssAnon"))
        file_bytes = _sum(fields.get("RssFile"), fields.get("RssShmem"))
        self.peak_file_bytes = _max(self.peak_file_bytes, file_bytes)

    def _portable_fields(self) -> dict[str, int]:
        try:
            info = self._process.memory_info()
        except psutil.Error:
            return {}
        return {"VmRSS": info.rss, "VmHWM": getattr(info, "peak_wset", info.rss)}


def read_status(text: str) -> dict[str, int]:
    """Sizes in a Linux ``/proc/PID/status``, in bytes."""
    fields = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if value.endswith(" kB"):
            fields[name] = int(value[:-3]) * 1024
    return fields


class ForeignCPU:
    """Share of the machine's processor time that others used between start and stop.

    Everybody else is who is neither the measured process nor the one that measures; time stolen
    by a hypervisor counts, time waiting for disks does not.
    """

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._own = [psutil.Process(pid), psutil.Process()]
        self._clock = clock
        self._n_logical = psutil.cpu_count() or 1
        self._start = self._read()

    def restart(self) -> None:
        """Begin a new interval."""
        self._start = self._read()

    def ratio(self) -> float | None:
        """Foreign share since the start, 0 to 1; None where the system does not tell."""
        if self._start is None or (end := self._read()) is None:
            return None
        elapsed, busy, own = (e - s for e, s in zip(end, self._start, strict=True))
        if elapsed <= 0:
            return None
        return min(max((busy - own) / (elapsed * self._n_logical), 0.0), 1.0)

    def _read(self) -> tuple[float, float, float] | None:
        """(clock, busy seconds of all processors, processor seconds of our own processes)."""
        try:
            times = psutil.cpu_times()
            own = sum(sum(process.cpu_times()[:2]) for process in self._own)
        except (psutil.Error, OSError):
            return None
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0)
        # Linux counts guest time inside user time as well.
        busy -= getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return self._clock(), busy, own


def _max(ours: int | None, new: int | None) -> int | None:
    return ours if new is None else max(ours or 0, new)


def _sum(*parts: int | None) -> int | None:
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
