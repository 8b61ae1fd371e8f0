"""The model-guided strategy: try what promises most for its price.

Expected improvement over the best measured configuration (Jones, Schonlau, Welch: "Efficient
Global Optimization", 1998), on log request times, so that it reads as a relative gain; times the
probability of success; over the seconds the trial will take.
"""

from __future__ import annotations

import numpy as np

from autotune.domain.config import Config
from autotune.features.case import Array
from autotune.predict.phase import Belief
from autotune.recommend.choose import Candidates, choose
from autotune.tune.strategy import GridSearch, RandomSearch, Strategy, StrategyName, Untried

PRICE_EXPONENT = 0.5
"""How much a trial's duration counts against its promise."""
RANDOM_SHARE = 0.15
"""Share of trials drawn at random from the feasible: they keep the telemetry unbiased."""
_TIE = 0.1
"""Of scores this close, natural log, the plainest configuration's wins."""
_FEW = 3
"""Trials before any random one: the first contact is informative on purpose."""


def expected_improvement(belief: Belief, best: float) -> Array:
    """Expected gain over ``best`` (log seconds), a share of the request time; (n_cases,)."""
    from scipy.special import ndtr

    z = (best - belief.mean) / belief.sd
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray(np.maximum(belief.sd * (z * ndtr(z) + density), 1e-300))


class ModelGuided(Untried):
    """Asks for the candidate with the best score; of several alike, for the nearest to the default.

    A knob that should change nothing is tried once what should change something was.
    """

    def __init__(self, rng: np.random.Generator, *, default: Config) -> None:
        super().__init__()
        self._rng, self._default = rng, default
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
            left = Candidates(candidates.forecast, untried.astype(float))
            return choose(left, default=self._default)
        if len(self._tried) >= _FEW and self._rng.random() < RANDOM_SHARE:
            return int(self._rng.choice(np.flatnonzero(untried)))
        belief = candidates.forecast.request()
        score = (
            np.log(expected_improvement(belief, best))
            + np.log(candidates.forecast.p_success)
            - PRICE_EXPONENT * belief.mean
        )
        score = np.where(untried, score, -np.inf)
        cases = candidates.forecast.cases
        return min(
            map(int, np.flatnonzero(score >= score.max() - _TIE)),
            key=lambda i: (len(cases[i].config.differences(self._default)), -score[i]),
        )


def make_strategy(name: StrategyName, rng: np.random.Generator, *, default: Config) -> Strategy:
    """The strategy of a name, for candidates around a default."""
    if name is StrategyName.RANDOM:
        return RandomSearch(rng)
    return GridSearch() if name is StrategyName.GRID else ModelGuided(rng, default=default)
