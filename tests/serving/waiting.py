"""How tests ask a queue and wait for what it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from autotune.domain.request import TextRequest
from autotune.serving.request_queue import RequestQueue
from autotune.serving.ticket import RequestFuture
from tests.serving.fake_engine import PATIENCE_S


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
