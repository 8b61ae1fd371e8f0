"""Runs and their summaries."""

from __future__ import annotations

import pytest

from autotune.domain import stats
from autotune.domain.run import Reason
from autotune.domain.workload import Workload
from tests.factories import make_generation, make_run


def test_rates_follow_from_times() -> None:
    """Tokens over seconds, for each phase."""
    generation = make_generation()

    assert generation.prefill_tps == pytest.approx(640)
    assert generation.decode_tps == pytest.approx(100)
    assert generation.ttft_s == pytest.approx(0.101)
    assert generation.request_s == pytest.approx(0.14)


def test_a_phase_that_was_not_measured_is_none() -> None:
    """No prompt, no prefill rate; no generated token, no decode rate. Never zero."""
    decode_only = make_generation(
        workload=Workload(n_prompt=0, n_gen=4), prefill_ns=None, ttft_ns=None
    )
    prefill_only = make_generation(workload=Workload(n_prompt=64, n_gen=0), token_ns=())

    assert decode_only.prefill_tps is None
    assert decode_only.ttft_s is None
    assert prefill_only.decode_tps is None


def test_a_summary_takes_medians_and_keeps_the_range() -> None:
    """One slow repetition moves the range, not the median."""
    slow = make_generation(prefill_ns=200_000_000, repetition=2)
    run = make_run(generations=(make_generation(), make_generation(repetition=1), slow))

    measurement = run.measurement
    assert measurement is not None
    assert measurement.prefill_tps is not None
    assert measurement.prefill_tps.median == pytest.approx(640)
    assert measurement.prefill_tps.low == pytest.approx(320)
    assert measurement.load_s == pytest.approx(0.25)
    assert measurement.peak_memory_bytes == 99_000_000


def test_a_failed_run_has_no_measurement() -> None:
    """What was measured before a failure is not a result."""
    assert make_run(reason=Reason.OOM).measurement is None


def test_being_stopped_says_nothing_about_a_configuration() -> None:
    """Cancelled and interrupted runs are no failure labels; all others are."""
    assert {reason for reason in Reason if not reason.is_label} == {
        Reason.CANCELLED,
        Reason.INTERRUPTED,
    }


def test_quantiles_interpolate() -> None:
    """As numpy does by default."""
    assert stats.quantile([4.0, 1.0, 2.0, 3.0], 0.5) == pytest.approx(2.5)
    assert stats.quantile([1.0], 0.95) == 1.0
