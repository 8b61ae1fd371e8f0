"""Who is recording: the process behind a run that is still open, and whether it is still there.

A killed process cannot close its runs. Whoever comes next does, and must not close the runs of a
process that is merely slow.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """A process, told apart from a later one with the same number."""

    pid: int
    birth: str | None
    """Boot and clock tick it started at (Linux); None where only the number is known."""

    @classmethod
    def this_process(cls) -> Recorder:
        """The process that asks."""
        return cls(pid=os.getpid(), birth=_birth(os.getpid()))

    def is_gone(self) -> bool:
        """Whether the process has certainly ended. Not knowing is False."""
        if self.birth is not None:
            return _birth(self.pid) != self.birth
        if sys.platform == "win32":  # there, os.kill ends the process it asks about
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def is_overdue(started_at: datetime, limit_s: float, *, now: datetime) -> bool:
    """Whether work has outlived twice its own time limit and a minute: nobody is behind it.

    Covers numbers that went to another process, and systems that tell nothing about processes.
    """
    return now - started_at > timedelta(seconds=2 * limit_s + 60)


def _birth(pid: int) -> str | None:
    """Boot identity and start tick of a living process; None where there is none, or no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = status.rpartition(")")[2].split()
    return None if fields[0] == "Z" else f"{boot}:{fields[19]}"
