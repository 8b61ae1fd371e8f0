"""What a study has measured so far, and how much of it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.domain.config import Config
from autotune.domain.run import Run
from autotune.features.case import Case
from autotune.recommend.choose import TIE_RATIO


class Ledger:
    """The trials of a study by candidate.

    Trials are provisional until the next clean anchor confirms that the machine has not drifted
    since the last one; :meth:`discard_provisional` takes them back.
    """

    def __init__(self, cases: Sequence[Case], default: Config) -> None:
        self._cases, self._default = cases, default
        self._measured: dict[int, Run] = {}
        self._doubtful: dict[int, Run] = {}
        self._provisional: dict[int, int] = {}
        self.n_trials = 0

    def add(self, index: int, run_id: int, run: Run) -> None:
        """Enter a trial of a candidate."""
        self.n_trials += 1
        self._provisional[run_id] = index
        if run.measurement is not None:
            self._measured[index] = run

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
            if (run := self._measured.pop(index, None)) is not None:
                self._doubtful[index] = run
        self._provisional.clear()
        return discarded

    def run_of(self, index: int) -> Run | None:
        """The successful run of a candidate."""
        return self._measured.get(index)

    @property
    def best(self) -> Run | None:
        """The fastest run so far."""
        return min(self._measured.values(), key=request_s, default=None)

    def winner(self) -> int | None:
        """Of the candidates that tie with the fastest, the one nearest to the default.

        Where only the default is left, the fastest discarded candidate is put to the proof: the
        confirmation alternates, so a drift cannot favour it.
        """
        best = self.best
        if best is None:
            return None
        if set(self._measured) == {0} and self._doubtful:
            return min(self._doubtful, key=lambda index: request_s(self._doubtful[index]))
        limit = request_s(best) * (1 + TIE_RATIO)
        tied = [index for index, run in self._measured.items() if request_s(run) <= limit]
        return min(tied, key=self._distance)

    def _distance(self, index: int) -> tuple[int, float]:
        changes = self._cases[index].config.differences(self._default)
        return len(changes), request_s(self._measured[index])


def request_s(run: Run) -> float:
    """Median request time of a successful run, in seconds."""
    measurement = run.measurement
    assert measurement is not None, "only measured runs are compared"
    return measurement.request_s.median
