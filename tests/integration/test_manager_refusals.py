"""What cannot be: a manager says so in one line, and loses nothing."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotune.domain.errors import AutotuneError, UserError, WorkFailedError
from autotune.domain.stored import RunState
from autotune.integration.advice import OptimizationRecommendation
from autotune.integration.configs import BackendConfig
from autotune.integration.manager import PerformanceIntegratedBackendManager
from tests.integration.detectors import LIBRARY, SERVER
from tests.integration.managers import (
    FACT,
    Make,
    brief,
    flush,
    load,
    session,
    store_of,
)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_tokens": 0}, "max_tokens=0 is not valid: give a whole number, 1 to"),
        ({"max_tokens": 1e9}, "max_tokens"),
        ({"temperature": float("nan")}, "temperature=nan is not valid"),
        ({"temperature": "hot"}, "temperature='hot' is not valid"),
        ({"topp": 0.5}, "did you mean top_p"),
        ({"prompt": 5}, "prompt=5 is not valid: give text"),
        ({"use_batch_processing": True, "timeout": -1}, "timeout"),
    ],
)
def test_absurd_generations_are_refused(
    manager: PerformanceIntegratedBackendManager, options: dict[str, Any], said: str
) -> None:
    """One line with the cure; the model goes on and nothing is counted."""
    before = session(manager)
    with pytest.raises(UserError, match=said) as raised:
        manager.generate_text_with_optimization(**{"prompt": FACT, **options})
    assert "\n" not in str(raised.value)
    assert session(manager) == before
    assert brief(manager)


@pytest.mark.parametrize("iterations", [0, -1, 2.5, "5", True])
def test_absurd_benchmarks_are_refused(
    manager: PerformanceIntegratedBackendManager, iterations: Any
) -> None:
    """Before anything is generated."""
    with pytest.raises(UserError, match="num_iterations"):
        manager.run_comprehensive_benchmark(num_iterations=iterations)


def test_one_text_is_no_list_of_prompts(manager: PerformanceIntegratedBackendManager) -> None:
    """Its letters are not prompts; and of several, one that cannot be stops all of them."""
    known = manager.performance_optimizer.batch_processor.get_queue_stats()["completed"]
    with pytest.raises(UserError, match="give a list of texts"):
        asyncio.run(manager.generate_multiple_optimized(FACT))
    with pytest.raises(UserError, match="give text"):
        asyncio.run(manager.generate_multiple_optimized([FACT, None]))  # type: ignore[list-item]
    stats = manager.performance_optimizer.batch_processor.get_queue_stats()
    assert (stats["completed"], stats["pending_requests"]) == (known, 0)


def test_a_prompt_that_does_not_fit_harms_no_other(
    manager: PerformanceIntegratedBackendManager,
) -> None:
    """Of several, the first that fails fails all; the next request is answered."""
    with pytest.raises(WorkFailedError, match="shorten it"):
        asyncio.run(manager.generate_multiple_optimized(["word " * 9000, FACT], max_tokens=2))
    assert brief(manager, use_batch_processing=True)


def test_a_queue_that_takes_too_long_is_a_typed_error(
    manager: PerformanceIntegratedBackendManager,
) -> None:
    """The request is taken back, so that the next one does not wait for it."""
    with pytest.raises(WorkFailedError, match="give it more time"):
        brief(
            manager,
            max_tokens=1500,
            use_batch_processing=True,
            timeout=1.0,
            on_text=lambda _piece: time.sleep(0.5) is None,
        )
    assert brief(manager, use_batch_processing=True, timeout=20)


@pytest.mark.parametrize("queued", [False, True])
def test_a_listener_cannot_ask_again(
    manager: PerformanceIntegratedBackendManager, queued: bool
) -> None:
    """Neither waits for the other; its answer goes on."""
    said: list[str] = []

    def listen(_text: str) -> bool:
        try:
            brief(manager, use_batch_processing=True, timeout=1.0)
        except AutotuneError as error:
            said.append(f"{type(error).__name__}: {error}")
        return True

    assert brief(manager, use_batch_processing=queued, on_text=listen)
    assert set(said) == {
        "UserError: this listener's own answer has not ended: ask for another one after that"
    }


def telemetry_threads() -> int:
    return sum(thread.name == "autotune-telemetry" for thread in threading.enumerate())


def test_without_a_model_it_says_what_to_do(idle: PerformanceIntegratedBackendManager) -> None:
    """Before a load and after the end, which may come twice; nothing starts again by asking."""
    asks: list[Callable[[], Any]] = [
        lambda: idle.generate_text_with_optimization(FACT),
        lambda: idle.generate_text_with_optimization(FACT, use_batch_processing=True),
        lambda: asyncio.run(idle.generate_multiple_optimized([FACT])),
        idle.run_comprehensive_benchmark,
    ]
    threads = telemetry_threads()
    for _ in range(2):
        for ask in asks:
            with pytest.raises(UserError, match="call load_model_optimized first"):
                ask()
        assert idle.current_model_path is None
        assert idle.get_comprehensive_performance_stats()["current_model"] is None
        idle.close()
        idle.cleanup()
    idle.get_performance_insights()
    assert telemetry_threads() == threads


def test_a_closed_manager_loads_again(make_manager: Make, smollm2_path: Path) -> None:
    """With its queue."""
    manager = make_manager()
    manager.close()
    load(manager, smollm2_path)
    assert brief(manager, use_batch_processing=True)


@pytest.mark.parametrize(
    ("path", "said"),
    [("gone.gguf", "gone.gguf"), ("none.gguf", "none.gguf"), ("", ""), ("a\0b", "path of a GGUF")],
)
def test_what_is_no_model_is_a_result(
    idle: PerformanceIntegratedBackendManager, tmp_path: Path, path: str, said: str
) -> None:
    """Not an exception: one line, and nothing was loaded."""
    (tmp_path / "none.gguf").write_bytes(b"GGUF is not what this is" * 9)
    result = idle.load_model_optimized(str(tmp_path / path))
    assert not result.success
    assert said in (result.error_message or "")
    assert "\n" not in (result.error_message or "\n")
    assert (result.backend_used, result.load_time, result.memory_usage) == ("none", 0, 0)
    assert session(idle)["loads_failed"] == 1


def test_absurd_wishes_for_a_load(
    idle: PerformanceIntegratedBackendManager, smollm2_path: Path
) -> None:
    """Words of no meaning raise; a backend that is not there is a result."""
    with pytest.raises(UserError, match="one of auto, gpu, cpu"):
        idle.load_model_optimized(smollm2_path, "tpu")
    with pytest.raises(UserError, match="one of speed, balanced"):
        idle.load_model_optimized(smollm2_path, performance_target="fast")
    for backend, said in (("ollama", "unknown backend"), ("", "unknown backend")):
        result = idle.load_model_optimized(smollm2_path, force_backend=backend)
        assert not result.success
        assert said in (result.error_message or "")
    missing = idle.load_model_optimized(smollm2_path, force_backend="transformers")
    assert "gguf-autotune[transformers]" in (missing.error_message or "")


def broken_config(**changes: Any) -> BackendConfig:
    """A configuration that an application has spoilt after it was checked."""
    config = BackendConfig(name=LIBRARY)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (broken_config(custom_args={"n_batch": -5}), "n_batch"),
        (broken_config(custom_args={"speed": "max"}), "speed"),
        (broken_config(threads=0), "threads=0"),
        (broken_config(context_size="big"), "context_size"),
        (broken_config(name=SERVER), f"name='{LIBRARY}'"),
        ({"threads": 2}, "give a BackendConfig"),
    ],
)
def test_a_configuration_that_cannot_be_is_a_result(
    idle: PerformanceIntegratedBackendManager, smollm2_path: Path, config: Any, said: str
) -> None:
    """And, corrected, it loads: here without, for the time that takes."""
    idle.configs[LIBRARY] = config
    result = idle.load_model_optimized(smollm2_path, force_backend=LIBRARY)
    assert (result.success, result.backend_used) == (False, LIBRARY)
    assert said in result.tried[LIBRARY]
    assert idle.current_backend is None


def test_when_all_backends_are_disabled_it_says_so(
    idle: PerformanceIntegratedBackendManager, smollm2_path: Path
) -> None:
    """Rather than to install another."""
    for name in (LIBRARY, SERVER):
        idle.configs[name] = BackendConfig(name=name, enabled=False)
    result = idle.load_model_optimized(smollm2_path)
    assert "enable one of them" in (result.error_message or "")


def advise(
    manager: PerformanceIntegratedBackendManager,
    monkeypatch: pytest.MonkeyPatch,
    then: Callable[[OptimizationRecommendation], OptimizationRecommendation],
) -> None:
    """Have something happen between the recommendation and the load."""
    real = manager.performance_optimizer.get_optimal_backend
    monkeypatch.setattr(
        manager.performance_optimizer,
        "get_optimal_backend",
        lambda *args, **options: then(real(*args, **options)),
    )


def test_a_model_that_vanishes_after_the_recommendation(
    idle: PerformanceIntegratedBackendManager,
    smollm2_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No backend can: all are tried, and the file is named."""
    path = tmp_path / "vanishing.gguf"
    path.symlink_to(smollm2_path)

    def vanish(advice: OptimizationRecommendation) -> OptimizationRecommendation:
        path.unlink()
        return advice

    advise(idle, monkeypatch, vanish)
    result = idle.load_model_optimized(path)
    assert not result.success
    assert "vanishing.gguf" in (result.error_message or "")
    assert len(result.tried) == len(idle.get_available_backends())


