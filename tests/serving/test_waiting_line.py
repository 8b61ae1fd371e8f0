"""Who is served next: priorities, age, what the engine's cache can reuse, batches, deadlines."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.domain.request import TextRequest
from autotune.serving.batch_size import BatchSize
from autotune.serving.ticket import RequestFuture, Ticket, common_prefix
from autotune.serving.waiting_line import WaitingLine

PREAMBLE = "You are a careful assistant who answers in one sentence. "
AGING_S = 30.0


def make_line(*, maximum: int = 8, size: int | None = None, max_wait_s: float = 0.1) -> WaitingLine:
    """An empty line whose next batch has room for ``size`` tickets."""
    batch_size = BatchSize(maximum, service_goal_s=30)
    batch_size.size = maximum if size is None else size
    return WaitingLine(batch_size, max_wait_s=max_wait_s, aging_s=AGING_S)


def make_ticket(number: int, prompt: str = "?", **changes: Any) -> Ticket:
    """Came at its number × 1 ms; sampling settings are given as those of the request."""
    own = {name: changes.pop(name) for name in ("priority", "came_at", "deadline_at")
           if name in changes}  # fmt: skip
    values: dict[str, Any] = {
        "priority": 0, "number": number, "came_at": number / 1000, "deadline_at": math.inf,
        "on_text": lambda _piece: True, "future": RequestFuture(),
    }  # fmt: skip
    return Ticket(request=TextRequest(prompt=prompt, **changes), **{**values, **own})


def order(line: WaitingLine, *, now: float = 1000.0) -> list[int]:
    """The numbers of the tickets in the order of service."""
    numbers, last = [], None
    while ticket := line.take_next(now, after=last):
        numbers.append(ticket.number)
        last = ticket.request
    return numbers


def served(*tickets: Ticket, maximum: int = 8) -> list[int]:
    """The order of service of tickets that all wait."""
    line = make_line(maximum=maximum)
    for ticket in tickets:
        line.add(ticket)
    return order(line)


def test_higher_priorities_go_first_and_within_one_who_came_first() -> None:
    """The queue is no stack, and no lottery."""
    tickets = [make_ticket(n, priority=p) for n, p in enumerate((0, 5, 0, 10, 5))]

    assert served(*tickets) == [3, 1, 4, 0, 2]


def test_an_old_request_of_low_priority_does_not_starve() -> None:
    """Under an endless stream of urgent requests, a plain one waits 10 levels × 30 s, no longer."""
    line = make_line(maximum=1)
    line.add(make_ticket(0, came_at=0.0))

    for second in range(1000):
        line.add(make_ticket(second + 1, priority=10, came_at=float(second)))
        ticket = line.take_next(float(second), after=None)
        assert ticket is not None
        if ticket.number == 0:
            break

    assert second == 300


def test_the_like_are_served_next_to_each_other() -> None:
    """Same settings, and within them the longest common beginning: the cache still holds it."""
    sky, sea = PREAMBLE + "Why is the sky blue?", PREAMBLE + "Why is the sea blue?"
    other = "Translate into French, without any comment of your own: good morning"
    tickets = [
        make_ticket(0, sky), make_ticket(1, other), make_ticket(2, other, temperature=0.0),
        make_ticket(3, PREAMBLE + "Who are you?"), make_ticket(4, sea),
    ]  # fmt: skip

    # 4 begins most like 0; 2 has other settings, though the very prompt of 1
    assert served(*tickets) == [0, 4, 3, 1, 2]


def test_what_is_hardly_alike_keeps_its_turn() -> None:
    """A few common letters save nothing, so who came first goes first."""
    assert served(make_ticket(0, "What is a cat?"), make_ticket(1, "Why?"),
                  make_ticket(2, "What is a cap?")) == [0, 1, 2]  # fmt: skip


def test_a_chat_is_no_kin_of_a_plain_prompt() -> None:
    """The chat template stands before the prompt, so the cache would not match."""
    prompt = PREAMBLE + "Hello"

    assert served(make_ticket(0, prompt), make_ticket(1, prompt, chat=True),
                  make_ticket(2, prompt, seed=7, max_tokens=9)) == [0, 2, 1]  # fmt: skip


def test_likeness_does_not_go_before_priority() -> None:
    """Only among equals is the order changed."""
    tickets = [
        make_ticket(0, PREAMBLE + "1", priority=1),
        make_ticket(1, PREAMBLE + "2"),
        make_ticket(2, "urgent", priority=1),
    ]

    assert served(*tickets) == [0, 2, 1]


def test_likeness_reaches_no_further_than_a_batch() -> None:
    """A batch of two is taken from the line before who came later is looked at."""
    tickets = [
        make_ticket(0, PREAMBLE + "1"), make_ticket(1, "else"), make_ticket(2, PREAMBLE + "2")
    ]  # fmt: skip

    assert served(*tickets, maximum=8) == [0, 2, 1]
    assert served(*tickets, maximum=2) == [0, 1, 2]


def test_an_urgent_request_does_not_wait_for_the_batch() -> None:
    """The rest of the batch goes back into the line."""
    line = make_line()
    for number in range(4):
        line.add(make_ticket(number))
    assert line.take_next(100.0, after=None) is not None

    line.add(make_ticket(4, priority=1))

    assert order(line) == [4, 1, 2, 3]


def test_a_batch_is_collected_for_a_while_and_no_longer() -> None:
    """Company is waited for from the first one's coming on, and not once the batch is full."""
    line = make_line(size=3, max_wait_s=0.1)
    line.add(make_ticket(0, came_at=10.0))
    line.add(make_ticket(1, came_at=10.05))

    assert line.take_next(10.06, after=None) is None
    assert line.patience_s(10.06) == pytest.approx(0.04)
    line.add(make_ticket(2, came_at=10.07))
    assert line.patience_s(10.07) == 0
    assert line.take_next(10.07, after=None) is not None

    alone = make_line(size=3, max_wait_s=0.1)
    alone.add(make_ticket(0, came_at=10.0))
    assert alone.take_next(10.05, after=None, is_hurried=True) is not None
    alone.add(make_ticket(1, came_at=10.0))
    assert alone.take_next(10.11, after=None) is not None


