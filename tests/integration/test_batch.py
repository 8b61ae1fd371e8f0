"""The guide's batch processor, over an engine whose every step a test decides."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from autotune.backends.protocol import EngineError
from autotune.domain.errors import AutotuneError, UserError
from autotune.domain.run import Reason
from autotune.integration import batch
from autotune.integration.batch import BatchProcessor
from autotune.integration.configs import GenerationConfig
from autotune.serving.endings import RequestError
from tests.serving.fake_engine import PATIENCE_S, FakeEngine

CONFIG = GenerationConfig(max_tokens=100, temperature=0.7)


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    """An engine that answers at once, unless a test holds it."""
    engine = FakeEngine()
    yield engine
    engine.release_all()


@pytest.fixture
def processor(engine: FakeEngine) -> Iterator[BatchProcessor]:
    """Started, with a model."""
    processor = BatchProcessor(max_wait_time=0.0)
    processor.attach(engine.serve)
    processor.start()
    yield processor
    processor.stop()


def test_the_guides_example_waits_for_a_model_and_then_answers(engine: FakeEngine) -> None:
    """Word for word; the model comes after the request."""
    batch_processor = BatchProcessor(max_batch_size=8, max_wait_time=0.1)
    batch_processor.start()

    config = GenerationConfig(max_tokens=100, temperature=0.7)
    request_id = batch_processor.submit_request(
        prompt="Your prompt here", generation_config=config, priority=1
    )
    assert batch_processor.get_queue_stats()["pending_requests"] == 1
    batch_processor.attach(engine.serve)

    result = batch_processor.get_result(request_id, timeout=30.0)
    assert result == "YOUR PROMPT HERE"
    batch_processor.stop()


def test_without_a_model_the_wait_ends_with_what_to_do(processor: BatchProcessor) -> None:
    """Waiting longer would be in vain; the request itself goes on waiting."""
    processor.detach()
    request_id = processor.submit_request("Hello", CONFIG)

    with pytest.raises(UserError, match=r"no model is loaded.*load_model_optimized"):
        processor.get_result(request_id, timeout=0.01)

    processor.attach(FakeEngine().serve)
    assert processor.get_result(request_id) == "HELLO"


def test_urgent_requests_go_first(processor: BatchProcessor, engine: FakeEngine) -> None:
    """The guide's second example: one urgent, three normal, submitted in the wrong order."""
    engine.hold()
    ids = [processor.submit_request("running", CONFIG)]
    engine.await_started(1)
    ids += [processor.submit_request(f"Request {n}", CONFIG, priority=1) for n in (1, 2, 3)]
    ids.append(processor.submit_request("Urgent request", CONFIG, priority=10))
    engine.release_all()

    results = [processor.get_result(request_id, timeout=30.0) for request_id in ids]

    assert results == ["RUNNING", "REQUEST 1", "REQUEST 2", "REQUEST 3", "URGENT REQUEST"]
    assert engine.prompts[1:] == ["Urgent request", "Request 1", "Request 2", "Request 3"]


def test_an_answer_that_takes_longer_is_none_for_now(
    processor: BatchProcessor, engine: FakeEngine
) -> None:
    """As applications of the original expect; whoever asks again gets it, as often as wanted."""
    engine.hold()
    request_id = processor.submit_request("slow", CONFIG)

    assert processor.get_result(request_id, timeout=0.01) is None
    engine.release_all()

    assert processor.get_result(request_id, timeout=None) == "SLOW"
    assert processor.get_result(request_id, timeout=0) == "SLOW"


def test_what_became_of_requests_is_counted(processor: BatchProcessor, engine: FakeEngine) -> None:
    """The guide's keys and ours; a result counts as completed until it is fetched."""
    engine.hold()
    ids = [processor.submit_request(f"{n}", CONFIG, priority=n) for n in range(2)]
    engine.await_started(1)
    stats = processor.get_queue_stats()
    assert stats["is_running"]
    assert stats["is_model_loaded"]
    assert (stats["max_batch_size"], stats["max_wait_time"]) == (8, 0.0)
    assert (stats["pending_requests"], stats["running"], stats["completed_results"]) == (1, 1, 0)
    assert stats["waiting_median_s"] is None

    engine.release_all()
    for request_id in ids:
        processor.get_result(request_id)
    unfetched = processor.submit_request("later", CONFIG)
    while not processor.get_queue_stats()["completed_results"]:
        time.sleep(0.002)

    stats = processor.get_queue_stats()
    assert (stats["completed"], stats["failed"], stats["completed_results"]) == (3, 0, 1)
    assert stats["service_p95_s"] > 0
    assert list(stats["by_priority"]) == [1, 0]
    assert stats["by_priority"][0]["completed"] == 2
    processor.get_result(unfetched)
    assert processor.get_queue_stats()["completed_results"] == 0


def test_a_failure_is_raised_where_the_result_is_asked_for(
    processor: BatchProcessor, engine: FakeEngine
) -> None:
    """And the next request is served."""
    refusal = EngineError(Reason.CONSTRAINT, "the prompt does not fit the context")
    engine.errors = {"too long": refusal}
    failing = processor.submit_request("too long", CONFIG)
    following = processor.submit_request("next", CONFIG)

    with pytest.raises(EngineError, match="does not fit"):
        processor.get_result(failing)
    assert processor.get_result(following) == "NEXT"


