"""Warm-up and repetition, decided from numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from autotune.domain.conditions import Conditions
from autotune.domain.run import Generation
from autotune.measure.procedure import half_width_ratio, measure_generations
from tests.factories import make_generation


def script(times_ms: Iterable[float]) -> tuple[Callable[[int], Generation], list[float]]:
    """A taker that plays given request times, and the list of those not yet played.

    Negative times are those of contaminated samples.
    """
    left = list(times_ms)

    def take(repetition: int) -> Generation:
        time_ms = left.pop(0)
        return make_generation(
            repetition=repetition,
            prefill_ns=int(abs(time_ms) * 1e6),
            token_ns=(),
            conditions=Conditions(foreign_cpu_ratio=0.5 if time_ms < 0 else 0.0),
        )

    return take, left


def measure(times_ms: list[float], *, n_reps: int = 3, max_reps: int = 8) -> list[float]:
    """Request times in milliseconds that the procedure keeps of a script."""
    take, _ = script(times_ms)
    kept = measure_generations(take, n_reps=n_reps, max_reps=max_reps, spent_ratio=lambda: 0.0)
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
    kept = measure_generations(take, n_reps=3, max_reps=8, spent_ratio=lambda: 1.0)

    assert len(kept) == 3


def test_what_takes_many_times_its_budget_is_measured_once() -> None:
    """Two threads that share a core with a neighbour may need minutes for one sample."""
    take, left = script([100, 100, 80, 120, 90])
    kept = measure_generations(take, n_reps=3, max_reps=8, spent_ratio=lambda: 3.0)

    assert (len(kept), len(left)) == (1, 3)


def test_warm_up_ends_when_time_is_up() -> None:
    """One sample is thrown away, whatever the second says."""
    take, left = script([500, 400, 300, 200, 100])
    measure_generations(take, n_reps=3, max_reps=8, spent_ratio=lambda: 1.0)

    assert left == [100]


def test_the_interval_drops_its_ends_from_six_samples_on() -> None:
    """One outlier among six does not widen it."""
    samples = [make_generation(prefill_ns=100, token_ns=()) for _ in range(5)]
    outlier = make_generation(prefill_ns=1000, token_ns=())

    assert half_width_ratio([*samples, outlier]) == 0
    assert half_width_ratio([*samples[:2], outlier]) == pytest.approx(4.5)


def test_a_contaminated_sample_is_made_again() -> None:
    """It is kept, marked, and not counted among the three that were asked for."""
    assert measure([100, 100, -300, 100, -310, 100]) == [100, 300, 100, 310, 100]


def test_contaminated_samples_that_agree_are_no_proof() -> None:
    """Three equal times under a steady neighbour are asked for again."""
    assert len(measure([-300] * 20)) == 3 + 8


def test_a_neighbour_that_leaves_lets_clean_samples_be_made() -> None:
    """However many were spoiled before."""
    kept = measure([-300, -300, -300, -290, 100, 101, 100])

    assert kept[-3:] == [100, 101, 100]


def test_only_clean_samples_decide_whether_the_median_is_known() -> None:
    """One outlier of somebody else's making asks for no further repetition."""
    assert measure([100, 100, -900, 100, 100, 500]) == [100, 900, 100, 100]


def test_contaminated_samples_are_not_made_again_when_time_is_up() -> None:
    """The fewest are made, and kept as they are."""
    take, left = script([-300] * 20)
    kept = measure_generations(take, n_reps=3, max_reps=8, spent_ratio=lambda: 1.0)

    assert len(kept) == 3
    assert all(generation.contamination for generation in kept)
    assert len(left) == 16


def test_a_clean_and_a_contaminated_sample_never_agree() -> None:
    """Neither ends the warm-up by looking like the other."""
    assert measure([-100, 100, 100, 100, 100]) == [100, 100, 100]
    assert measure([-100, 100, -100, 100, 100, 100]) == [100, 100, 100]
