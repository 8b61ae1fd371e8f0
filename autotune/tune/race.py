"""A race of two backends: each one's best configuration, by turns, in fresh processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotune.domain.run import Run
from autotune.domain.units import human_bytes
from autotune.recommend.backend_reasons import MEMORY_TIE_RATIO
from autotune.recommend.selection import priority
from autotune.tune.confirmation import confirm
from autotune.tune.question import Question
from autotune.tune.verdict import Measured, is_faster, pool, process_noise_sd


@dataclass(frozen=True, slots=True, kw_only=True)
class Champion:
    """A backend's configuration that was put to the proof."""

    question: Question
    index: int
    """Of its candidate."""
    measured: Measured

    @property
    def name(self) -> str:
        """Its backend."""
        return self.question.study.backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """What came of a race."""

    winner: Champion
    sides: tuple[Champion, ...]
    """Both, with what they did in it; empty where one of them failed."""
    told: str
    """The result in one line."""


def race(
    champion: Champion,
    rival: tuple[Question, int],
    *,
    run: Callable[[Question, int], Run],
    left_s: Callable[[], float],
) -> Race:
    """The champion against a rival's candidate: who is proven faster wins, see :func:`confirm`.

    Where neither is, they are as fast: the smaller memory wins, then the order of backends. A rival
    that fails, or breaks its limits, has lost.
    """
    question, index = rival
    sides = (champion.question, champion.index), rival
    found = confirm(lambda side: run(*sides[side]), 1, has_default=True, anchors=(), left_s=left_s)
    ours, theirs = found.defaults, found.winners
    if not all(r.ok for r in (*ours, *theirs)):
        failed = next(r for r in (*theirs, *ours) if not r.ok)
        told = f"{failed.backend} failed in the race against its rival: {failed.message}"
        return Race(winner=champion, sides=(), told=told)
    held = Champion(question=champion.question, index=champion.index, measured=pool(ours))
    other = Champion(question=question, index=index, measured=pool(theirs))
    if not question.limits.keeps(other.measured.measurement):
        winner, loser, why = held, other, f"keeps {question.limits}"
    elif found.is_proven:
        winner, loser, why = other, held, ""
    elif is_faster(ours, theirs, noise_sd=process_noise_sd(ours)):
        winner, loser, why = held, other, ""
    else:
        winner, loser, why = _tied(held, other)
    return Race(winner=winner, sides=(held, other), told=_told(winner, loser, why))


def _tied(held: Champion, rival: Champion) -> tuple[Champion, Champion, str]:
    """(winner, loser, why) of two that are as fast."""
    ours, theirs = (_peak_bytes(side) for side in (held, rival))
    if ours and theirs and max(ours, theirs) > min(ours, theirs) * (1 + MEMORY_TIE_RATIO):
        winner, loser = (held, rival) if ours < theirs else (rival, held)
        return winner, loser, f"as fast, with {human_bytes(abs(ours - theirs))} less memory"
    winner, loser = sorted((held, rival), key=lambda side: priority(side.name))
    return winner, loser, "as fast and as small; it comes first in the order of backends"


def _peak_bytes(side: Champion) -> int | None:
    return side.measured.measurement.peak_memory_bytes


def _told(winner: Champion, loser: Champion, why: str) -> str:
    factor = (
        loser.measured.measurement.request_s.median / winner.measured.measurement.request_s.median
    )
    runs = f"{winner.measured.n_runs} runs each, by turns"
    return f"{winner.name}: {why or f'{factor:.2f}× the speed'}, beside {loser.name} ({runs})"