def test_a_request_may_be_taken_back(processor: BatchProcessor, engine: FakeEngine) -> None:
    """Waiting or running: asking for its result says so."""
    engine.hold()
    running = processor.submit_request("running", CONFIG)
    engine.await_started(1)
    waiting = processor.submit_request("waiting", CONFIG)

    assert processor.cancel_request(waiting)
    assert not processor.cancel_request(running)

    for request_id in (waiting, running):
        with pytest.raises(RequestError, match="was cancelled") as caught:
            processor.get_result(request_id)
        assert caught.value.reason is Reason.CANCELLED


def test_a_late_request_says_that_it_was_late(
    processor: BatchProcessor, engine: FakeEngine
) -> None:
    """Its own time is another thing than that of whoever waits for the result."""
    engine.hold()
    processor.submit_request("running", CONFIG)
    engine.await_started(1)
    late = processor.submit_request("late", CONFIG, timeout_s=0.02)

    with pytest.raises(RequestError, match="not started within 20 ms"):
        processor.get_result(late)


def test_a_listener_cannot_wait_for_its_own_queue(processor: BatchProcessor) -> None:
    """It may submit, and look; who serves what it submits is the thread that it holds up."""
    ids: list[str] = []

    def listen(_piece: str) -> bool:
        ids.append(processor.submit_request("next", CONFIG))
        assert processor.get_result(ids[0], timeout=0) is None
        with pytest.raises(UserError, match="has not ended: ask for another one after that"):
            processor.get_result(ids[0], timeout=0.5)
        return True

    assert processor.get_result(processor.submit_request("first", CONFIG, on_text=listen))
    assert processor.get_result(ids[0]) == "NEXT"


def test_after_stop_it_says_how_to_go_on(processor: BatchProcessor, engine: FakeEngine) -> None:
    """Results are still there; a new request needs a start; what waited has failed."""
    done = processor.submit_request("done", CONFIG)
    assert processor.get_result(done) == "DONE"
    engine.hold()
    waiting = processor.submit_request("waiting", CONFIG)

    for _ in range(3):
        processor.stop()

    assert processor.get_result(done) == "DONE"
    assert not processor.get_queue_stats()["is_running"]
    with pytest.raises(RequestError, match="submit it again"):
        processor.get_result(waiting)
    with pytest.raises(UserError, match=r"stopped: call start\(\) first"):
        processor.submit_request("too late", CONFIG)

    for _ in range(3):
        processor.start()
    engine.release_all()
    assert processor.get_result(processor.submit_request("again", CONFIG)) == "AGAIN"


def test_leaving_its_block_serves_what_waits(engine: FakeEngine) -> None:
    """And by an error drops it."""
    with BatchProcessor() as processor:
        processor.attach(engine.serve)
        ids = [processor.submit_request(f"{n}", CONFIG) for n in range(5)]

    assert [processor.get_result(request_id) for request_id in ids] == list("01234")


def test_results_are_kept_for_a_while_and_not_too_many(engine: FakeEngine) -> None:
    """Bounded by number and by age; what is gone is said to be gone."""
    now = [0.0]
    with BatchProcessor(max_results=2, keep_s=60, clock=lambda: now[0]) as processor:
        processor.attach(engine.serve)
        ids = []
        for n in range(3):
            now[0] += 1
            ids.append(processor.submit_request(f"{n}", CONFIG))
            now[0] += 1
            processor.queue.stop(drain=True)
            processor.start()

        with pytest.raises(UserError, match="nothing is known of the request 'request-1'"):
            processor.get_result(ids[0])
        assert processor.get_result(ids[1]) == "1"
        now[0] += 61
        with pytest.raises(UserError, match="results are kept for 1 minutes"):
            processor.get_result(ids[2])
        assert processor._entries == {}


def test_many_threads_may_ask_at_once(processor: BatchProcessor) -> None:
    """Everyone gets the answer to its own question."""
    wrong: list[Any] = []

    def ask(thread: int) -> None:
        for n in range(25):
            request_id = processor.submit_request(f"q {thread} {n}", CONFIG, priority=n % 3)
            if processor.get_result(request_id, timeout=PATIENCE_S) != f"Q {thread} {n}":
                wrong.append((thread, n))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []
    assert processor.get_queue_stats()["completed"] == 200


def test_absurd_arguments_are_typed_errors(processor: BatchProcessor) -> None:
    """In one line that says what is accepted."""
    with pytest.raises(UserError, match="max_batch_size=0 is not valid"):
        BatchProcessor(max_batch_size=0)
    with pytest.raises(UserError, match="max_wait_time='x' is not valid"):
        BatchProcessor(max_wait_time="x")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="give a GenerationConfig"):
        processor.submit_request("Hello", {"max_tokens": 5})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="prompt='' is not valid"):
        processor.submit_request("", CONFIG)
    with pytest.raises(UserError, match=r"timeout=-1 is not valid: give a number, 0 or more"):
        processor.get_result("request-1", timeout=-1)
    with pytest.raises(AutotuneError, match="nothing is known of the request 'mine'"):
        processor.cancel_request("mine")


def test_memory_is_read_from_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 512 MiB it is tight; this machine's own answer is one of the two."""
    assert batch.is_memory_tight() in (True, False)
    state = batch.read_state()
    for available, is_tight in ((100 * 2**20, True), (2**30, False)):
        known = type(state)(ram_available_bytes=available)
        monkeypatch.setattr(batch, "read_state", lambda known=known: known)
        assert batch.is_memory_tight() is is_tight
