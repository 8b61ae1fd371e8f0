"""What an engine cannot load at all, whatever the configuration: its own word counts.

Of a model that was refused as unsupported the next run will be too, until one succeeds or another
build of the engine is asked. Other models of its architecture are presumed by the rule of
succession, (loaded + 1) / (loaded + refused + 2): one refusal leaves a third.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from autotune.domain.run import Reason
from autotune.domain.study import Observation
from autotune.features.case import Array, Case

_REFUSED = 0.02
"""Chance that a model loads which the same build has refused."""


@dataclass(frozen=True, slots=True)
class _Word:
    """What an engine said of a model the last time."""

    loads: bool
    build: str
    architecture: str


@dataclass(slots=True)
class Support:
    """Which models each engine loaded or refused."""

    words: dict[tuple[str, str], _Word] = field(default_factory=dict)
    """By backend and model."""

    @classmethod
    def of(cls, taught: Iterable[tuple[Observation, Case]]) -> Support:
        """What runs say, oldest first; other failures say nothing of it."""
        support = cls()
        for observation, case in taught:
            if observation.reason in (None, Reason.UNSUPPORTED):
                word = _Word(observation.reason is None, case.build, case.model.architecture)
                support.words[case.backend, case.model.model_id] = word
        return support

    def ceilings(self, cases: Sequence[Case]) -> Array:
        """The most that the chance of success can be of each case; shape (n_cases,)."""
        if all(word.loads for word in self.words.values()):
            return np.ones(len(cases))
        return np.array([self._ceiling(case) for case in cases], dtype=float)

    def _ceiling(self, case: Case) -> float:
        word = self.words.get((case.backend, case.model.model_id))
        if word is not None and (word.loads or case.build in ("", word.build)):
            return 1.0 if word.loads else _REFUSED
        others = [
            other.loads
            for (backend, _), other in self.words.items()
            if backend == case.backend
            and other.architecture == case.model.architecture
            and case.build in ("", other.build)
        ]
        if all(others):
            return 1.0
        return (sum(others) + 1) / (len(others) + 2)
