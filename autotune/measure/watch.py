"""A watch over a run: what is observed of a process, and of the machine around it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Self

from autotune.domain import stats
from autotune.domain.conditions import Conditions
from autotune.domain.run import DevicePeak
from autotune.facts.activity import (
    ProcessorTime,
    SystemActivity,
    read_cpu_celsius,
    read_process_s,
    read_processor_time,
)
from autotune.facts.gpu_state import GPUSensors
from autotune.facts.machine import read_state
from autotune.measure.observe import Gauge, Series, Span, Value, read_pss_bytes
from autotune.measure.watch_gpu import add_gpus, peak_vram, telling_looks

_WINDOW_S = 1.0
"""Processor seconds over which foreign time is judged. Idle time is told in steps of 10 ms: 1 %."""
_UNWATCHED_S = 10.0
"""Longer than the time between two looks while somebody waits, also where looking takes long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CPULook:
    """What the processors had done until a moment."""

    machine: ProcessorTime
    own_s: float
    """Processor time of the observed processes and of the one that observes."""


class Watch:
    """Observes a process and its machine; tells the conditions of any interval until now.

    Poll it while you wait. It never raises: what the system does not tell, and a process that is
    gone, leave nothing behind. Use it as a context manager.
    """

    def __init__(
        self,
        pid: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        root: Path = Path("/"),
        open_gpus: Callable[[], GPUSensors | None] = GPUSensors.open,
    ) -> None:
        def gauge(read: Callable[[], Value | None], interval_s: float) -> Gauge[Value]:
            return Gauge(read, interval_s=interval_s, clock=clock)

        system = SystemActivity(root)
        # The worker, and the program that it has started where the engine is one: the last.
        self._pids = [pid]
        self._clock = clock
        self._sensors = sensors = open_gpus()
        self._cpu = gauge(lambda: look_at_cpu(*self._pids), 0.2)
        self._pressure = gauge(system.pressure, 0.5)
        self._swapped = gauge(system.swapped_bytes, 0.5)
        self._throttled = gauge(system.throttle_count, 0.5)
        self._gpus = gauge(lambda: sensors.read(self._pids[-1]) if sensors else None, 0.05)
        self._clocks = gauge(system.clock_mhz, 0.05)
        self._celsius = gauge(read_cpu_celsius, 1.0)
        self._state = gauge(lambda: read_state(root), 10.0)
        self._pss = gauge(lambda: read_pss_bytes(self._pids[-1], root), 1.0)
        # Counters are read at both ends of an interval: they differ by what happened in it.
        self._counters = (self._cpu, self._pressure, self._swapped, self._throttled, self._gpus)
        self._gauges = (*self._counters, self._clocks, self._celsius, self._state, self._pss)
        self.poll()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._sensors is not None:
            self._sensors.close()

    def poll(self) -> None:
        """Look at whatever is due."""
        for gauge in self._gauges:
            gauge.poll()

    def follow(self, pid: int) -> None:
        """The engine is that process, which the observed one has started."""
        self._pids[1:] = [pid]
        self._pss.series = Series()

    def start(self) -> float:
        """Begin an interval: its moment, by the watch's clock."""
        for counter in self._counters:
            counter.look()
        return self._clock()

    def conditions(self, since: float) -> Conditions:
        """What was seen from a moment that :meth:`start` returned until now."""
        now = self.start()
        cpu = self._cpu_span(since, now)
        pressure = self._pressure.series.span(since)
        clocks = self._clocks.series.since(since)
        state = self._state.series.latest
        seen = Conditions(
            foreign_cpu_ratio=foreign_cpu_ratio(cpu) if cpu else None,
            steal_ratio=steal_ratio(cpu) if cpu else None,
            cpu_pressure_ratio=pressure.rate(attrgetter("cpu_s")) if pressure else None,
            io_pressure_ratio=pressure.rate(attrgetter("io_s")) if pressure else None,
            memory_pressure_ratio=pressure.rate(attrgetter("memory_s")) if pressure else None,
            swapped_bytes=_growth(self._swapped.series.span(since)),
            cpu_mhz=stats.median(clocks) if clocks else None,
            cpu_mhz_min=min(clocks, default=None),
            cpu_celsius_max=max(self._celsius.series.since(since), default=None),
            throttle=_throttle(_growth(self._throttled.series.span(since))),
            load_1m=state.load_1m if state else None,
            on_ac=state.on_ac if state else None,
        )
        return add_gpus(seen, self._gpus.series, since)

    def forget(self, moment: float) -> None:
        """Keep what happened before a moment only as far as peaks tell of it.

        Whoever watches for days calls it before each interval.
        """
        for counter in (self._cpu, self._pressure, self._swapped, self._throttled):
            counter.series.forget(moment)
        for gauge in (self._clocks, self._celsius, self._state):
            gauge.series.forget(moment)
        self._gpus.series.forget(moment, keep=telling_looks)
        self._pss.series.forget(moment, keep=lambda sizes: [max(sizes)])

    def _cpu_span(self, since: float, now: float) -> Span[CPULook] | None:
        """A short interval is judged together with the time before it, if that was watched."""
        latest = self._cpu.series.latest
        window_s = _WINDOW_S / latest.machine.n_processors if latest else 0.0
        span = self._cpu.series.span(min(since, now - window_s))
        is_watched = span and span.elapsed_s < now - since + window_s + _UNWATCHED_S
        return span if is_watched else None

    @property
    def peak_pss_bytes(self) -> int | None:
        """Highest proportional memory that a look found."""
        return max(self._pss.series.values, default=None)

    @property
    def peak_vram(self) -> tuple[DevicePeak, ...]:
        """The most that was held of each GPU that the process uses."""
        return peak_vram(self._gpus.series.values)


def look_at_cpu(*pids: int) -> CPULook | None:
    """Counters of processes and of the machine; None when one of the processes is gone."""
    own = [read_process_s(pid) for pid in (*pids, os.getpid())]
    machine = read_processor_time()  # last: nearest to the moment that is noted
    if None in own or machine is None:
        return None
    return CPULook(machine=machine, own_s=sum(filter(None, own)))


def foreign_cpu_ratio(span: Span[CPULook]) -> float:
    """Processor time that was neither idle nor our own, as a share of the machine, 0 to 1."""
    available_s = span.elapsed_s * span.last.machine.n_processors
    idle_s = span.last.machine.idle_s - span.first.machine.idle_s
    own_s = span.last.own_s - span.first.own_s
    return min(max((available_s - idle_s - own_s) / available_s, 0.0), 1.0)


def steal_ratio(span: Span[CPULook]) -> float | None:
    """Processor time that a hypervisor took, as a share of the machine."""
    stolen = span.rate(lambda look: look.machine.steal_s)
    return None if stolen is None else stolen / span.last.machine.n_processors


def _growth(span: Span[int] | None) -> int | None:
    return None if span is None else span.last - span.first


def _throttle(n_slowdowns: int | None) -> tuple[str, ...] | None:
    if n_slowdowns is None:
        return None
    return ("cpu_thermal",) if n_slowdowns else ()
