"""Limits that a Linux control group puts on this process: processor time and memory.

A limit may sit at any level between the process's own group and the root, and the tightest one
holds. Both versions of the interface are read, also side by side: ``/proc/self/cgroup`` names the
group of each controller (Linux ``Documentation/admin-guide/cgroup-v1`` and ``cgroup-v2.rst``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from autotune.facts.text import read_int, read_text

_MOUNT = Path("sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""Version 1 writes "no limit" as a number close to 2⁶³."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimits:
    """What the groups of this process allow; None without a limit."""

    cpu_quota: float | None = None
    """Processors' worth of time per second."""
    memory_limit_bytes: int | None = None
    memory_left_bytes: int | None = None
    """What can still be taken: the limit less what is in use and cannot be dropped."""


def read_cgroup(root: Path = Path("/")) -> CgroupLimits:
    """The limits of this process on the Linux system whose file tree is at ``root``."""
    groups = read_text(root / "proc/self/cgroup") or ""
    quotas = [
        quota for level in _levels(root, groups, "cpu") if (quota := _quota(level)) is not None
    ]
    memory = [
        limit for level in _levels(root, groups, "memory") if (limit := _memory(level)) is not None
    ]
    return CgroupLimits(
        cpu_quota=min(quotas, default=None),
        memory_limit_bytes=min((limit for limit, _ in memory), default=None),
        memory_left_bytes=min((max(limit - used, 0) for limit, used in memory), default=None),
    )


def _levels(root: Path, groups: str, controller: str) -> Iterator[Path]:
    """Every directory from the process's group up to the controller's root.

    Inside a container the group's path may be the host's, and not exist; its root still does.
    """
    for line in groups.splitlines():
        _, controllers, group = line.split(":", 2) if line.count(":") > 1 else ("", "-", "/")
        path = PurePosixPath(group.strip())
        for mount in _mounts(root, controllers, controller):
            yield from (mount / level.relative_to("/") for level in (path, *path.parents))


def _mounts(root: Path, controllers: str, controller: str) -> Iterable[Path]:
    if not controllers:  # version 2, alone or beside version 1
        return root / _MOUNT, root / _MOUNT / "unified"
    if controller in controllers.split(","):
        return root / _MOUNT / controller, root / _MOUNT / controllers
    return ()


def _quota(level: Path) -> float | None:
    quota, period = _cpu_max(read_text(level / "cpu.max") or "")
    if quota is None:
        quota, period = read_int(level / "cpu.cfs_quota_us"), read_int(level / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _cpu_max(text: str) -> tuple[int | None, int | None]:
    """``"150000 100000"``; the quota may be ``max``."""
    match text.split():
        case [quota, period] if quota.isdigit() and period.isdigit():
            return int(quota), int(period)
    return None, None


def _memory(level: Path) -> tuple[int, int] | None:
    """(limit, bytes in use without the file pages that the kernel drops first)."""
    for limit_file, usage_file, inactive_key in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit = read_int(level / limit_file)
        if limit is not None and limit < _NO_LIMIT:
            inactive = _statistic(read_text(level / "memory.stat") or "", inactive_key)
            return limit, max((read_int(level / usage_file) or 0) - inactive, 0)
    return None


def _statistic(text: str, key: str) -> int:
    """The number behind a key of ``memory.stat``; 0 if it is not there."""
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == key and number.strip().isdigit():
            return int(number)
    return 0
