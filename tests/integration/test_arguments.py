"""Absurd questions to the optimizer are typed errors that say what would be valid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotune.domain.errors import GGUFError, UserError
from autotune.integration.optimizer import PerformanceOptimizer
from tests.integration.detectors import LIBRARY

ABSURD: list[tuple[Callable[[PerformanceOptimizer, Path], Any], str]] = [
    (lambda o, m: o.get_optimal_backend(m, hardware_preference="tpu"), "one of auto, gpu, cpu"),
    (lambda o, m: o.get_optimal_backend(m, performance_target="fast"), "one of speed, balanced"),
    (lambda o, m: o.get_optimal_backend(m, ["ollama"]), "unknown backend 'ollama'"),
    (lambda o, m: o.get_optimal_backend(m, LIBRARY), "give a list"),
    (lambda o, m: o.get_optimal_backend(m, []), "pip install llama-cpp-python"),
    (lambda o, m: o.optimize_gpu_layers(m, LIBRARY, -1), "0 or more"),
    (lambda o, m: o.optimize_gpu_layers(m, "ollama", 1), "unknown backend"),
    (lambda o, m: o.get_dynamic_batch_size(m, LIBRARY, -1), "0 or more"),
    (lambda o, m: o.get_dynamic_batch_size(m, LIBRARY, 4096, 0), "a whole number from 1"),
    (lambda o, m: o.get_adaptive_context_size(m, LIBRARY, 4096, "best"), "one of speed"),
    (lambda o, m: o.predict_performance(m, LIBRARY, {"cores": 2}), "give gpu_count, total_vram"),
    (lambda o, m: o.predict_performance(m, LIBRARY, {"cpu_cores": 0}), "a whole number from 1"),
    (lambda o, m: o.predict_performance(m, LIBRARY, {"gpu_count": 1}), "give total_vram in MB"),
    (lambda o, m: o.record_performance("ollama", m), "unknown backend"),
    (lambda o, m: o.record_performance(LIBRARY, m, -5.0), "load_time_ms=-5.0 is not valid"),
    (lambda o, m: o.record_performance(LIBRARY, m, reason="bad"), "one of timeout, oom"),
    (lambda o, m: o.get_performance_stats(m, "ollama"), "unknown backend"),
]  # fmt: skip


@pytest.mark.parametrize(("ask", "said"), ABSURD)
def test_absurd_arguments_are_typed_errors_with_the_cure(
    optimizer: PerformanceOptimizer,
    smollm2_path: Path,
    ask: Callable[[PerformanceOptimizer, Path], Any],
    said: str,
) -> None:
    """One line each, and nothing is kept."""
    with pytest.raises(UserError, match=said) as raised:
        ask(optimizer, smollm2_path)
    assert "\n" not in str(raised.value)
    assert optimizer.performance_cache.store.count_runs() == 0


def test_a_missing_model_is_a_typed_error(optimizer: PerformanceOptimizer, tmp_path: Path) -> None:
    """Whatever is asked of it."""
    path = str(tmp_path / "missing.gguf")
    for ask in (
        lambda: optimizer.get_optimal_backend(path),
        lambda: optimizer.optimize_gpu_layers(path, LIBRARY, 1),
        lambda: optimizer.predict_performance(path, LIBRARY),
        lambda: optimizer.record_performance(LIBRARY, path),
        lambda: optimizer.get_performance_stats(path),
        lambda: optimizer.get_optimization_insights(path),
        lambda: optimizer.clear_performance_cache(path),
    ):
        with pytest.raises(GGUFError, match=r"missing\.gguf"):
            ask()
