"""What a system is doing right now: counters that only grow, and gauges of the moment.

All of this is read while something is measured, so it is cheap; what a system does not tell is
None. Pressure: Linux ``Documentation/accounting/psi.rst``; clocks: ``admin-guide/pm/cpufreq.rst``;
swap: ``pswpin`` and ``pswpout`` of ``/proc/vmstat``.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from autotune.facts.text import KeptFile, parse_int, read_text

_CPU_SENSORS = (
    "coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "x86_pkg_temp", "soc_thermal",
)  # fmt: skip
"""Names that drivers give to the processor's own sensors, the most precise first."""
_PRESSURES = {"cpu": "cpu_s", "io": "io_s", "memory": "memory_s"}
"""File in ``/proc/pressure`` → field of :class:`Pressure`."""
_SENSORS = getattr(psutil, "sensors_temperatures", None)
"""None on systems for which psutil has no such function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorTime:
    """Since the start of the system, in seconds, summed over all processors."""

    n_processors: int
    idle_s: float
    """Nothing to do, or waiting for a disk."""
    steal_s: float | None
    """Taken by a hypervisor; None on systems that do not count it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """Seconds since the start in which some task waited for a processor, a disk or memory."""

    cpu_s: float | None
    io_s: float | None
    memory_s: float | None


def read_processor_time(read: Callable[[], Any] = psutil.cpu_times) -> ProcessorTime | None:
    """Idle and stolen time.

    Busy time is what is left of the wall clock: Linux counts idle time exactly (tickless kernels),
    while its user and system times are sampled by the tick.
    """
    try:
        times = read()
    except OSError:
        return None
    if not any(times):  # sandboxes that imitate /proc count nothing
        return None
    return ProcessorTime(
        n_processors=psutil.cpu_count() or 1,
        idle_s=times.idle + getattr(times, "iowait", 0.0),
        steal_s=getattr(times, "steal", None),
    )


def read_process_s(pid: int) -> float | None:
    """Processor time of a process with all its threads; None when it is gone.

    Linux has a clock for each process, exact to the nanosecond: its number is ``(~pid << 3) | 2``
    (``make_process_cpuclock`` in ``include/linux/posix-timers.h``).
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except (OSError, AttributeError):
        pass
    try:
        return float(sum(psutil.Process(pid).cpu_times()[:2]))
    except psutil.Error:
        return None


def count_oom_kills(root: Path = Path("/")) -> int:
    """Processes that this system's kernel has killed for want of memory; 0 where it does not say.

    Linux counts them in ``/proc/vmstat``, those of memory-limited cgroups included.
    """
    counters = (read_text(root / "proc/vmstat") or "").splitlines()
    return next((int(line.split()[1]) for line in counters if line.startswith("oom_kill ")), 0)


class SystemActivity:
    """The files in which a Linux system tells what it does; other systems tell None."""

    def __init__(self, root: Path = Path("/")) -> None:
        cpus = root / "sys/devices/system/cpu"
        self._pressure = [KeptFile(root / "proc/pressure" / kind) for kind in _PRESSURES]
        self._vmstat = KeptFile(root / "proc/vmstat")
        self._clocks = [*map(KeptFile, cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
        self._throttled = [*map(KeptFile, cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))]

    def pressure(self) -> Pressure | None:
        """Of the whole system; None where the kernel does not count it."""
        totals = [parse_pressure(file.read() or "") for file in self._pressure]
        if all(total is None for total in totals):
            return None
        return Pressure(**dict(zip(_PRESSURES.values(), totals, strict=True)))

    def swapped_bytes(self) -> int | None:
        """Moved between memory and swap since the start, both ways, by anybody."""
        pages = parse_swapped_pages(self._vmstat.read() or "")
        return None if pages is None else pages * mmap.PAGESIZE

    def clock_mhz(self) -> float | None:
        """The clock of the processor that runs fastest; None where the kernel governs no clocks.

        Processors without work run slowly, so the fastest one stands for those that work.
        """
        return max((khz / 1000 for khz in _numbers(self._clocks) if khz), default=None)

    def throttle_count(self) -> int | None:
        """How often processors were slowed down for heat since the start (Intel)."""
        counts = _numbers(self._throttled)
        return sum(counts) if counts else None


def parse_pressure(text: str) -> float | None:
    """Seconds of ``some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`` (in microseconds)."""
    for line in text.splitlines():
        kind, _, totals = line.partition(" ")
        if kind == "some":
            return int(totals.rpartition("total=")[2]) / 1e6
    return None


def parse_swapped_pages(text: str) -> int | None:
    """Pages swapped in and out, of a ``/proc/vmstat``."""
    lines = [line.split() for line in text.splitlines() if line.startswith("pswp")]
    return sum(int(number) for _, number in lines) if lines else None


def _numbers(files: Sequence[KeptFile]) -> list[int]:
    found = (parse_int(file.read()) for file in files)
    return [number for number in found if number is not None]


def read_cpu_celsius(
    read: Callable[[], Mapping[str, Sequence[Any]]] | None = _SENSORS,
) -> float | None:
    """The hottest of the processor's sensors; None where none is known (psutil's names)."""
    try:
        sensors = read() if read else {}
    except OSError:
        return None
    chip = next((sensors[name] for name in _CPU_SENSORS if sensors.get(name)), ())
    return max((sensor.current for sensor in chip), default=None)
