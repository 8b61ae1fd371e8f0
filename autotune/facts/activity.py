"""What a system is doing right now: counters that only grow, and gauges of the moment.

All of this is read while something is measured, so it is cheap; what a system does not tell is
None. Pressure: Linux ``Documentation/accounting/psi.rst``; clocks: ``admin-guide/pm/cpufreq.rst``;
swap: ``pswpin`` and ``pswpout`` of ``/proc/vmstat``.
"""

from __future__ import annotations

import functools
import mmap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from autotune.facts.text import read_int, read_text

_CPU_SENSORS = (
    "coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "x86_pkg_temp", "soc_thermal",
)  # fmt: skip
"""Names that drivers give to the processor's own sensors, the most precise first."""
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


def read_processor_time(
    read: Callable[[], Any] = psutil.cpu_times,
) -> ProcessorTime | None:
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
    (``MAKE_PROCESS_CPUCLOCK`` in ``include/linux/posix-timers_types.h``).
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except (OSError, AttributeError):
        pass
    try:
        return float(sum(psutil.Process(pid).cpu_times()[:2]))
    except psutil.Error:
        return None


def read_pressure(root: Path = Path("/")) -> Pressure | None:
    """Pressure of the whole system; None where the kernel does not count it."""
    totals = {
        f"{kind}_s": parse_pressure(read_text(root / "proc/pressure" / kind) or "")
        for kind in ("cpu", "io", "memory")
    }
    return Pressure(**totals) if any(total is not None for total in totals.values()) else None


def parse_pressure(text: str) -> float | None:
    """Seconds of ``some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`` (in microseconds)."""
    for line in text.splitlines():
        kind, *_, total = line.split()
        if kind == "some" and total.startswith("total="):
            return int(total.removeprefix("total=")) / 1e6
    return None


def read_swapped_bytes(root: Path = Path("/")) -> int | None:
    """Moved between memory and swap since the start, both ways, by anybody; None but on Linux."""
    pages = parse_vmstat(read_text(root / "proc/vmstat") or "")
    if "pswpin" not in pages:
        return None
    return (pages["pswpin"] + pages.get("pswpout", 0)) * mmap.PAGESIZE


def parse_vmstat(text: str) -> dict[str, int]:
    """The counters of swapping in a ``/proc/vmstat``."""
    pairs = (line.split() for line in text.splitlines() if line.startswith("pswp"))
    return {name: int(number) for name, number in pairs}


def read_clock_mhz(root: Path = Path("/")) -> float | None:
    """The clock of the processor that runs fastest; None where the kernel does not govern clocks.

    Processors without work run slowly, so the fastest one stands for those that work.
    """
    khz = [read_int(file) for file in _files(root, "cpufreq/scaling_cur_freq")]
    return max((value / 1000 for value in khz if value), default=None)


def read_throttle_count(root: Path = Path("/")) -> int | None:
    """How often processors were slowed down for heat since the start (Intel); None elsewhere."""
    counts = [read_int(file) for file in _files(root, "thermal_throttle/*_throttle_count")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


@functools.cache
def _files(root: Path, pattern: str) -> tuple[Path, ...]:
    """The files of all processors. Remembered: looking for them takes longer than reading them."""
    return tuple((root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/{pattern}"))


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
