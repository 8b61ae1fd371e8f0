"""How much of a file the system holds in memory, and how to make it let go.

A load from the page cache and a load from the disk are two different quantities: whoever times a
load asks here first.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

_MAP_FAILED = ctypes.c_void_p(-1).value


def residency(path: Path) -> float | None:
    """Share of the file's pages in the page cache, 0 to 1, by ``mincore``.

    None on a system without ``mincore``, for a file that cannot be read or is empty, and for one
    that this user can neither write nor owns: of such files Linux claims that every page is there
    (``can_do_mincore`` in ``mm/mincore.c``). Reads no page in.
    """
    if os.name != "posix":
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        size = os.fstat(descriptor).st_size
        return _resident_share(descriptor, size) if size and _is_told(path, descriptor) else None
    finally:
        os.close(descriptor)


def evict(path: Path) -> bool:
    """Ask the system to drop the pages of this file, and of no other, from the page cache.

    True if it took the request (it keeps pages that a process has mapped). False where it offers
    no such request or the file cannot be read.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        os.fsync(descriptor)  # pages not yet written to the disk would stay
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _is_told(path: Path, descriptor: int) -> bool:
    return os.fstat(descriptor).st_uid == os.geteuid() or os.access(path, os.W_OK)


def _resident_share(descriptor: int, size: int) -> float | None:
    """Maps the file through libc, because ``mmap.mmap`` hides the address of a read-only map."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
    )
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == _MAP_FAILED:
        return None
    try:
        pages = np.zeros(-(-size // mmap.PAGESIZE), dtype=np.uint8)
        if libc.mincore(address, size, pages.ctypes.data):
            return None
    finally:
        libc.munmap(address, size)
    return float(np.mean(pages & 1))
