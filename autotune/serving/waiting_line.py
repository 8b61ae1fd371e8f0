"""Those who wait: who is next, who has waited too long. No threads, and no clock of its own."""

from __future__ import annotations

import itertools
import math
from bisect import insort
from collections.abc import Iterator
from functools import partial

from autotune.domain.request import TextRequest
from autotune.serving.batch_size import BatchSize
from autotune.serving.ticket import Ticket, choose, rank


class WaitingLine:
    """Tickets in order of rank, and in front of them the batch that is being served.

    Not locked: its owner is. ``now`` is always an instant of the clock that the tickets bear.
    """

    def __init__(self, size: BatchSize, *, max_wait_s: float, aging_s: float) -> None:
        self._size, self._max_wait_s = size, max_wait_s
        self._rank = partial(rank, aging_s=aging_s)
        self._pending: list[Ticket] = []
        self._batch: list[Ticket] = []
        self.next_deadline_at = math.inf
        """Not later than the earliest deadline of those who wait."""

    def __len__(self) -> int:
        return len(self._pending) + len(self._batch)

    def __iter__(self) -> Iterator[Ticket]:
        return itertools.chain(self._batch, self._pending)

    def add(self, ticket: Ticket) -> None:
        """Let a ticket wait. One that goes before some of the batch dissolves it."""
        if self._batch and self._rank(ticket) < self._rank(self._batch[-1]):
            self.dissolve_batch()
        insort(self._pending, ticket, key=self._rank)
        self.next_deadline_at = min(self.next_deadline_at, ticket.deadline_at)

    def dissolve_batch(self) -> None:
        """Let those of the batch wait with the others again."""
        self._pending = sorted(self, key=self._rank)
        self._batch = []

    def remove(self, ticket: Ticket) -> bool:
        """Let a ticket go; False where it does not wait."""
        for waiting in (self._pending, self._batch):
            if ticket in waiting:
                waiting.remove(ticket)
                return True
        return False

    def take_all(self) -> list[Ticket]:
        """Let all go."""
        left = list(self)
        self._pending, self._batch = [], []
        return left

    def take_late(self, now: float) -> list[Ticket]:
        """Let those go whose deadline has come."""
        if now < self.next_deadline_at:
            return []
        late = [ticket for ticket in self if ticket.deadline_at <= now]
        self._pending = [ticket for ticket in self._pending if ticket.deadline_at > now]
        self._batch = [ticket for ticket in self._batch if ticket.deadline_at > now]
        self.next_deadline_at = min((ticket.deadline_at for ticket in self), default=math.inf)
        return late

    def take_next(
        self, now: float, *, after: TextRequest | None, is_hurried: bool = False
    ) -> Ticket | None:
        """The ticket to serve after a request; None where nobody waits, or for company."""
        if not self._batch and not self._collect(now, is_hurried=is_hurried):
            return None
        ticket = choose(self._batch, after=after)
        self._batch.remove(ticket)
        return ticket

    def patience_s(self, now: float) -> float:
        """How long to wait for company yet; 0 where a batch can be made, or nobody waits."""
        if not self._pending or self._batch or len(self._pending) >= self._size.size:
            return 0.0
        first_at = min(ticket.came_at for ticket in self._pending)
        return max(0.0, first_at + self._max_wait_s - now)

    def _collect(self, now: float, *, is_hurried: bool) -> bool:
        """Make a batch of those who wait."""
        if not self._pending or (self.patience_s(now) > 0 and not is_hurried):
            return False
        size = self._size.adapt(len(self._pending))
        self._batch, self._pending = self._pending[:size], self._pending[size:]
        return True
