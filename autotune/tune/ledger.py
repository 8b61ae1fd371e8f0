"""What a study has measured so far, and how much of it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autotune.domain import stats
from autotune.domain.config import Config
from autotune.domain.limits import Limits
from autotune.domain.run import Run
from autotune.features.case import Array, Case
from autotune.recommend.choose import TIE_RATIO


class Ledger:
    """The trials of a study by candidate.

    Trials are provisional until the next clean anchor confirms that the machine has not drifted
    since the last one; :meth:`discard_provisional` takes them back. What breaks the ``limits`` when
    it is measured can be no answer, the default neither.
    """

    def __init__(self, cases: Sequence[Case], default: Config, limits: Limits) -> None:
        self._cases, self._default, self._limits = cases, default, limits
        self._measured: dict[int, list[Run]] = {}
        self._doubtful: dict[int, list[Run]] = {}
        self._excessive: set[int] = set()
        self._provisional: dict[int, int] = {}
        self.n_trials = 0

    def add(self, index: int, run_id: int, run: Run) -> None:
        """Enter a trial of a candidate."""
        self.n_trials += 1
        self._provisional[run_id] = index
        self.repeat(index, run)

    def repeat(self, index: int, run: Run) -> None:
        """Enter one more run of a candidate that was tried."""
        if run.measurement is None:
            return
        if not self._limits.keeps(run.measurement):
            self._excessive.add(index)
            self._measured.pop(index, None)
        if index not in self._excessive:
            self._measured.setdefault(index, []).append(run)

    @property
    def breaks_limits(self) -> bool:
        """Whether something ran, and nothing that ran keeps the limits."""
        return bool(self._excessive) and not self._measured

    @property
    def n_provisional(self) -> int:
        """Trials since the last clean anchor."""
        return len(self._provisional)

    def confirm_provisional(self) -> None:
        """A clean anchor: what came before it stands."""
        self._provisional.clear()

    def discard_provisional(self) -> dict[int, int]:
        """Take back the trials since the last clean anchor; run id → candidate."""
        discarded = dict(self._provisional)
        for index in discarded.values():
            if (runs := self._measured.pop(index, None)) is not None:
                self._doubtful[index] = runs
        self._provisional.clear()
        return discarded

    @property
    def best(self) -> Run | None:
        """A run of the fastest candidate so far."""
        runs = min(self._measured.values(), key=typical_s, default=None)
        return runs[-1] if runs else None

    def finalists(self, n: int, *, plain: int = 0) -> list[int]:
        """The fastest candidates, the fastest first; the default is confirmed anyway.

        ``plain``, the plainest of those that are expected close behind, takes the last place where
        it is plainer than all of them.
        """
        others = [index for index in self._measured if index]
        fastest = sorted(others, key=lambda index: typical_s(self._measured[index]))[:n]
        is_plainer = self._n_changes(plain) < min(map(self._n_changes, fastest), default=0)
        return [*fastest[: n - 1], plain] if plain and is_plainer else fastest

    def winner(self, expected: Array, *, noise_sd: float = 0.0) -> int | None:
        """Of the candidates that tie with the fastest, the one that promises most.

        Those tie that lie within TIE_RATIO of it, or within what ``noise_sd`` (of one run, natural
        log) makes of the difference of two means: such a gain is as likely luck. Between them
        decides what all runs together make expect (log request seconds of each candidate, a knob
        counts wherever it was tried), and where that ties too, who is nearest to the default, then
        who took the least memory.

        Where only the default is left, the fastest discarded candidate is put to the proof: the
        confirmation alternates, so a drift cannot favour it.
        """
        if set(self._measured) <= {0} and self._doubtful:
            return min(self._doubtful, key=lambda index: typical_s(self._doubtful[index]))
        if not self._measured:
            return None
        fastest = min(self._measured, key=lambda index: typical_s(self._measured[index]))
        tied = [
            i
            for i in self._measured
            if self._behind(i, fastest) <= self._band(i, fastest, noise_sd)
        ]
        best = min(expected[i] for i in tied)
        return min(
            (i for i in tied if expected[i] <= best + math.log1p(TIE_RATIO)), key=self._distance
        )

    def _behind(self, index: int, other: int) -> float:
        """Log request time of a candidate over another's."""
        return math.log(typical_s(self._measured[index]) / typical_s(self._measured[other]))

    def _band(self, index: int, other: int, noise_sd: float) -> float:
        """Natural log up to which two candidates are equal."""
        n_ours, n_theirs = (len(self._measured[i]) for i in (index, other))
        return max(math.log1p(TIE_RATIO), noise_sd * math.sqrt(1 / n_ours + 1 / n_theirs))

    def _distance(self, index: int) -> tuple[int, int, float]:
        runs = self._measured[index]
        peak_bytes = max(run.peak_rss_bytes or 0 for run in runs)
        return self._n_changes(index), peak_bytes, typical_s(runs)

    def _n_changes(self, index: int) -> int:
        """Knobs to set; the logical batch follows the physical one by itself."""
        return len(self._cases[index].config.differences(self._default).keys() - {"n_batch"})


def typical_s(runs: Sequence[Run]) -> float:
    """Geometric mean of the request times of several runs, in seconds."""
    return stats.geometric_mean([request_s(run) for run in runs])


def request_s(run: Run) -> float:
    """Median request time of a successful run, in seconds."""
    measurement = run.measurement
    assert measurement is not None, "only measured runs are compared"
    return measurement.request_s.median


def log_request_s(run: Run) -> float | None:
    """Natural log of the median request seconds; None of a run that failed."""
    return math.log(request_s(run)) if run.measurement else None
