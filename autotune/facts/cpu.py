"""The processor of this machine, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from autotune.facts.darwin_cpu import read_darwin_cpu
from autotune.facts.linux_cpu import read_linux_cpu
from autotune.facts.processor import Processor
from autotune.facts.windows_cpu import read_windows_cpu


def read_processor(root: Path = Path("/"), *, system: str | None = None) -> Processor:
    """What the operating system says of the processor; ``root`` is where a Linux tree begins."""
    system = system or platform.system()
    if system == "Linux":
        return read_linux_cpu(root)
    if system == "Darwin":
        return read_darwin_cpu()
    return read_windows_cpu() if system == "Windows" else Processor()


def count_logical() -> int:
    """Processors that the system counts, hyper-threads included; at least 1."""
    return psutil.cpu_count(logical=True) or 1


def count_allowed() -> int:
    """Processors that this process may be scheduled on: its affinity where there is one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    try:
        return len(psutil.Process().cpu_affinity() or ()) or count_logical()
    except (AttributeError, psutil.Error):  # macOS has no affinity
        return count_logical()


def usable_processors(n_allowed: int, cpu_quota: float | None) -> int:
    """The smaller of the affinity and the quota, rounded down, at least 1.

    Rounded down, because a thread more than the quota is stopped for the rest of each period, and
    all others wait for it at the next barrier.
    """
    return max(1, n_allowed if cpu_quota is None else min(n_allowed, int(cpu_quota)))
