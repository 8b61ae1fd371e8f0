"""A queue before an engine whose every step a test decides."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autotune.serving.request_queue import RequestQueue
from tests.serving.fake_engine import FakeEngine


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
