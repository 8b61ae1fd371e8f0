"""The life of a queue: slots, stopping, starting again, many threads, absurd arguments."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from typing import Any

import pytest

from autotune.domain.errors import UserError
from autotune.domain.request import TextCompletion, TextRequest
from autotune.domain.run import Reason
from autotune.serving.request_queue import RequestQueue
from autotune.serving.ticket import RequestFuture
from tests.serving.fake_engine import PATIENCE_S, FakeEngine, make_completion
from tests.serving.waiting import await_true, error_of, submit, text_of, threads_of


def test_several_slots_serve_as_many_at_once() -> None:
    """Each slot has its thread; no more than that many run."""
    engine = FakeEngine(is_held=True)
    with RequestQueue(engine.serve, n_slots=3, max_wait_s=0) as queue:
        futures = [submit(queue, f"{n}") for n in range(9)]
        engine.await_started(3)
        assert queue.stats().total.running == 3
        engine.release_all()
        assert [text_of(future) for future in futures] == [str(n) for n in range(9)]

    assert engine.most_at_once == 3


def test_where_memory_is_tight_fewer_run_at_once() -> None:
    """Three slots and a maximum of two: one request at a time, once the first has told."""
    engine = FakeEngine()
    with RequestQueue(
        engine.serve, n_slots=3, max_batch_size=2, max_wait_s=0, is_memory_tight=lambda: True
    ) as queue:
        text_of(submit(queue, "the first tells"))
        for _ in range(3):
            text_of(submit(queue, "alone"))
        engine.most_at_once = 0
        wait([submit(queue, f"{n}") for n in range(20)], PATIENCE_S)

    assert engine.most_at_once == 1


def test_a_system_that_does_not_tell_its_memory_is_served_all_the_same() -> None:
    """An error of the question is none of the request."""

    def ask() -> bool:
        raise OSError("no such file")

    with RequestQueue(FakeEngine().serve, is_memory_tight=ask) as queue:
        assert text_of(submit(queue, "hello")) == "HELLO"


def test_stopping_fails_who_waits_and_ends_who_runs(
    queue: RequestQueue, engine: FakeEngine
) -> None:
    """At once; afterwards nobody is served, and no thread is left."""
    running, waiting = submit(queue, "running"), submit(queue, "waiting")
    engine.await_started(1)

    queue.stop()

    assert error_of(running).reason is error_of(waiting).reason is Reason.CANCELLED
    assert engine.prompts == ["running"]
    assert threads_of("autotune-queue") == []
    with pytest.raises(UserError, match=r"the request queue is stopped: call start\(\) first"):
        submit(queue, "too late")


def test_stopping_may_serve_who_waits_first(queue: RequestQueue, engine: FakeEngine) -> None:
    """Drained: nothing is lost; but only as long as one is willing to wait."""
    futures = [submit(queue, f"{n}") for n in range(5)]
    threading.Timer(0.02, engine.release_all).start()
    queue.stop(drain=True)
    assert [text_of(future) for future in futures] == [str(n) for n in range(5)]

    queue.attach(FakeEngine(is_held=True).serve)
    queue.start()
    stuck = submit(queue, "stuck")
    queue.stop(drain=True, timeout_s=0.02)
    assert error_of(stuck).reason is Reason.CANCELLED


def test_a_queue_without_engine_has_nothing_to_drain() -> None:
    """Nobody would ever come, so nobody is waited for."""
    queue = RequestQueue()
    queue.start()
    future = submit(queue, "hello")

    queue.stop(drain=True)

    assert error_of(future).reason is Reason.CANCELLED


def test_a_request_cannot_wait_for_itself(queue: RequestQueue, engine: FakeEngine) -> None:
    """Draining from inside a request would never end; stopping from there does."""
    said: list[str] = []

    def stop(_piece: str) -> bool:
        try:
            queue.stop(drain=True)
        except UserError as error:
            said.append(str(error))
        queue.stop()
        return True

    future = submit(queue, "hello", on_text=stop)

    assert error_of(future).reason is Reason.CANCELLED
    assert said == ["a request cannot drain its own queue: call stop(drain=False)"]


def test_starting_and_stopping_again_is_harmless(engine: FakeEngine) -> None:
    """Twice is once, a stopped queue starts anew, and without requests there are no threads."""
    engine.release_all()
    queue = RequestQueue(engine.serve, n_slots=2, name="again")
    queue.stop()
    for _ in range(3):
        queue.start()
        queue.start()
        assert threads_of("again") == []
        assert text_of(submit(queue, "hello")) == "HELLO"
        assert threads_of("again") == ["again-deadlines", "again-slot-0", "again-slot-1"]
        queue.stop()
        queue.stop()
        assert threads_of("again") == []
    assert queue.stats().total.completed == 3


def test_leaving_by_an_exception_drops_what_waits(engine: FakeEngine) -> None:
    """Ctrl-C in a with block does not serve the whole queue first."""
    futures: list[RequestFuture] = []

    def work() -> None:
        with RequestQueue(engine.serve) as queue:
            futures.extend([submit(queue, "one"), submit(queue, "two")])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()

    assert {error_of(future).reason for future in futures} == {Reason.CANCELLED}


def test_leaving_in_peace_serves_what_waits() -> None:
    """The block ends when all have their answers."""
    with RequestQueue(FakeEngine().serve) as queue:
        futures = [submit(queue, f"{n}") for n in range(5)]

    assert all(future.done() and not future.exception() for future in futures)


def test_an_engine_that_hangs_does_not_hold_up_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its thread is left to it, a daemon; a new start serves with new threads."""
    monkeypatch.setattr("autotune.serving.request_queue._GRACE_S", 0.05)
    may_end, hanging = threading.Event(), threading.Event()

    def hang(request: TextRequest, _on_text: Callable[[str], bool]) -> TextCompletion:
        if request.prompt == "hang":
            hanging.set()
            assert may_end.wait(PATIENCE_S)
        return make_completion(request.prompt)

    queue = RequestQueue(hang)
    queue.start()
    hung = submit(queue, "hang")
    assert hanging.wait(PATIENCE_S)
    queue.stop()
    queue.start()

    assert text_of(submit(queue, "hello")) == "hello"
    may_end.set()
    assert text_of(hung) == "hang"
    queue.stop()


