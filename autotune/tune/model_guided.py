"""The model-guided strategy: try what promises most for its price.

Expected improvement over the best measured configuration (Jones, Schonlau, Welch: "Efficient
Global Optimization", 1998), on log request times, so that it reads as a relative gain; times the
probability of success; over the seconds the trial will take.
"""

from __future__ import annotations

import numpy as np

from autotune.features.case import Array
from autotune.predict.phase import Belief
from autotune.recommend.choose import Candidates
from autotune.tune.strategy import GridSearch, RandomSearch, Strategy, StrategyName, Untried

PRICE_EXPONENT = 0.5
"""How much a trial's duration counts against its promise."""
RANDOM_SHARE = 0.15
"""Share of trials drawn at random from the feasible: they keep the telemetry unbiased."""
_FEW = 3
"""Trials before any random one: the first contact is informative on purpose."""


def expected_improvement(belief: Belief, best: float) -> Array:
    """Expected gain over ``best`` (log seconds), a share of the request time; (n_cases,)."""
    from scipy.special import ndtr

    z = (best - belief.mean) / belief.sd
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(np.maximum(belief.sd * (z * ndtr(z) + density), 1e-300))


class ModelGuided(Untried):
    """Asks for the candidate with the best score."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__()
        self._rng = rng
        self._has_asked = False

    def promise(self, candidates: Candidates, best: float) -> float:
        """The largest expected gain that is left, as a share of the request time."""
        untried = self.untried(candidates)
        if not untried.any():
            return 0.0
        return float(expected_improvement(candidates.forecast.request(), best)[untried].max())

    def ask(self, candidates: Candidates, best: float) -> int | None:
        """Index of the candidate to try next; None when all feasible ones were tried."""
        untried = self.untried(candidates)
        if not untried.any():
            return None
        if not self._has_asked:
            # What a recommendation would answer is looked at first.
            self._has_asked = True
            return int(np.argmin(np.where(untried, candidates.forecast.request().mean, np.inf)))
        if len(self._tried) >= _FEW and self._rng.random() < RANDOM_SHARE:
            return int(self._rng.choice(np.flatnonzero(untried)))
        belief = candidates.forecast.request()
        score = (
            np.log(expected_improvement(belief, best))
            + np.log(candidates.forecast.p_success)
            - PRICE_EXPONENT * belief.mean
        )
        return int(np.argmax(np.where(untried, score, -np.inf)))


def make_strategy(name: StrategyName, rng: np.random.Generator) -> Strategy:
    """The strategy of a name."""
    if name is StrategyName.RANDOM:
        return RandomSearch(rng)
    return GridSearch() if name is StrategyName.GRID else ModelGuided(rng)
