"""How many requests are taken from the queue at once."""

from __future__ import annotations

from collections import deque

from autotune.domain import stats

_N_RECENT = 8


class BatchSize:
    """The adaptive size of a batch, 1 to ``maximum``.

    Inside a batch, requests are ordered by what the engine's cache can reuse: the larger it is,
    the more is reused, and the longer can another go before an older one. So it follows the
    length of the queue, and an idle engine serves a lone request without waiting for company.
    ``ceiling`` bounds it, and with it the requests served at once: halved while requests take
    longer than ``service_goal_s`` or memory is tight, doubled again once neither was seen.
    """

    def __init__(self, maximum: int, *, service_goal_s: float) -> None:
        self.maximum = self.ceiling = maximum
        self.size = 1
        self.is_memory_tight = False
        self._service_goal_s = service_goal_s
        self._recent_s: deque[float] = deque(maxlen=_N_RECENT)

    def served(self, service_s: float) -> None:
        """Learn how long a request took from its start."""
        self._recent_s.append(service_s)

    def adapt(self, n_pending: int) -> int:
        """The size of the next batch, given how many are waiting."""
        if self.is_memory_tight or self._is_slow:
            self.ceiling = max(1, self.ceiling // 2)
            self._recent_s.clear()  # the smaller size is judged by what comes after it
        elif self._recent_s:
            self.ceiling = min(self.maximum, self.ceiling * 2)
        self.size = min(self.ceiling, max(1, n_pending))
        return self.size

    @property
    def _is_slow(self) -> bool:
        return bool(self._recent_s) and stats.median(self._recent_s) > self._service_goal_s
