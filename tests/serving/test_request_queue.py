"""The queue over an engine whose every step a test decides."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from typing import Any

import pytest

from autotune.backends.protocol import EngineError
from autotune.domain.errors import UserError
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Reason
from autotune.serving.endings import RequestError
from autotune.serving.request_queue import RequestQueue
from autotune.serving.ticket import RequestFuture
from tests.serving.fake_engine import PATIENCE_S, FakeEngine, make_completion


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """An engine that holds its requests; whatever a test leaves behind may go at its end."""
    engine = FakeEngine(is_held=True)
    yield engine
    engine.release_all()


@pytest.fixture
def queue(engine: FakeEngine) -> Iterator[RequestQueue]:
    """A started queue before it, one request after another, that waits for no company."""
    queue = RequestQueue(engine.serve, max_wait_s=0)
    queue.start()
    yield queue
    queue.stop()


def submit(queue: RequestQueue, prompt: str, **options: Any) -> RequestFuture:
    """A request of which only the prompt matters."""
    return queue.submit(TextRequest(prompt=prompt), **options)


def text_of(future: RequestFuture) -> str:
    """The answer, waited for."""
    return future.result(PATIENCE_S).text


def error_of(future: RequestFuture) -> Any:
    """What a request failed with, waited for."""
    return future.exception(PATIENCE_S)


def threads_of(name: str) -> list[str]:
    """Names of the living threads of a queue."""
    return sorted(t.name for t in threading.enumerate() if t.name.startswith(name))


def await_true(condition: Callable[[], bool]) -> None:
    """Wait for something that other threads bring about."""
    end_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end_at, "it never came true"
        time.sleep(0.002)


def test_the_urgent_overtake_and_the_rest_keep_their_order(
    queue: RequestQueue, engine: FakeEngine
) -> None:
    """What runs is finished; then the highest priority, then who came first."""
    futures = [submit(queue, "first")]
    engine.await_started(1)
    futures += [submit(queue, f"plain {n}") for n in range(3)]
    futures.append(submit(queue, "urgent", priority=10))

    engine.release_all()

    assert [text_of(future) for future in futures] == [
        "FIRST", "PLAIN 0", "PLAIN 1", "PLAIN 2", "URGENT"
    ]  # fmt: skip
    assert engine.prompts == ["first", "urgent", "plain 0", "plain 1", "plain 2"]


def test_prompts_that_begin_alike_are_served_in_a_row(
    queue: RequestQueue, engine: FakeEngine
) -> None:
    """Two conversations that take turns in coming are not served in turns."""
    one, two = "A long preamble of the one conversation. ", "The other has quite another preamble. "
    futures = [submit(queue, "wait")]
    engine.await_started(1)
    futures += [submit(queue, preamble + str(n)) for n in range(3) for preamble in (one, two)]

    engine.release_all()
    wait(futures, PATIENCE_S)

    heads = [prompt[0] for prompt in engine.prompts[1:]]
    assert heads == ["A"] * 3 + ["T"] * 3


def test_a_request_whose_time_is_over_fails_and_is_never_started(
    queue: RequestQueue, engine: FakeEngine
) -> None:
    """It fails when its time is over, not when the engine has time for it."""
    running, late = submit(queue, "running"), submit(queue, "late", timeout_s=0.03)
    engine.await_started(1)
    patient = submit(queue, "patient", timeout_s=PATIENCE_S)

    error = error_of(late)
    assert not running.done()
    engine.release_all()

    assert error.reason is Reason.TIMEOUT
    assert "not started within 30 ms: give it a longer timeout" in str(error)
    assert text_of(patient) == "PATIENT"
    assert "late" not in engine.prompts
    assert queue.stats().total.timed_out == queue.stats().total.failed == 1


def test_a_cancelled_request_is_dropped(queue: RequestQueue, engine: FakeEngine) -> None:
    """It leaves the queue at once, and who waits for it is told."""
    submit(queue, "running")
    engine.await_started(1)
    unwanted, wanted = submit(queue, "unwanted"), submit(queue, "wanted")

    assert unwanted.cancel()
    assert queue.stats().total.pending == 1
    assert wait([unwanted], PATIENCE_S).done
    engine.release_all()

    assert text_of(wanted) == "WANTED"
    assert engine.prompts == ["running", "wanted"]
    assert queue.stats().total.cancelled == 1
    with pytest.raises(CancelledError):
        unwanted.result()


def test_cancelling_a_running_request_ends_it(queue: RequestQueue, engine: FakeEngine) -> None:
    """At its next piece of text; the next request goes on."""
    running, following = submit(queue, "running"), submit(queue, "following")
    engine.await_started(1)

    assert not running.cancel()

    assert error_of(running).reason is Reason.CANCELLED
    engine.release_all()
    assert text_of(following) == "FOLLOWING"
    assert queue.stats().total.cancelled == 1


def test_a_caller_may_read_along_and_end_the_answer(
    queue: RequestQueue, engine: FakeEngine
) -> None:
    """That is its own wish, so it gets what there is."""
    pieces: list[str] = []

    def read(piece: str) -> bool:
        pieces.append(piece)
        return len(pieces) < 3

    answer = submit(queue, "long", on_text=read).result(PATIENCE_S)

    assert (answer.finish, pieces) == (Finish.CANCELLED, ["."] * 3)


def test_a_failing_request_fails_alone(queue: RequestQueue, engine: FakeEngine) -> None:
    """Whatever it failed with: the engine's word, somebody's callback, or an exit."""
    refusal = EngineError(Reason.CONSTRAINT, "the prompt has 9000 tokens, the context 4096")
    engine.errors = {"too long": refusal, "quits": SystemExit(1)}
    engine.errors |= {"slow": EngineError(Reason.TIMEOUT, "no answer within 1 s")}
    engine.release_all()

    def break_down(_piece: str) -> bool:
        raise ZeroDivisionError("in a callback")

    too_long, quits = submit(queue, "too long"), submit(queue, "quits")
    breaks, slow = submit(queue, "breaks", on_text=break_down), submit(queue, "slow")

    assert error_of(too_long) is refusal
    assert "SystemExit" in str(error_of(quits))
    assert isinstance(error_of(breaks), ZeroDivisionError)
    assert error_of(slow) is engine.errors["slow"]
    assert text_of(submit(queue, "next")) == "NEXT"
    assert queue.stats().total.failed == 4


def test_a_dead_engine_fails_all_who_wait_until_there_is_another(
    queue: RequestQueue, engine: FakeEngine
) -> None:
    """One clear line for each of them, and for whoever comes before a new engine does."""
    death = EngineError(Reason.CRASH, "the engine's process was killed by SIGSEGV")
    engine.errors = {"kills": death}
    killer = submit(queue, "kills")
    engine.await_started(1)
    waiting = [submit(queue, f"waits {n}") for n in range(3)]
    engine.release()

    assert error_of(killer) is death
    line = "the engine died (the engine's process was killed by SIGSEGV): load the model again"
    assert [str(error_of(future)) for future in waiting] == [line] * 3
    assert {error_of(future).reason for future in waiting} == {Reason.CRASH}
    with pytest.raises(RequestError, match="load the model again"):
        submit(queue, "too soon")
    assert engine.prompts == ["kills"]
    assert not queue.has_engine

    queue.attach(FakeEngine().serve)
    assert text_of(submit(queue, "again")) == "AGAIN"


def test_whoever_attaches_an_engine_says_what_kills_it(engine: FakeEngine) -> None:
    """An engine that survives a lack of memory is not given up for it."""
    engine.release_all()
    engine.errors = {"slow": EngineError(Reason.OOM, "no room for so long a prompt")}
    with RequestQueue(max_wait_s=0) as queue:
        queue.attach(engine.serve, is_fatal=lambda _error: False)
        assert isinstance(error_of(submit(queue, "slow")), EngineError)
        assert text_of(submit(queue, "quick")) == "QUICK"


def test_requests_wait_for_an_engine_and_survive_its_exchange(engine: FakeEngine) -> None:
    """What runs is finished on the old engine, what waits goes to the new one."""
    other = FakeEngine()
    with RequestQueue(max_wait_s=0) as queue:
        first = submit(queue, "first")
        queue.attach(engine.serve)
        engine.await_started(1)
        second = submit(queue, "second")
        threading.Timer(0.05, engine.release_all).start()

        queue.attach(other.serve)

        assert (text_of(first), text_of(second)) == ("FIRST", "SECOND")
        assert (engine.prompts, other.prompts) == (["first"], ["second"])
        queue.detach()
        assert not submit(queue, "third").done()
        queue.attach(other.serve)


def test_what_does_not_finish_is_ended_when_its_engine_is_taken_away(
    queue: RequestQueue, engine: FakeEngine
) -> None:
    """Detaching waits a while, not for ever."""
    running, waiting = submit(queue, "running"), submit(queue, "waiting")
    engine.await_started(1)

    queue.detach(timeout_s=0.02)

    assert error_of(running).reason is Reason.CANCELLED
    assert not waiting.done()


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
    """Twice is once, and a stopped queue starts anew."""
    engine.release_all()
    queue = RequestQueue(engine.serve, n_slots=2, name="again")
    queue.stop()
    for _ in range(3):
        queue.start()
        queue.start()
        assert threads_of("again") == ["again-deadlines", "again-slot-0", "again-slot-1"]
        assert text_of(submit(queue, "hello")) == "HELLO"
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
