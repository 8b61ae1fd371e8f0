"""The procedure of a measurement: warm up until stable, repeat until sure, repeat the spoiled.

Which samples to take is decided here, from numbers alone; taking them is the runner's work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from autotune.domain import stats
from autotune.domain.run import Generation

WARM_UP_AGREEMENT_RATIO = 0.03
"""Two successive samples this close end the warm-up."""
MAX_WARM_UPS = 3
PRECISION_RATIO = 0.03
"""Repeat until the median is known this well."""
OVERDRAFT = 3.0
"""What is slower than everybody thought gets its time so many times over for the fewest
repetitions that were asked for; then those that there are have to do."""


def measure_generations(
    take: Callable[[int], Generation],
    *,
    n_reps: int,
    max_reps: int,
    spent_ratio: Callable[[], float],
) -> tuple[Generation, ...]:
    """Generations worth keeping, numbered from 0.

    ``take(index)`` makes one; ``spent_ratio()`` is the share of the time budget that is gone. At
    least one is thrown away as warm-up; ``n_reps`` are kept, fewer only when the budget is spent
    OVERDRAFT times. Within the budget, ``n_reps`` clean ones are asked for (a contaminated one is
    kept, and another made, up to ``n_reps + max_reps`` in all), and up to ``max_reps`` clean ones
    while their median is not known within PRECISION_RATIO.
    """
    kept: list[Generation] = [_warm_up(take, spent_ratio)]
    while (len(kept) < n_reps and spent_ratio() < OVERDRAFT) or (
        spent_ratio() < 1 and _is_worth_another(kept, n_reps=n_reps, max_reps=max_reps)
    ):
        kept.append(take(len(kept)))
    return tuple(kept)


def _is_worth_another(kept: Sequence[Generation], *, n_reps: int, max_reps: int) -> bool:
    clean = [generation for generation in kept if not generation.contamination]
    if len(kept) >= n_reps + max_reps:
        return False
    if len(clean) < n_reps:
        return True
    return len(clean) < max_reps and half_width_ratio(clean) > PRECISION_RATIO


def _warm_up(take: Callable[[int], Generation], spent_ratio: Callable[[], float]) -> Generation:
    """The first sample that agrees with the one before it."""
    before = take(0)
    for _ in range(MAX_WARM_UPS):
        after = take(0)
        if _agree(before, after) or spent_ratio() >= 1:
            break
        before = after
    return after


def _agree(before: Generation, after: Generation) -> bool:
    """A spoiled sample says nothing of a clean one; two of a kind are held together."""
    if bool(before.contamination) is not bool(after.contamination):
        return False
    return abs(after.request_s / before.request_s - 1) <= WARM_UP_AGREEMENT_RATIO


def half_width_ratio(generations: Sequence[Generation]) -> float:
    """Half-width of a distribution-free interval of the median request time, over the median.

    The interval is the range of the samples, without its two ends from six samples on: it covers
    the median with 75 % for three samples, 94 % for five, 97 % for eight (order statistics).
    """
    times = sorted(generation.request_s for generation in generations)
    inner = times[1:-1] if len(times) >= 6 else times
    return (inner[-1] - inner[0]) / 2 / stats.median(times)
