"""Warm-up and repetition, decided from numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from autotune.domain.run import Generation
from autotune.measure.procedure import half_width_ratio, measure_generations
from tests.factories import make_generation


def script(times_ms: Iterable[float]) -> tuple[Callable[[int], Generation], list[float]]:
    """A taker that plays given request times, and the list of those not yet played."""
    left = list(times_ms)

    def take(repetition: int) -> Generation:
        return make_generation(
            repetition=repetition, prefill_ns=int(left.pop(0) * 1e6), token_ns=()
        )

    return take, left


def measure(times_ms: list[float], *, n_reps: int = 3, max_reps: int = 8) -> list[float]:
    """Request times in milliseconds that the procedure keeps of a script."""
    take, _ = script(times_ms)
    kept = measure_generations(take, n_reps=n_reps, max_reps=max_reps, time_left=lambda: True)
    assert [generation.repetition for generation in kept] == list(range(len(kept)))
    return [round(generation.request_s * 1000) for generation in kept]


def test_the_first_sample_is_never_kept() -> None:
    """A steady engine is measured three times after one warm-up."""
    assert measure([101, 100, 100, 100]) == [100, 100, 100]


def test_warm_up_goes_on_until_two_samples_agree() -> None:
    """A speed that still climbs is not measured yet."""
    assert measure([200, 150, 110, 108, 108, 108]) == [108, 108, 108]


def test_warm_up_ends_even_when_nothing_agrees() -> None:
    """A noisy engine is measured all the same, with more repetitions."""
    assert measure([100, 200, 100, 200, 100, 100, 100, 100, 100, 100, 100])[0] == 200


def test_disagreeing_samples_are_repeated_up_to_the_limit() -> None:
    """Eight, not more, however noisy."""
    assert len(measure([100, 100] + [80, 120] * 10)) == 8


def test_agreeing_samples_are_not_repeated() -> None:
    """Three within 3 % are enough."""
    assert len(measure([100, 100, 101, 102, 500])) == 3


def test_no_repetition_is_added_when_time_is_up() -> None:
    """The fewest repetitions are made all the same."""
    take, _ = script([100, 100, 80, 120, 90])
    kept = measure_generations(take, n_reps=3, max_reps=8, time_left=lambda: False)

    assert len(kept) == 3


def test_the_interval_drops_its_ends_from_six_samples_on() -> None:
    """One outlier among six does not widen it."""
    samples = [make_generation(prefill_ns=100, token_ns=()) for _ in range(5)]
    outlier = make_generation(prefill_ns=1000, token_ns=())

    assert half_width_ratio([*samples, outlier]) == 0
    assert half_width_ratio([*samples[:2], outlier]) == pytest.approx(4.5)
