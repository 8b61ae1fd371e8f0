"""The disk under a file, from recorded mounts and from this machine."""

from __future__ import annotations

from pathlib import Path

from autotune.facts.disk import probe_disk, read_disk

MOUNTS = """\
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
30 22 0:26 / /dev/shm rw,nosuid shared:4 - tmpfs tmpfs rw
41 22 259:1 / /models rw,relatime shared:9 - xfs /dev/nvme0n1p1 rw
42 22 0:51 / /mnt/my\\040share rw,relatime shared:10 - nfs4 server:/export rw
"""


def machine(folder: Path) -> Path:
    """A recorded file system: a spinning disk with partitions, an NVMe disk."""
    (folder / "proc/self").mkdir(parents=True)
    (folder / "proc/self/mountinfo").write_text(MOUNTS)
    numbers = folder / "sys/dev/block"
    numbers.mkdir(parents=True)
    for number, disk, rotational in (("8:2", "sda", "1"), ("259:1", "nvme0n1", "0")):
        block = folder / "sys/block" / disk
        (block / "queue").mkdir(parents=True)
        (block / "queue/rotational").write_text(f"{rotational}\n")
        (block / f"{disk}p").mkdir()
        (numbers / number).symlink_to(block / f"{disk}p")
    return folder


def test_the_innermost_mount_and_its_kind(tmp_path: Path) -> None:
    """A partition is what its disk is."""
    root = machine(tmp_path)

    assert read_disk(Path("/models/a.gguf"), root).kind == "ssd"
    assert read_disk(Path("/models/a.gguf"), root).filesystem == "xfs"
    assert read_disk(Path("/other/a.gguf"), root).kind == "hdd"
    assert read_disk(Path("/mnt/my share/a.gguf"), root).kind == "network"
    assert read_disk(Path("/dev/shm/a.gguf"), root).kind == "memory"


def test_a_system_that_does_not_tell_leaves_none(tmp_path: Path) -> None:
    """No mount table: free space is all there is."""
    facts = read_disk(tmp_path, tmp_path)

    assert (facts.mount, facts.kind) == (None, None)
    assert facts.free_bytes is None or facts.free_bytes > 0


def test_both_rates_of_a_real_file(smollm2_path: Path) -> None:
    """The page cache is faster than nothing; past it there may be no way."""
    probe = probe_disk(smollm2_path)

    assert probe.cached_bytes_per_s is not None
    assert probe.cached_bytes_per_s > 10e6
    assert probe.disk_bytes_per_s is None or probe.disk_bytes_per_s > 1e6


def test_a_file_that_is_not_there_has_no_rates(tmp_path: Path) -> None:
    """None, not an error: loading will say what is wrong."""
    probe = probe_disk(tmp_path / "missing")

    assert (probe.cached_bytes_per_s, probe.disk_bytes_per_s) == (None, None)


def test_an_empty_file_has_no_rates(tmp_path: Path) -> None:
    """Nothing read, nothing known."""
    (tmp_path / "empty").write_bytes(b"")

    assert probe_disk(tmp_path / "empty").cached_bytes_per_s is None
