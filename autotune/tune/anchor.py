"""The anchor: one configuration re-measured every few trials, to notice that the machine drifts.

A laptop that heats up, a neighbour that wakes: everything gets slower, and a search would blame
the configurations. The practice is that of llama.cpp's own kernel tuner.
"""

from __future__ import annotations

from autotune.domain.run import Run
from autotune.tune.ledger import request_s

EVERY_TRIALS = 4
"""Trials between two anchors."""
DRIFT_RATIO = 0.10
"""An anchor this far from the first discards what came since the last clean one."""
RECOVERED_RATIO = 0.05
"""An anchor this near the first ends the waiting: two spreads between processes."""
WAITS_S = (4.0, 8.0, 16.0, 32.0)
"""Waits before each further look; after the last one the search gives up."""


class Anchor:
    """The first measurement of the anchor configuration, and what later ones say against it."""

    def __init__(self, reference: Run) -> None:
        self._reference_s = request_s(reference)

    def drift(self, run: Run) -> float:
        """Distance of a later measurement from the first, as a ratio; 0 is none.

        A run that failed is drift without bound: the anchor ran before.
        """
        if run.measurement is None:
            return float("inf")
        return abs(request_s(run) / self._reference_s - 1)

    def has_drifted(self, run: Run) -> bool:
        """Whether the trials since the last clean anchor cannot be trusted."""
        return self.drift(run) > DRIFT_RATIO

    def has_recovered(self, run: Run) -> bool:
        """Whether the machine is again what it was."""
        return self.drift(run) <= RECOVERED_RATIO
