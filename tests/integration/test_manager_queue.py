"""A manager and its queue, without an engine: who serves it, and what is left of them."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotune.integration import current, engine
from autotune.integration.configs import GenerationConfig
from tests.integration.fake_model import FakeModel
from tests.integration.managers import Make, load

CONFIG = GenerationConfig(max_tokens=2)


@pytest.fixture(autouse=True)
def _nothing_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model was loaded or recommended in this process."""
    monkeypatch.setattr(current, "_current", current._Current())


def test_what_is_asked_while_a_model_is_loaded_waits_for_that(
    make_manager: Make, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second copy is loaded for the queue."""
    manager, made = make_manager(), list[FakeModel]()
    begun, go_on = threading.Event(), threading.Event()

    def slow(*_: Any, **__: Any) -> FakeModel:
        made.append(FakeModel())
        begun.set()
        assert go_on.wait(10)
        return made[-1]

    monkeypatch.setattr(engine, "LoadedModel", SimpleNamespace(load=slow))
    loading = threading.Thread(target=load, args=(manager, smollm2_path))
    loading.start()
    assert begun.wait(30)
    processor = manager.performance_optimizer.batch_processor
    request_id = processor.submit_request("?", CONFIG)
    assert processor.get_queue_stats()["pending_requests"] == 1
    go_on.set()
    loading.join(10)

    assert processor.get_result(request_id) == "yes"
    assert len(made) == 1
