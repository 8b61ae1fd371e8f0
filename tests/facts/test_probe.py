"""The probe: rates that can be believed, within the time that was given."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from autotune.facts import probe
from autotune.facts.probe import probe_machine


def test_this_machine_reads_and_multiplies() -> None:
    """More than any machine that runs this must do, less than silicon can."""
    result = probe_machine(2, budget_s=1.0)
    assert result.n_threads == (1, 2)
    assert all(0.5e9 < rate < 5e12 for rate in result.read_bytes_per_s)
    assert all(1e9 < rate < 1e15 for rate in result.flops_per_s)
    assert all(spread >= 0 for spread in result.read_spread_ratio + result.flops_spread_ratio)
    assert result.read_rate(1.5) == pytest.approx(sum(result.read_bytes_per_s) / 2)


def test_many_threads_keep_to_the_budget() -> None:
    """64 threads on whatever this machine has: both ends measured, at most twice the second."""
    started = time.perf_counter()
    result = probe_machine(64, budget_s=1.0)
    assert (result.n_threads[0], result.n_threads[-1]) == (1, 64)
    assert result.elapsed_s <= time.perf_counter() - started
    assert result.elapsed_s < 5.0


@pytest.fixture
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to measure, so that a played clock decides alone."""
    monkeypatch.setattr(probe, "_BUFFER_BYTES", 1024)
    monkeypatch.setattr(probe, "_SIDE", 8)


def ticking(seconds: float) -> Iterator[float]:
    """A clock that advances by the same step at every look."""
    now = 0.0
    while True:
        yield now
        now += seconds


def test_rates_come_from_the_clock(small_buffer: None) -> None:
    """1,024 bytes in each hundredth of a second, twice per repeat."""
    clock = ticking(0.01)
    result = probe_machine(1, clock=lambda: next(clock), budget_s=10.0)
    assert result.read_bytes_per_s == pytest.approx((2 * 1024 / 0.01,))
    assert result.flops_per_s == pytest.approx((2 * 2 * 8**3 / 0.01,))
    assert result.read_spread_ratio == pytest.approx((0.0,))


def test_every_usual_count_is_measured_when_there_is_time(small_buffer: None) -> None:
    """One, the usual steps, and all."""
    result = probe_machine(20, budget_s=5.0)
    assert result.n_threads == (1, 2, 3, 4, 6, 8, 12, 16, 20)


def test_a_slow_machine_measures_the_two_ends(small_buffer: None) -> None:
    """What lies between is interpolated."""
    clock = ticking(0.2)
    result = probe_machine(16, clock=lambda: next(clock), budget_s=5.0)
    assert result.n_threads == (1, 16)
    assert result.elapsed_s > 4.0
