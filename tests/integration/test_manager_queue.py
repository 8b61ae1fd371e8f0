"""A manager and its queue, without an engine: who serves it, and what is given back."""

from __future__ import annotations

import gc
import threading
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from autotune.domain.errors import WorkFailedError
from autotune.domain.machine import MachineState
from autotune.domain.units import GIB, MIB
from autotune.integration import current, engine
from autotune.integration.configs import GenerationConfig
from autotune.integration.manager import PerformanceIntegratedBackendManager
from tests.factories import make_run
from tests.integration.fake_model import FakeModel
from tests.integration.managers import Make, brief, load, make
from tests.serving.waiting import await_true

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


def test_a_manager_that_is_dropped_leaves_nothing(
    probed_db: Path, cache_file: Path, smollm2_path: Path, models: list[FakeModel]
) -> None:
    """No thread, no connection, no model; and before its first request it has no thread."""
    cache_file.write_bytes(probed_db.read_bytes())
    threads = set(threading.enumerate())
    manager = make(cache_file)
    assert manager.get_comprehensive_performance_stats()["batch_statistics"]["is_running"]
    assert set(threading.enumerate()) == threads
    load(manager, smollm2_path)
    assert brief(manager, use_batch_processing=True, on_text=partial(_is_heard, manager)) == "yes"
    processor, listen = manager.performance_optimizer.batch_processor, partial(_is_heard, manager)
    late = processor.submit_request("?", CONFIG, timeout_s=0, on_text=listen)
    with pytest.raises(WorkFailedError, match="not started within"):
        processor.get_result(late)

    found = weakref.ref(manager)
    del manager, processor, listen
    gc.collect()

    assert found() is None
    assert models[0].is_closed
    await_true(lambda: set(threading.enumerate()) <= threads)
    assert not [file for file in psutil.Process().open_files() if str(cache_file) in file.path]


def test_what_the_model_before_gives_back_is_free_for_the_next(
    make_manager: Make, smollm2_path: Path, models: list[FakeModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds what the next one needs; where even that is too little, it stays."""
    manager = make_manager()
    load(manager, smollm2_path)
    little = MachineState(ram_available_bytes=16 * MIB)
    monkeypatch.setattr(manager.hardware_detector, "_read_state", lambda: little)
    assert not manager.load_model_optimized(smollm2_path).success
    assert [model.is_closed for model in models] == [False]

    monkeypatch.setattr(FakeModel, "run", make_run(peak_anon_bytes=GIB))
    assert load(manager, smollm2_path).success
    assert [model.is_closed for model in models] == [True, False]
    manager.unload_model()
    assert "needs" in (manager.load_model_optimized(smollm2_path).error_message or "")


def _is_heard(manager: PerformanceIntegratedBackendManager, _text: str) -> bool:
    return manager.current_backend is not None