def test_a_priority_decides_which_backend_is_tried_first(
    make_manager: Make, smollm2_path: Path, tmp_path: Path
) -> None:
    """A program that is not there: it is asked before the library all the same."""
    manager = make_manager(environ={**os.environ, "PATH": str(tmp_path)})
    manager.configs[SERVER] = BackendConfig(SERVER, priority=-1)

    result = manager.load_model_optimized(smollm2_path)

    assert (list(result.tried), result.backend_used) == ([SERVER], LIBRARY)


def test_where_the_best_backend_fails_the_next_one_is_used(
    make_manager: Make, smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is there no more: its failure is a row, too, and told."""
    manager = make_manager(environ={**os.environ, "PATH": str(tmp_path)})

    def server_first(advice: OptimizationRecommendation) -> OptimizationRecommendation:
        configs = {advice.recommended_backend: advice.recommended_config}
        configs |= {other.name: other.config for other in advice.alternatives}
        assert set(configs) == {LIBRARY, SERVER}
        other = dataclasses.replace(advice.alternatives[0], config=configs[LIBRARY])
        return dataclasses.replace(
            advice, recommended_config=configs[SERVER], alternatives=(other,)
        )

    advise(manager, monkeypatch, server_first)
    result = manager.load_model_optimized(smollm2_path)

    assert (result.success, result.backend_used) == (True, LIBRARY)
    assert list(result.tried) == [SERVER]
    assert "llama-server" in result.tried[SERVER]
    assert flush(manager)
    runs = [(run.backend, run.state) for run in store_of(manager).list_runs()]
    assert runs == [(LIBRARY, RunState.RUNNING), (SERVER, RunState.FAILED)]
    assert session(manager)["loads_failed"] == session(manager)["models_loaded"] == 1
