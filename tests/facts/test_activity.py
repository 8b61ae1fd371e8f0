"""Counters and gauges of a running system, on recorded files."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from autotune.facts.activity import (
    Pressure,
    SystemActivity,
    parse_pressure,
    read_cpu_celsius,
    read_process_s,
    read_processor_time,
)
from autotune.facts.text import KeptFile

LinuxTimes = namedtuple("LinuxTimes", "user system idle iowait steal")
PlainTimes = namedtuple("PlainTimes", "user system idle")


def test_waiting_for_a_disk_is_idle_and_stolen_time_is_told() -> None:
    """In seconds over all processors; a system that does not count it says None."""
    linux = read_processor_time(lambda: LinuxTimes(5.0, 2.0, 90.0, 3.0, 0.5))
    assert linux is not None
    assert (linux.idle_s, linux.steal_s) == (93.0, 0.5)
    plain = read_processor_time(lambda: PlainTimes(5.0, 2.0, 90.0))
    assert plain is not None
    assert (plain.idle_s, plain.steal_s) == (90.0, None)


def test_a_sandbox_that_counts_nothing_tells_nothing() -> None:
    """A file of zeros would read as a machine that is always busy."""
    assert read_processor_time(lambda: LinuxTimes(0.0, 0.0, 0.0, 0.0, 0.0)) is None


def test_processor_time_of_a_process_is_exact() -> None:
    """It grows with the work, and agrees with the process's own clock."""
    before = read_process_s(os.getpid())
    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass
    after = read_process_s(os.getpid())

    assert before is not None
    assert after is not None
    assert 0.05 <= after - before < 0.5
    assert after == pytest.approx(time.process_time(), abs=0.05)


def test_processor_time_is_asked_otherwise_where_a_process_has_no_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """macOS and Windows."""

    def refuse(_clock: int) -> float:
        raise OSError("invalid argument")

    exact = read_process_s(os.getpid())
    monkeypatch.setattr(time, "clock_gettime", refuse)

    assert read_process_s(os.getpid()) == pytest.approx(exact, abs=0.1)


def test_a_process_that_is_gone_has_no_processor_time() -> None:
    """None, not an error."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert read_process_s(process.pid) is None


def test_pressure_is_in_seconds(plant: Callable[[str], Path]) -> None:
    """Of processors, disks and memory; None for a kernel that does not count it."""
    assert SystemActivity(plant("linux_activity")).pressure() == Pressure(
        cpu_s=2040.718349, io_s=1.310426, memory_s=0.0
    )


def test_a_kernel_without_pressure_tells_none(tmp_path: Path) -> None:
    """Whole, or in part."""
    assert SystemActivity(tmp_path).pressure() is None
    assert parse_pressure("") is None
    assert parse_pressure("full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n") is None


def test_swapping_is_counted_both_ways(plant: Callable[[str], Path], tmp_path: Path) -> None:
    """Pages in and out, in bytes."""
    assert SystemActivity(plant("linux_activity")).swapped_bytes() == 256 * mmap.PAGESIZE
    assert SystemActivity(tmp_path).swapped_bytes() is None


def test_the_fastest_processor_is_the_clock(plant: Callable[[str], Path], tmp_path: Path) -> None:
    """An idle one runs at 800 MHz and says nothing of those that work."""
    assert SystemActivity(plant("linux_activity")).clock_mhz() == pytest.approx(4199.998)
    assert SystemActivity(tmp_path).clock_mhz() is None


def test_heat_is_counted(plant: Callable[[str], Path], tmp_path: Path) -> None:
    """Over cores and package; only whether it grows says something."""
    assert SystemActivity(plant("linux_activity")).throttle_count() == 44
    assert SystemActivity(tmp_path).throttle_count() is None


def test_the_processors_own_sensor_is_read() -> None:
    """The hottest of its chip; a disk's or a mainboard's is not the processor's."""

    def sensors() -> dict[str, list[SimpleNamespace]]:
        chips = {"nvme": [61.0], "acpitz": [27.8], "k10temp": [48.5, 52.0]}
        return {name: [SimpleNamespace(current=c) for c in seen] for name, seen in chips.items()}

    assert read_cpu_celsius(sensors) == 52.0
    assert read_cpu_celsius(dict) is None
    assert read_cpu_celsius(None) is None


def test_a_kept_file_tells_its_present_text(tmp_path: Path) -> None:
    """Without being opened again; a file that was never there tells nothing."""
    path = tmp_path / "counter"
    path.write_text("1\n")
    kept = KeptFile(path)
    assert kept.read() == "1\n"
    path.write_text("22\n")

    assert kept.read() == "22\n"
    assert KeptFile(tmp_path / "nowhere").read() is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of processes in files")
def test_a_kept_file_of_a_process_that_is_gone_tells_nothing() -> None:
    """Also when its number is another's by now."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        kept = KeptFile(Path(f"/proc/{process.pid}/status"))
        assert kept.read()
        process.kill()
        process.wait()

    assert kept.read() is None
