"""The worker's command ``generate``: text before the answer, and a stop that is heard meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.backends.protocol import EngineError
from autotune.domain.config import Config
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Reason
from autotune.measure.messages import pack, unpack_completion, unpack_request
from autotune.measure.process import WorkerProcess

CONFIG = Config(n_ctx=512, n_batch=128, n_ubatch=128)
LONG = TextRequest(prompt="Count: one two three", max_tokens=400, temperature=0.0)
SHORT = dataclasses.replace(LONG, max_tokens=4, stop=("never",))


@pytest.fixture(scope="module")
def worker(smollm2_path: Path) -> Iterator[WorkerProcess]:
    """A worker with SmolLM2."""
    with WorkerProcess("llama-cpp-python", deadline_s=120) as worker:
        worker.ask("load", path=str(smollm2_path), config=CONFIG.as_dict())
        yield worker


def ask(worker: WorkerProcess, request: TextRequest, **more: Any) -> TextCompletion:
    """The completion of a request."""
    return unpack_completion(worker.ask("generate", request=pack(request), **more)["completion"])


def test_requests_travel_whole() -> None:
    """There and back."""
    assert unpack_request(pack(SHORT)) == SHORT


def test_a_stop_is_heard_at_once_and_only_once(worker: WorkerProcess) -> None:
    """Sent by refusing nothing before the first token came; the next request is not touched."""
    stopped = ask(worker, LONG, on_text=lambda _text: False)
    whole = ask(worker, SHORT)

    assert stopped.finish is Finish.CANCELLED
    assert stopped.n_tokens < 100
    assert (whole.finish, whole.n_tokens) == (Finish.LENGTH, 4)


def test_a_stop_that_comes_too_late_is_for_nobody(worker: WorkerProcess) -> None:
    """Neither for the request that is over nor for the next."""
    worker._send({"do": "stop"})

    assert ask(worker, SHORT).finish is Finish.LENGTH


def test_what_nobody_waits_for_is_read_away(worker: WorkerProcess) -> None:
    """A request that was left in the middle gives no answer to the one after it."""

    def leave(text: str) -> bool:
        if text:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        ask(worker, LONG, on_text=leave)
    worker.settle(60)

    assert worker.lives
    assert ask(worker, SHORT).n_tokens == 4


def test_without_a_model_nothing_is_generated() -> None:
    """An answer, not the end of the worker."""
    with WorkerProcess("llama-cpp-python", deadline_s=60) as worker:
        with pytest.raises(EngineError, match="no model is loaded") as caught:
            ask(worker, SHORT)
        assert worker.ask("build")["ok"]

    assert caught.value.reason is Reason.LOAD_ERROR
