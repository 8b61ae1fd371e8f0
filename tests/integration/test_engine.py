"""A backend that holds a model, without an engine: who may use it when, and what is reported."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotune.backends.protocol import EngineError
from autotune.domain.errors import UserError
from autotune.domain.run import Reason, Run
from autotune.integration import engine
from autotune.integration.configs import BackendConfig, GenerationConfig
from autotune.integration.engine import ModelBackend
from autotune.serving.endings import RequestError
from autotune.serving.loaded_model import LoadFailedError
from tests.factories import make_run
from tests.integration.fake_model import FakeModel

PATH = Path("/models/tiny.gguf")


class FakeWorkplace:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.environ: dict[str, str] = {}
        self.telemetry = SimpleNamespace(
            failed=lambda ticket, reason, message: self.told.append(("failed", ticket, reason)),
            generated=lambda ticket, generation, run: self.told.append(("generated", ticket)),
            unloaded=lambda ticket, run: self.told.append(("unloaded", ticket)),
        )
        self.refuses = False

    def subject(self, path: Path) -> Any:
        return SimpleNamespace(model_path=Path(path), case=lambda *_: None)

    def predict(self, case: Any) -> None:
        return None

    def record_load(self, subject: Any, run: Run, prediction: Any) -> str:
        if self.refuses:
            raise RuntimeError("can't start new thread")
        self.told.append(("loaded", run.reason))
        return f"load {len(self.told)}"


@pytest.fixture
def workplace() -> FakeWorkplace:
    return FakeWorkplace()


@pytest.fixture
def backend(workplace: FakeWorkplace, models: list[FakeModel]) -> ModelBackend:
    """A backend that has loaded a model."""
    config = BackendConfig(name="fake", custom_args={"max_tokens": 7, "temperature": 0.0})
    backend = ModelBackend(config, workplace=workplace)  # type: ignore[arg-type]
    assert backend.load_model(PATH).success
    return backend


def start(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Work in a thread; the list gets what it returned or raised."""
    done: list[Any] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:
            done.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, done


def test_custom_args_are_the_defaults_of_a_generation(
    backend: ModelBackend, models: list[FakeModel]
) -> None:
    """Unless the application has a configuration of its own."""
    backend.generate_text("?")
    backend.generate_text("?", GenerationConfig(max_tokens=9))
    ours, theirs = models[0].requests
    assert (ours.max_tokens, ours.temperature) == (7, 0.0)
    assert (theirs.max_tokens, theirs.temperature) == (9, 0.7)


def test_another_load_lets_the_first_go(backend: ModelBackend, models: list[FakeModel]) -> None:
    """Its process ends before the next begins; what it holds is described."""
    assert backend.describe() is not None
    assert backend.load_model(str(PATH)).success
    assert [model.is_closed for model in models] == [True, False]
    with backend:
        assert (backend.model_path, backend.is_loaded) == (str(PATH), True)
    assert (backend.model_path, backend.is_loaded, backend.run) == (None, False, None)
    assert (backend.describe(), backend.memory_mb) == (None, 0)


def test_a_load_that_fails_is_a_result_and_a_row(
    backend: ModelBackend, workplace: FakeWorkplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its reason."""
    failed = make_run(reason=Reason.OOM, message="out of memory")

    def fail(*_: Any, **__: Any) -> None:
        raise LoadFailedError(failed)

    monkeypatch.setattr(engine, "LoadedModel", SimpleNamespace(load=fail))
    result = backend.load_model(PATH)
    assert (result.success, result.error_message) == (False, "out of memory")
    assert workplace.told[-1] == ("loaded", Reason.OOM)
    assert not backend.is_loaded


def test_a_load_that_nobody_notes_leaves_no_process(
    backend: ModelBackend, workplace: FakeWorkplace, models: list[FakeModel]
) -> None:
    """Whatever is wrong with the telemetry, the engine is ended."""
    workplace.refuses = True
    with pytest.raises(RuntimeError, match="new thread"):
        backend.load_model(PATH)
    assert [model.is_closed for model in models] == [True, True]
    assert not backend.is_loaded


def test_what_is_generated_is_reported_before_the_end(
    backend: ModelBackend, workplace: FakeWorkplace, models: list[FakeModel]
) -> None:
    """An unload in the middle of an answer: the answer fails, the row has both."""
    models[0].go_on.clear()
    thread, done = start(lambda: backend.generate_text("?"))
    assert models[0].begun.wait(10)
    assert backend.unload_model()
    thread.join(10)

    (error,) = done
    assert isinstance(error, RequestError)
    assert error.reason is Reason.CANCELLED
    assert [what for what, *_ in workplace.told] == ["loaded", "generated", "unloaded"]
    assert not backend.unload_model()


def test_a_listener_may_unload_while_another_thread_does(
    backend: ModelBackend, models: list[FakeModel]
) -> None:
    """Neither waits for the other."""
    said: list[bool] = []

    def listen(_text: str) -> bool:
        assert models[0].closed.wait(10)
        said.append(backend.unload_model())
        return True

    models[0].go_on.clear()
    answering, _ = start(lambda: backend.generate_text("?", on_text=listen))
    assert models[0].begun.wait(10)
    loading, done = start(lambda: backend.load_model(PATH))
    answering.join(5)
    loading.join(5)

    assert said == [False]
    assert done[0].success
    assert backend.is_loaded
    assert [model.is_closed for model in models] == [True, False]


def test_a_death_is_reported_once_and_harms_no_later_model(
    backend: ModelBackend, workplace: FakeWorkplace, models: list[FakeModel]
) -> None:
    """Three threads wait for one answer: one sees the death, the others that nothing is loaded."""
    models[0].go_on.clear()
    models[0].death = EngineError(Reason.CRASH, "the engine died")
    threads, answers = zip(
        *(start(lambda: backend.generate_text("?")) for _ in range(3)), strict=True
    )
    assert models[0].begun.wait(10)
    models[0].go_on.set()
    for thread in threads:
        thread.join(10)

    errors = [error for (error,) in answers]
    assert sum(isinstance(error, EngineError) for error in errors) == 1
    assert sum(isinstance(error, UserError) for error in errors) == 2
    assert [what for what, *_ in workplace.told] == ["loaded", "failed", "unloaded"]
    assert backend.load_model(PATH).success
    assert backend.generate_text("?") == "yes"


def test_a_refusal_is_no_death(backend: ModelBackend, models: list[FakeModel]) -> None:
    """A prompt that does not fit: the model goes on."""
    models[0].refusal = EngineError(Reason.CONSTRAINT, "the prompt is longer than the context")
    with pytest.raises(EngineError, match="longer"):
        backend.generate_text("?")
    models[0].refusal = None
    assert backend.generate_text("?") == "yes"


def test_no_model_is_a_typed_error(backend: ModelBackend) -> None:
    """That says what to call."""
    backend.unload_model()
    with pytest.raises(UserError, match="call load_model first"):
        backend.generate_text("?")
