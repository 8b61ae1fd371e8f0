"""The confirmation: default and winner in fresh processes, alternating, until one is proven.

A search picks lucky samples; only runs that were made after it are reported. Pairs are added as
long as they promise a gain that they do not prove, and there is time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autotune.domain.prediction import Prediction
from autotune.domain.run import Run
from autotune.tune.verdict import is_faster, is_promising, process_noise_sd

CONFIRM_PAIRS = 2
MOST_PAIRS = 6
_RUN_OVERHEAD_S = 2.0
_SAMPLES_PER_RUN = 5
"""Warm-ups and repetitions of an ordinary run."""


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Fresh runs of default and winner, pair by pair; the same runs where they are the same."""

    defaults: tuple[Run, ...]
    winners: tuple[Run, ...]
    is_proven: bool
    """Whether the winner is another one, and faster beyond noise."""


def confirm(
    run: Callable[[int], Run],
    winner: int,
    *,
    has_default: bool,
    anchors: Sequence[Run],
    left_s: Callable[[], float],
) -> Confirmation:
    """Run candidate 0 (the default) and the ``winner`` by turns.

    ``run`` makes one fresh run of a candidate; ``anchors`` are the default's runs so far: they say
    how far processes differ. ``left_s`` is the time that may be spent.
    """
    defaults: list[Run] = []
    winners: list[Run] = []

    def decided() -> bool:
        if len(winners) < CONFIRM_PAIRS:
            return False
        if not winner or not has_default or not all(r.ok for r in (*winners, *defaults)):
            return True
        pair_s = winners[-1].elapsed_s + defaults[-1].elapsed_s
        if len(winners) == MOST_PAIRS or left_s() < pair_s or proven():
            return True
        return not is_promising(winners, defaults)

    def proven() -> bool:
        noise_sd = process_noise_sd([*anchors, *defaults])
        return is_faster(winners, defaults, noise_sd=noise_sd)

    while not decided():
        if has_default:
            defaults.append(run(0))
        winners.append(run(winner) if winner else defaults[-1])
    ran = all(r.ok for r in (*winners, *defaults))
    is_proven = bool(winner) and has_default and ran and proven()
    return Confirmation(tuple(defaults), tuple(winners), is_proven)


def run_s(prediction: Prediction) -> float:
    """Seconds that a run of what is predicted usually takes, from load to last repetition."""
    sampling_s = prediction.depth_s + _SAMPLES_PER_RUN * prediction.request_s
    return _RUN_OVERHEAD_S + prediction.load_s.q50 + sampling_s
