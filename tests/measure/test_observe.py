"""Observers: when they look, what they keep, and that the dead do not disturb them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.measure.observe import MAX_SHARE, Gauge, MemoryObserver, Series, read_pss_bytes

SMAPS = """55c0f5025000-7ffd407a0000 ---p 00000000 00:00 0                          [rollup]
Rss:              120000 kB
Pss:               90500 kB
Pss_Dirty:          1160 kB
Swap:                  0 kB
"""


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def make_series(*moments: float) -> Series[float]:
    """A series whose values are ten times their moments."""
    series: Series[float] = Series()
    for moment in moments:
        series.add(moment, 10 * moment)
    return series


def test_an_interval_has_the_readings_made_in_it() -> None:
    """Where none was made, the last before still holds."""
    series = make_series(1, 2, 3)

    assert series.since(2) == [20, 30]
    assert series.since(3.5) == [30]
    assert make_series().since(0) == []


def test_a_counter_is_read_from_before_the_interval_to_its_end() -> None:
    """Else from its first reading; one reading alone tells no growth."""
    span = make_series(1, 2, 3).span(2.5)
    assert span is not None
    assert (span.first, span.last, span.elapsed_s) == (20, 30, 1)
    assert span.rate(lambda value: value) == 10
    assert span.rate(lambda _value: None) is None

    early = make_series(1, 2, 3).span(0)
    assert early is not None
    assert early.first == 10
    assert make_series(1).span(5) is None
    assert make_series(1, 2).span(5) is None
    assert make_series().span(0) is None


def test_what_is_long_past_can_be_forgotten() -> None:
    """The last reading before stays, and what is picked of the others."""
    series = make_series(1, 2, 3, 4)
    series.forget(3.5)
    assert series.values == (30, 40)

    picked: Series[float] = Series()
    for moment, value in enumerate((10, 50, 20, 30, 40)):
        picked.add(moment, value)
    picked.forget(3, keep=lambda values: [max(values)])
    assert picked.values == (50, 30, 40)
    span = picked.span(3)
    assert span is not None
    assert (span.first, span.elapsed_s) == (30, 1)

    untouched = make_series(1, 2)
    for moment in (0.5, 1.5):
        untouched.forget(moment, keep=lambda values: [max(values)])
    assert untouched.values == (10, 20)
    make_series().forget(1)


def test_a_gauge_looks_when_it_is_due() -> None:
    """Not more often, however often it is polled; a look on demand is one."""
    clock, looks = Clock(), iter(range(100))
    gauge = Gauge(lambda: next(looks), interval_s=0.5, clock=clock, cpu_clock=lambda: 0.0)
    for tenths in range(12):
        clock.at = tenths / 10
        gauge.poll()
    assert gauge.series.values == (0, 1, 2)

    gauge.look()
    assert gauge.series.latest == 3


def test_a_gauge_that_costs_much_looks_seldom() -> None:
    """A second of processor time for a look is worth 2,000 seconds of waiting."""
    clock, cpu = Clock(), Clock()

    def expensive() -> float:
        cpu.at += 1.0
        return clock.at

    gauge = Gauge(expensive, interval_s=0.5, clock=clock, cpu_clock=cpu)
    for second in range(2 * round(1 / MAX_SHARE)):
        clock.at = float(second)
        gauge.poll()
    assert gauge.series.values == (0, 1 / MAX_SHARE)


def test_what_is_not_told_is_not_kept() -> None:
    """None is no reading."""
    gauge: Gauge[float] = Gauge(lambda: None, interval_s=0.5)
    gauge.look()

    assert gauge.series.values == ()
    assert gauge.series.latest is None


def test_proportional_memory_is_read_from_the_kernels_sum(tmp_path: Path) -> None:
    """In bytes; None for a process that is gone."""
    folder = tmp_path / "proc" / "42"
    folder.mkdir(parents=True)
    (folder / "smaps_rollup").write_text(SMAPS)

    assert read_pss_bytes(42, tmp_path) == 90500 * 1024
    assert read_pss_bytes(43, tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells proportional memory")
def test_proportional_memory_of_a_real_process_is_below_its_resident_memory() -> None:
    """Libraries that others use as well count by their share."""
    memory = MemoryObserver(os.getpid())
    memory.poll()
    pss = read_pss_bytes(os.getpid())

    assert pss is not None
    assert memory.resident_bytes is not None
    assert 0 < pss < memory.resident_bytes * 1.1


def test_memory_of_a_process_that_is_gone_stays_what_it_was() -> None:
    """The observer is silent, and keeps its peak."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        memory = MemoryObserver(process.pid)
        memory.poll()
        before = memory.peak_bytes
        process.kill()
        process.wait()
    memory.poll()

    assert before is not None
    assert memory.peak_bytes == before
