"""A waiting request, and which of the waiting ones is served next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from autotune.domain.request import TextCompletion, TextRequest

_WORTH_CHARS = 32
"""A shorter common beginning is worth no change of order: some eight tokens to compute again."""


class RequestFuture(Future[TextCompletion]):
    """The answer to come. ``asyncio.wrap_future`` makes it awaitable."""

    is_unwanted = False
    """Whether the request is to end at its next piece of text."""

    def cancel(self) -> bool:
        """Take the request back; False where it is too late for that.

        One that is being served already ends at its next piece of text and fails with CANCELLED.
        """
        self.is_unwanted = True
        return super().cancel()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ticket:
    """A request in the queue. Instants are seconds of the queue's clock."""

    request: TextRequest
    priority: int
    number: int
    """Counts the requests in the order in which they came."""
    came_at: float
    deadline_at: float
    """When it fails unless it was started; infinite where it may wait."""
    on_text: Callable[[str], bool]
    future: RequestFuture

    @property
    def patience_s(self) -> float:
        """How long it may wait."""
        return self.deadline_at - self.came_at

    def pass_on(self, piece: str) -> bool:
        """Give a piece of the answer to whoever asked; False ends the answer."""
        return not self.future.is_unwanted and self.on_text(piece)


def rank(ticket: Ticket, *, aging_s: float) -> tuple[float, int]:
    """The order of service, the smallest first.

    A level of priority is worth ``aging_s`` seconds of waiting: an old request of low priority
    goes before a young one of high priority, so that none starves. All of them age alike, so
    their order never changes while they wait.
    """
    return ticket.came_at - ticket.priority * aging_s, ticket.number


def choose(batch: Sequence[Ticket], *, after: TextRequest | None) -> Ticket:
    """Which ticket of a batch, given in order of rank, is served after a request.

    Of those with the priority of the first: one with the same sampling settings, and among these
    the one whose prompt begins most like the last prompt. The engine's cache still holds that
    prompt, so only what differs has to be computed. The settings do not touch the cache; they
    tell one use of the model (its preamble, the length of its answers) from another.
    """
    if after is None:
        return batch[0]
    peers = [ticket for ticket in batch if ticket.priority == batch[0].priority]
    return max(peers, key=lambda ticket: _kinship(ticket.request, after))


def _kinship(request: TextRequest, other: TextRequest) -> tuple[bool, int]:
    n_chars = common_prefix(request.prompt, other.prompt)
    is_like = _settings(request) == _settings(other)
    return is_like, n_chars if n_chars >= _WORTH_CHARS else 0


def _settings(request: TextRequest) -> tuple[Any, ...]:
    """What tells uses of a model apart; each request may have a seed and a length of its own."""
    return (
        *(request.temperature, request.top_k, request.top_p, request.min_p),
        *(request.repeat_penalty, request.chat),
    )


def common_prefix(one: str, other: str) -> int:
    """Length of the common beginning of two texts, in characters."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # halving compares slices, which is far faster than character by character
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
