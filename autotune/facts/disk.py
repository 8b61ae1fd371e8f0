"""The disk that a model file lies on, and how fast its folder can be read."""

from __future__ import annotations

import contextlib
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autotune.domain.machine import DiskFacts, DiskProbe
from autotune.facts.text import read_text

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"})
_MEMORY = frozenset({"tmpfs", "ramfs"})
_BLOCK_BYTES = 4 * 1024**2
_SAMPLE_BYTES = 256 * 1024**2
_SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True)
class _Mount:
    """One line of ``/proc/self/mountinfo``."""

    folder: Path
    device: str
    filesystem: str
    number: str
    """Major and minor number of the device, such as ``8:1``."""


def read_disk(path: Path, root: Path = Path("/")) -> DiskFacts:
    """The disk under a file. What the system does not tell (all but Linux) is None."""
    mount = _mount_of(path, read_text(root / "proc/self/mountinfo") or "")
    free_bytes = None
    with contextlib.suppress(OSError, AttributeError):
        status = os.statvfs(path)
        free_bytes = status.f_bavail * status.f_frsize
    if mount is None:
        return DiskFacts(free_bytes=free_bytes)
    return DiskFacts(
        mount=str(mount.folder),
        device=mount.device,
        filesystem=mount.filesystem,
        kind=_kind(mount, root),
        free_bytes=free_bytes,
    )


def _mount_of(path: Path, mountinfo: str) -> _Mount | None:
    """The innermost mount that holds a path."""
    resolved = path.resolve()
    mounts = [_parse(line) for line in mountinfo.splitlines() if " - " in line]
    holding = [mount for mount in mounts if resolved.is_relative_to(mount.folder)]
    # Of two mounts on one folder the later one hides the earlier.
    return max(
        enumerate(holding), key=lambda pair: (len(pair[1].folder.parts), pair[0]), default=(0, None)
    )[1]


def _parse(line: str) -> _Mount:
    """Fields: id, parent, device number, root, folder, options … - filesystem, device, options.

    Source: ``proc(5)``. Spaces in folders are written as ``\\040``.
    """
    before, _, after = line.partition(" - ")
    fields, (filesystem, device, *_) = before.split(), after.split()
    folder = fields[4].replace("\\040", " ")
    return _Mount(Path(folder), device, filesystem, fields[2])


def _kind(mount: _Mount, root: Path) -> str | None:
    """``ssd``, ``hdd``, ``network`` or ``memory``; None where nobody says."""
    if mount.filesystem in _NETWORK:
        return "network"
    if mount.filesystem in _MEMORY:
        return "memory"
    block = root / "sys/dev/block" / mount.number
    # A partition's queue is its disk's.
    for folder in (block, block.resolve().parent):
        rotational = read_text(folder / "queue/rotational")
        if rotational is not None:
            return "hdd" if rotational.strip() == "1" else "ssd"
    return None


def probe_disk(path: Path, *, clock: Callable[[], float] = time.perf_counter) -> DiskProbe:
    """Read rates of a file: from the page cache, and past it.

    Reads at most 256 MiB and one second each way. The cache is left as it is but for what the
    first reading brings in; reading past it (``O_DIRECT``) changes nothing. A rate that cannot be
    had is None.
    """
    cached = None
    with contextlib.suppress(OSError):
        _read_rate(path, os.O_RDONLY, clock)  # brings the sample into the cache
        cached = _read_rate(path, os.O_RDONLY, clock)
    direct = None
    if hasattr(os, "O_DIRECT"):
        with contextlib.suppress(OSError):  # file systems in memory have no way past the cache
            direct = _read_rate(path, os.O_RDONLY | os.O_DIRECT, clock)
    return DiskProbe(cached_bytes_per_s=cached, disk_bytes_per_s=direct)


def _read_rate(path: Path, flags: int, clock: Callable[[], float]) -> float | None:
    """Bytes per second over a sample from the file's start; None for an empty file."""
    descriptor = os.open(path, flags)
    # Anonymous memory is page-aligned, which O_DIRECT asks for.
    with mmap.mmap(-1, _BLOCK_BYTES) as block:
        try:
            started, n_bytes = clock(), 0
            while n_bytes < _SAMPLE_BYTES and clock() - started < _SAMPLE_S:
                n_read = os.readv(descriptor, [block])
                n_bytes += n_read
                if n_read < _BLOCK_BYTES:
                    break
            elapsed = clock() - started
        finally:
            os.close(descriptor)
    return n_bytes / elapsed if n_bytes and elapsed > 0 else None
