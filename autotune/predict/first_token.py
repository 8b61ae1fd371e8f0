"""Time to first token: the prompt's time, and a little more.

Sampling, the first step's start and the caller's own work come on top of the prompt. How much is
the same for an engine on a machine, nearly whatever the model: one shrunken mean each.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.domain.study import Observation
from autotune.features.case import Case
from autotune.predict.phase import Belief
from autotune.predict.rows import SECONDS

_PRIOR_RUNS = 1.0
"""Runs that "nothing on top" counts for."""
_PRIOR_SD = 0.02


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Log of (time to first token / time of the prompt), by machine and backend."""

    places: dict[str, tuple[float, float]]
    """(mean, standard deviation)"""

    @classmethod
    def fit(cls, good: Sequence[tuple[Observation, Case]]) -> FirstToken:
        """Learn from successful runs."""
        found: dict[str, list[float]] = defaultdict(list)
        for observation, case in good:
            base = SECONDS["prefill" if case.workload.n_prompt else "decode"](observation)
            if observation.ttft_s and base and not observation.contaminated:
                found[_place(case)].append(np.log(observation.ttft_s / base))
        return cls({place: _shrunken(np.array(logs)) for place, logs in found.items()})

    def belief(self, cases: Sequence[Case], prefill: Belief, decode: Belief) -> Belief:
        """Log seconds to the first token: after the prompt, or one step where there is none."""
        has_prompt = np.array([case.workload.n_prompt > 0 for case in cases], dtype=bool)
        extra = np.array(
            [self.places.get(_place(case), (0.0, _PRIOR_SD)) for case in cases]
        ).reshape(-1, 2)
        mean = np.where(has_prompt, prefill.mean, decode.mean) + extra[:, 0]
        return Belief(mean, np.hypot(np.where(has_prompt, prefill.sd, decode.sd), extra[:, 1]))


def _place(case: Case) -> str:
    """Two backends of one engine do not stand equally near to their caller."""
    return f"{case.machine_id}/{case.backend}/{case.api}"


def _shrunken(logs: np.ndarray) -> tuple[float, float]:
    middle = float(np.median(logs))
    spread = float(np.median(np.abs(logs - middle))) * 1.4826
    share = len(logs) / (len(logs) + _PRIOR_RUNS)
    return share * middle, float(np.hypot(spread, (1 - share) * _PRIOR_SD))
