"""What tests of the manager share: to make one, to load it, to read what it wrote."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from autotune.domain.run import Generation
from autotune.domain.stored import StoredRun
from autotune.integration.manager import PerformanceIntegratedBackendManager
from autotune.store.store import Store
from tests.integration.detectors import LIBRARY, make_detector

FACT = "The capital of France is"
LONG = "Count: one two three"
Make = Callable[..., PerformanceIntegratedBackendManager]


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def make(file: str | Path, **options: Any) -> PerformanceIntegratedBackendManager:
    return PerformanceIntegratedBackendManager(make_detector(), cache_file=file, **options)


def load(manager: PerformanceIntegratedBackendManager, path: Path) -> Any:
    """Load the model with the library, in a small context."""
    result = manager.load_model_optimized(path, performance_target="speed", force_backend=LIBRARY)
    assert result.success, result.error_message
    return result


def brief(manager: PerformanceIntegratedBackendManager, **options: Any) -> str:
    """A short answer, always the same."""
    chosen = {"max_tokens": 2, "temperature": 0, **options}
    return manager.generate_text_with_optimization(FACT, **chosen)


def note(begun: threading.Event) -> Callable[[str], bool]:
    """A listener that tells when the first text has come, and wants all."""

    def listen(text: str) -> bool:
        if text:
            begun.set()
        return True

    return listen


def store_of(manager: PerformanceIntegratedBackendManager) -> Store:
    return manager.performance_optimizer.performance_cache.store


def flush(manager: PerformanceIntegratedBackendManager) -> bool:
    return manager.performance_optimizer.workplace.telemetry.flush()


def latest(manager: PerformanceIntegratedBackendManager) -> tuple[StoredRun, list[Generation]]:
    """The newest row and its generations, when all is written."""
    assert flush(manager)
    stored = store_of(manager).list_runs()[0]
    run = store_of(manager).load_run(stored.run_id).run
    return stored, list(run.generations) if run else []


def session(manager: PerformanceIntegratedBackendManager) -> dict[str, Any]:
    stats: dict[str, Any] = manager.get_comprehensive_performance_stats()["session_stats"]
    return stats
