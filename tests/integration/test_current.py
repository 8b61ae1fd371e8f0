"""The model that an application means without naming one, on the real library."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotune import integration
from autotune.domain.errors import UserError
from autotune.domain.request import TextRequest
from autotune.integration import current, engine
from autotune.integration.batch import BatchProcessor
from autotune.integration.configs import BackendConfig, GenerationConfig
from autotune.integration.workplace import Workplace
from autotune.serving import request_queue
from autotune.serving.request_queue import RequestQueue
from tests.integration.detectors import LIBRARY
from tests.integration.fake_model import FakeModel
from tests.integration.managers import FACT, children
from tests.serving.waiting import await_true

CONFIG = BackendConfig(name=LIBRARY, context_size=256, batch_size=64, gpu_enabled=False, threads=1)
SHORT = TextRequest(prompt=FACT, max_tokens=2, temperature=0.0)


@pytest.fixture
def workplace(
    probed_db: Path, cache_file: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workplace]:
    """The one that the process speaks of; nothing was loaded or recommended in it."""
    cache_file.write_bytes(probed_db.read_bytes())
    before = children()
    workplace = Workplace.open(cache_file)
    monkeypatch.setattr(current, "_current", current._Current())
    current._current.workplace = workplace
    yield workplace
    for backend in (current.latest_backend(), current._current.served):
        if backend is not None:
            backend.unload_model()
    workplace.close()
    assert children() <= before


def take(_text: str) -> bool:
    return True


def test_without_a_model_there_is_nothing_to_tell(workplace: Workplace) -> None:
    """Zeros, and one line that says what to do."""
    assert integration.get_memory_usage() == 0
    assert integration.measure_inference_speed() == 0.0
    assert current.find_serve(RequestQueue()) is None
    with pytest.raises(UserError, match="call get_optimal_backend first"):
        current.serve(SHORT, take)


def test_the_model_loaded_last_is_meant(workplace: Workplace, smollm2_path: Path) -> None:
    """Until it is unloaded; its speed is a row like any other."""
    backend = integration.create_backend(LIBRARY, CONFIG)
    assert backend.load_model(str(smollm2_path)).success

    assert current.latest_backend() is backend
    assert integration.get_memory_usage() == backend.memory_mb > 90
    speed = integration.measure_inference_speed()
    assert workplace.telemetry.flush()
    (observation,) = workplace.cache.store.observations()
    assert speed == pytest.approx(observation.decode_tps)
    assert backend.unload_model()
    assert current.latest_backend() is None
    assert integration.get_memory_usage() == 0


def test_what_was_recommended_last_is_loaded_when_it_is_needed(
    workplace: Workplace, smollm2_path: Path
) -> None:
    """The first that can be; and it makes room for what the application loads itself."""
    missing = BackendConfig(name="llamafile", custom_args={"n_ctx": 256})
    current.note_advice(workplace, str(smollm2_path), (missing, CONFIG))
    serve = current.find_serve(RequestQueue())
    assert serve is not None

    first = serve(SHORT, take)
    served = current.latest_backend()
    own = integration.create_backend(LIBRARY, CONFIG)
    assert own.load_model(str(smollm2_path)).success
    second = serve(SHORT, take)

    assert served is not None
    assert not served.is_loaded
    assert current.latest_backend() is own
    assert first.text == second.text != ""


def ask(processor: BatchProcessor) -> str | None:
    """A short answer by way of a queue, started if need be."""
    processor.start()
    return processor.get_result(processor.submit_request(FACT, GenerationConfig(max_tokens=2)))


def test_what_was_loaded_for_queues_goes_with_the_last_of_them(
    workplace: Workplace, smollm2_path: Path, models: list[FakeModel]
) -> None:
    """Stopped or dropped; who starts again gets it again."""
    current.note_advice(workplace, str(smollm2_path), (CONFIG,))
    one, other = BatchProcessor(max_wait_time=0), BatchProcessor(max_wait_time=0)
    assert ask(one) == ask(other) == "yes"
    one.stop()
    with pytest.raises(UserError, match="stopped"):
        one.submit_request(FACT, GenerationConfig())
    assert [model.is_closed for model in models] == [False]
    other.stop()
    assert [model.is_closed for model in models] == [True]

    assert ask(other) == "yes"
    assert [model.is_closed for model in models] == [True, False]
    del other
    gc.collect()
    await_true(lambda: models[1].is_closed)


def test_what_is_loaded_for_a_queue_that_stops_meanwhile_is_not_kept(
    workplace: Workplace, smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process ends when it is there."""
    begun, go_on, made = threading.Event(), threading.Event(), FakeModel()

    def slow(*_: Any, **__: Any) -> FakeModel:
        begun.set()
        assert go_on.wait(10)
        return made

    monkeypatch.setattr(engine, "LoadedModel", SimpleNamespace(load=slow))
    monkeypatch.setattr(request_queue, "_GRACE_S", 0.05)
    current.note_advice(workplace, str(smollm2_path), (CONFIG,))
    processor = BatchProcessor(max_wait_time=0)
    processor.start()
    processor.submit_request(FACT, GenerationConfig())
    assert begun.wait(10)
    processor.stop()
    go_on.set()

    assert made.closed.wait(10)


def test_nothing_that_was_recommended_can_be_loaded(workplace: Workplace, tmp_path: Path) -> None:
    """The reason is passed on."""
    current.note_advice(workplace, str(tmp_path / "gone.gguf"), (CONFIG,))

    with pytest.raises(UserError, match=r"gone\.gguf.*load another model"):
        current.serve(SHORT, take)


def test_a_configuration_belongs_to_its_backend(workplace: Workplace) -> None:
    """As does a name to a backend that there is."""
    with pytest.raises(UserError, match="the configuration is llama-cpp-python's, not llamafile's"):
        integration.create_backend("llamafile", CONFIG)
    with pytest.raises(UserError, match="unknown backend"):
        integration.create_backend("ollama")