def test_late_ones_are_taken_out_wherever_they_wait() -> None:
    """From the batch as from the line; the others stay, and the next deadline is known."""
    line = make_line(maximum=2)
    for number, deadline_at in enumerate((50.0, 50.0, 70.0, 50.0)):
        line.add(make_ticket(number, deadline_at=deadline_at))
    assert line.take_next(10.0, after=None) is not None

    assert line.take_late(49.9) == []
    assert [ticket.number for ticket in line.take_late(50.0)] == [1, 3]
    assert line.next_deadline_at == 70.0
    assert [ticket.number for ticket in line] == [2]


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 200), st.integers(0, 2)), max_size=40))
def test_nobody_is_lost_or_served_twice_and_no_batch_is_too_large(
    arrivals: list[tuple[int, int, int]],
) -> None:
    """Whatever comes whenever, everyone is served once."""
    line, numbers, last = make_line(maximum=4), [], None
    for number, (priority, came_at, n_taken) in enumerate(arrivals):
        line.add(make_ticket(number, "p" * number + "?", priority=priority, came_at=came_at))
        for _ in range(n_taken):
            if ticket := line.take_next(1000.0, after=last):
                numbers.append(ticket.number)
                last = ticket.request

    assert sorted(numbers + order(line)) == list(range(len(arrivals)))
    assert len(line) == 0


@given(st.text(alphabet="ab", max_size=50), st.text(alphabet="ab", max_size=50))
def test_the_common_beginning_is_exact(one: str, other: str) -> None:
    """The halving finds what counting letter by letter finds."""
    pairs = zip(one, other, strict=False)
    alike = list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    assert common_prefix(one, other) == len(alike)


def test_the_batch_grows_with_the_line_up_to_the_maximum() -> None:
    """A lone request waits for nobody; a long line makes full batches."""
    size = BatchSize(8, service_goal_s=30)

    assert size.size == 1
    assert [size.adapt(n) for n in (1, 3, 20, 2)] == [1, 3, 8, 2]


def test_the_batch_shrinks_while_requests_are_slow_and_recovers() -> None:
    """Halved for each batch that was too slow, doubled for each that was not."""
    size = BatchSize(8, service_goal_s=1.0)

    for expected in (4, 2, 1, 1):
        size.served(2.0)
        assert size.adapt(20) == expected
    assert size.adapt(20) == 1  # nothing has been served since
    size.served(0.5)
    assert [size.adapt(20) for _ in range(4)] == [2, 4, 8, 8]


def test_the_batch_shrinks_while_memory_is_tight() -> None:
    """And with it the number of requests at once."""
    size = BatchSize(8, service_goal_s=1.0)
    size.is_memory_tight = True

    assert [size.adapt(20) for _ in range(4)] == [4, 2, 1, 1]
    assert size.ceiling == 1
