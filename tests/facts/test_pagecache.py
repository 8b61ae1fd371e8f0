"""The page cache: how much of a file is in it, and dropping that file alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from autotune.facts.pagecache import evict, residency

pytestmark = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise")
PAGE = os.sysconf("SC_PAGESIZE") if hasattr(os, "sysconf") else 4096


def written(path: Path, n_pages: int) -> Path:
    """A file of so many pages, and half a page more."""
    path.write_bytes(os.urandom(n_pages * PAGE + PAGE // 2))
    return path


def test_a_file_just_read_is_resident_and_can_be_dropped(tmp_path: Path) -> None:
    """All of it, then none of it, while its neighbour stays."""
    file, neighbour = written(tmp_path / "a", 100), written(tmp_path / "b", 100)
    assert residency(file) == 1.0
    assert evict(file)
    if residency(file) == 1.0:
        pytest.skip("this file system lives in memory")
    assert residency(file) == 0.0
    assert residency(neighbour) == 1.0


def test_part_of_a_file_is_part_resident(tmp_path: Path) -> None:
    """The share is counted in pages."""
    file = written(tmp_path / "a", 4095)
    evict(file)
    if residency(file) == 1.0:
        pytest.skip("this file system lives in memory")
    with file.open("rb") as reader:
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        os.pread(reader.fileno(), PAGE, 0)
        share = residency(file)
    assert share is not None
    assert 0 < share < 0.2


def test_asking_reads_nothing_in(tmp_path: Path) -> None:
    """Two questions give the same answer."""
    file = written(tmp_path / "a", 50)
    evict(file)
    assert residency(file) == residency(file)


def test_what_is_no_file_has_no_residency(tmp_path: Path) -> None:
    """Missing, empty, a folder."""
    (tmp_path / "empty").touch()
    for path in (tmp_path / "missing", tmp_path / "empty", tmp_path):
        assert residency(path) is None
    assert not evict(tmp_path / "missing")


def test_a_foreign_file_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files that one may only read, Linux claims that every page is there."""
    file = written(tmp_path / "a", 3)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert residency(file) is None