def test_an_idle_queue_uses_no_processor_time(queue: RequestQueue) -> None:
    """It waits to be told, for requests as for deadlines."""
    submit(queue, "held", timeout_s=PATIENCE_S)
    time.sleep(0.05)
    counter = _Wakeups(queue)

    time.sleep(0.3)

    assert counter.n == 0


class _Wakeups:
    """Counts how often the queue's threads look at the clock."""

    def __init__(self, queue: RequestQueue) -> None:
        self.n = 0
        clock = queue._clock

        def count() -> float:
            self.n += 1
            return clock()

        queue._clock = count


def test_answers_can_be_awaited() -> None:
    """From asyncio, many at once; a task that is cancelled ends its request."""
    engine = FakeEngine()

    async def ask(queue: RequestQueue) -> list[str]:
        futures = [asyncio.wrap_future(submit(queue, f"{n}")) for n in range(5)]
        return [answer.text for answer in await asyncio.gather(*futures)]

    async def give_up(queue: RequestQueue) -> None:
        engine.hold()
        awaited = asyncio.wrap_future(submit(queue, "endless"))
        await asyncio.to_thread(engine.await_started, 6)
        awaited.cancel()

    with RequestQueue(engine.serve) as queue:
        assert asyncio.run(ask(queue)) == [str(n) for n in range(5)]
        asyncio.run(give_up(queue))
        await_true(lambda: queue.stats().total.cancelled == 1)


def test_statistics_are_told_by_priority(queue: RequestQueue, engine: FakeEngine) -> None:
    """Counts of everything, times of what was served."""
    assert queue.stats().total.waiting is None
    submit(queue, "running", priority=1)
    engine.await_started(1)
    futures = [submit(queue, f"{n}", priority=n) for n in (0, 1, 1)]

    stats = queue.stats()
    assert (stats.total.pending, stats.total.running, stats.n_slots) == (3, 1, 1)
    assert stats.by_priority[1].pending == 2
    assert stats.by_priority[0].running == 0

    time.sleep(0.03)
    engine.release_all()
    wait(futures, PATIENCE_S)
    stats = queue.stats()
    assert list(stats.by_priority) == [1, 0]
    assert (stats.total.completed, stats.by_priority[1].completed) == (4, 3)
    waiting, service = stats.total.waiting, stats.total.service
    assert waiting is not None
    assert service is not None
    assert 0.02 < waiting.median_s <= waiting.p95_s < PATIENCE_S
    assert 0 < service.median_s <= service.p95_s < PATIENCE_S


def test_many_threads_may_submit_and_nothing_is_lost() -> None:
    """Eight threads, three slots, cancellations and deadlines in between: all are accounted for."""
    engine = FakeEngine()
    futures: list[RequestFuture] = []
    lock = threading.Lock()

    def ask(queue: RequestQueue, thread: int) -> None:
        for n in range(50):
            timeout_s = 1e-4 if n % 10 == 3 else None
            future = submit(queue, f"{thread} {n}", priority=n % 3, timeout_s=timeout_s)
            if n % 10 == 7:
                future.cancel()
            with lock:
                futures.append(future)

    with RequestQueue(engine.serve, n_slots=3) as queue:
        threads = [threading.Thread(target=ask, args=(queue, n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    total = queue.stats().total
    assert all(future.done() for future in futures)
    assert total.completed + total.failed + total.cancelled == len(futures) == 400
    assert total.completed >= 8 * 40
    assert len(set(engine.prompts)) == len(engine.prompts)
    assert total.pending == total.running == 0


def test_a_full_queue_says_so(engine: FakeEngine) -> None:
    """Memory is bounded: whoever submits faster than is served is told."""
    with RequestQueue(max_pending=2) as queue:
        submit(queue, "one")
        submit(queue, "two")
        with pytest.raises(UserError, match="2 requests wait already: wait for some of them"):
            submit(queue, "three")
        queue.stop()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_batch_size": 0}, "max_batch_size=0 is not valid: give a whole number, 1 to 1024"),
        ({"max_batch_size": True}, "max_batch_size=True is not valid"),
        ({"max_wait_s": float("nan")}, "max_wait_s=nan is not valid: give a number, 0 to 60"),
        ({"max_wait_s": "soon"}, "max_wait_s='soon' is not valid"),
        ({"aging_s": 0}, "aging_s=0 is not valid"),
        ({"max_pending": 0}, "max_pending=0 is not valid"),
    ],
)
def test_absurd_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    """In one line that says what is accepted."""
    with pytest.raises(UserError, match=message):
        RequestQueue(**options)


def test_absurd_requests_are_refused(queue: RequestQueue) -> None:
    """Before they are in the queue."""
    for options in ({"priority": 1001}, {"priority": 0.5}, {"timeout_s": -1}, {"timeout_s": "1"}):
        with pytest.raises(UserError, match="is not valid: give a"):
            submit(queue, "hello", **options)
    with pytest.raises(UserError, match="n_slots=0 is not valid"):
        queue.attach(FakeEngine().serve, n_slots=0)
    assert queue.stats().total.pending == 0
