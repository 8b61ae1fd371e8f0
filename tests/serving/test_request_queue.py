"""The queue over an engine whose every step a test decides: order, deadlines, failures."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, wait

import pytest

from autotune.backends.protocol import EngineError
from autotune.domain.request import Finish
from autotune.domain.run import Reason
from autotune.serving.endings import RequestError
from autotune.serving.request_queue import RequestQueue
from tests.serving.fake_engine import PATIENCE_S, FakeEngine
from tests.serving.waiting import error_of, submit, text_of


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
