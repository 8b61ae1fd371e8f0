"""What to try next: strategies behind one protocol, ask and tell.

A strategy sees the candidates with what is predicted of them, and answers with the index of one
that is feasible and that it has not tried.
"""

from __future__ import annotations

import enum
from typing import Protocol

import numpy as np

from autotune.features.case import Array
from autotune.recommend.choose import Candidates


class Strategy(Protocol):
    """A way to search."""

    def ask(self, candidates: Candidates, best: float) -> int | None:
        """Index of the candidate to try next, with ``best`` log seconds to beat; None: no more."""

    def tell(self, index: int, log_s: float | None) -> None:
        """A candidate was tried and took so many log seconds; None where it failed."""

    def forget(self, index: int) -> None:
        """What came of a candidate was worth nothing: it may be tried again."""

    def promise(self, candidates: Candidates, best: float) -> float:
        """Largest expected gain that is left, a share of the request time.

        Infinite where a strategy cannot say, as long as something is untried.
        """


class StrategyName(enum.StrEnum):
    """The strategies that ship."""

    MODEL_GUIDED = "model-guided"
    RANDOM = "random"
    GRID = "grid"


class Untried:
    """The part that all strategies share: what was tried, and what may be."""

    def __init__(self) -> None:
        self._tried: set[int] = set()

    def tell(self, index: int, log_s: float | None) -> None:  # noqa: ARG002 - for others to read
        """A candidate was tried, whatever came of it."""
        self._tried.add(index)

    def forget(self, index: int) -> None:
        """It may be tried again."""
        self._tried.discard(index)

    def promise(self, candidates: Candidates, best: float) -> float:  # noqa: ARG002 - as above
        """Unknown, until nothing is left."""
        return float("inf") if self.untried(candidates).any() else 0.0

    def untried(self, candidates: Candidates) -> Array:
        """Feasible candidates not yet tried, as a mask."""
        mask = candidates.feasible > 0
        mask[list(self._tried)] = False
        return np.asarray(mask)


class RandomSearch(Untried):
    """Any untried candidate, each as likely as the next."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self._rng = rng

    def ask(self, candidates: Candidates, best: float) -> int | None:  # noqa: ARG002 - protocol
        """A draw."""
        untried = np.flatnonzero(self.untried(candidates))
        return int(self._rng.choice(untried)) if len(untried) else None


class GridSearch(Untried):
    """One candidate after the other, in their own order."""

    def ask(self, candidates: Candidates, best: float) -> int | None:  # noqa: ARG002 - protocol
        """The first."""
        untried = np.flatnonzero(self.untried(candidates))
        return int(untried[0]) if len(untried) else None
