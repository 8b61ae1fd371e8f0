"""The manager on a real model: what it says is what the rows say."""

from __future__ import annotations

import asyncio
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from autotune.domain.run import Purpose
from autotune.domain.stored import RunState
from autotune.domain.units import MIB
from autotune.integration.benchmark import PROMPTS
from autotune.integration.configs import BackendConfig
from autotune.integration.engine import ModelBackend
from autotune.integration.manager import PerformanceIntegratedBackendManager
from tests.integration.detectors import LIBRARY, SERVER
from tests.integration.managers import (
    FACT,
    LONG,
    Make,
    flush,
    latest,
    load,
    session,
    store_of,
)


def test_a_load_is_a_row_and_the_result_says_the_same(
    make_manager: Make, smollm2_path: Path
) -> None:
    """Load time, memory, purpose; a change of the backend is counted; afterwards it is complete."""
    manager = make_manager()
    workplace = manager.performance_optimizer.workplace
    manager.current_backend = ModelBackend(BackendConfig(name=SERVER), workplace=workplace)
    result = load(manager, smollm2_path)
    stored, _ = latest(manager)

    assert (stored.purpose, stored.state, stored.backend) == (
        Purpose.USER,
        RunState.RUNNING,
        LIBRARY,
    )
    assert result.load_time == pytest.approx((stored.load_s or 0) * 1e3)
    assert result.memory_usage == round((stored.peak_rss_bytes or 0) / MIB) > 90
    assert (result.backend_used, result.hardware_used, result.tried) == (LIBRARY, "cpu", {})
    assert result.reasoning
    assert session(manager)["models_loaded"] == session(manager)["backend_switches"] == 1
    followed = manager.get_comprehensive_performance_stats()["key_performance_indicators"]
    assert (followed["followed_ratio"]["value"], followed["followed_ratio"]["n"]) == (1, 1)
    assert manager.unload_model()
    assert not manager.unload_model()
    assert latest(manager)[0].state is RunState.COMPLETE


def test_a_generation_is_a_row(manager: PerformanceIntegratedBackendManager) -> None:
    """Its tokens and its times are those of the session; pieces come as they are made."""
    before, known = session(manager), len(latest(manager)[1])
    heard: list[str] = []
    text = manager.generate_text_with_optimization(
        FACT, max_tokens=9, temperature=0, on_text=lambda piece: heard.append(piece) is None
    )
    after, generations = session(manager), latest(manager)[1]

    assert "Paris" in text
    assert "".join(heard) == text
    assert len(generations) == known + 1
    assert after["total_generations"] == before["total_generations"] + 1
    # The first token is part of the prompt's time.
    assert after["total_tokens"] - before["total_tokens"] == generations[-1].n_gen + 1 == 9


def test_the_queue_gives_the_same_answers_in_order(
    manager: PerformanceIntegratedBackendManager,
) -> None:
    """Directly, through the queue, and several at once."""
    prompts = [FACT, "Two plus two is", "The opposite of hot is"]
    options: dict[str, Any] = {"max_tokens": 6, "temperature": 0}
    direct = [manager.generate_text_with_optimization(prompt, **options) for prompt in prompts]
    known = manager.performance_optimizer.batch_processor.get_queue_stats()["completed"]
    queued = manager.generate_text_with_optimization(FACT, use_batch_processing=True, **options)
    several = asyncio.run(manager.generate_multiple_optimized(prompts, **options))

    assert queued == direct[0]
    assert several == direct
    assert len(set(several)) == 3
    stats = manager.performance_optimizer.batch_processor.get_queue_stats()
    assert stats["completed"] == known + 4


def test_the_benchmark_is_of_the_rows(manager: PerformanceIntegratedBackendManager) -> None:
    """One round: a warm-up and a generation of each prompt, and their medians."""
    known = len(latest(manager)[1])
    found = manager.run_comprehensive_benchmark(num_iterations=1)
    generations = latest(manager)[1][known:]

    assert len(generations) == 1 + len(PROMPTS)
    assert [prompt["overall_tokens_per_sec"] for prompt in found["prompts"]] == pytest.approx(
        [generation.decode_tps for generation in generations[1:]]
    )
    assert [prompt["first_token_latency"] for prompt in found["prompts"]] == pytest.approx(
        [generation.ttft_s for generation in generations[1:]]
    )
    # An answer of one token has no rate.
    rates = [generation.decode_tps for generation in generations[1:] if generation.decode_tps]
    average = found["average_metrics"]["overall_tokens_per_sec"]
    assert average == pytest.approx(statistics.median(rates))
    assert found["average_metrics"]["success_rate"] == 1
    assert json.dumps(found)


def test_the_report_is_whole(manager: PerformanceIntegratedBackendManager, tmp_path: Path) -> None:
    """It can be read back, says what the manager says, and nothing lies beside it."""
    folder = tmp_path / "reports"
    folder.mkdir()
    path = manager.export_performance_report(folder / "report.json")
    report = json.loads(path.read_text(encoding="utf-8"))
    stats = manager.get_comprehensive_performance_stats()

    assert list(folder.iterdir()) == [path]
    assert report["session_stats"] == stats["session_stats"]
    assert report["current_model"] == stats["current_model"]
    assert report["current_model"]["path"] == manager.current_model_path
    assert report["key_performance_indicators"]["load_s"]["n"] >= 1
    assert isinstance(report["optimization"]["actionable_recommendations"], list)


def test_no_prompt_and_no_answer_is_in_the_store(
    manager: PerformanceIntegratedBackendManager,
) -> None:
    """Nowhere in the bytes of its files; a word that is there is found."""
    text = manager.generate_text_with_optimization(
        "My password is xylophone-zebra. Repeat it:", max_tokens=12, temperature=0
    )
    assert flush(manager)
    file = Path(manager.performance_optimizer.performance_cache.cache_file)
    data = b"".join(part.read_bytes() for part in file.parent.glob(f"{file.name}*"))

    assert LIBRARY.encode() in data
    assert b"xylophone" not in data
    assert len(text.strip()) > 3
    assert text.strip().encode() not in data


def test_what_custom_args_say_is_used_unless_it_is_given(
    make_manager: Make, smollm2_path: Path
) -> None:
    """Also the length of an answer; a configuration that is not enabled is left out."""
    manager = make_manager()
    manager.configs[SERVER] = BackendConfig(name=SERVER, enabled=False)
    manager.configs[LIBRARY] = BackendConfig(
        name=LIBRARY, context_size=512, custom_args={"max_tokens": 3, "temperature": 0.0}
    )
    result = manager.load_model_optimized(smollm2_path)
    assert (result.success, result.backend_used) == (True, LIBRARY)
    manager.generate_text_with_optimization(LONG)
    assert session(manager)["total_tokens"] == 3
    manager.generate_text_with_optimization(LONG, max_tokens=5)
    assert session(manager)["total_tokens"] == 8
    config = store_of(manager).load_run(latest(manager)[0].run_id).trial.config
    assert config.n_ctx == 512


def test_a_restart_remembers(make_manager: Make, smollm2_path: Path) -> None:
    """What one manager saw of a configuration is what the next expects of it."""
    with make_manager() as first:
        load(first, smollm2_path)
        first.generate_text_with_optimization(LONG, max_tokens=40, temperature=0)
        first.generate_text_with_optimization(FACT, max_tokens=40, temperature=0)
        seen = session(first)["median_tokens_per_second"]
    optimizer = make_manager().performance_optimizer
    advice = optimizer.get_optimal_backend(smollm2_path, [LIBRARY], performance_target="speed")

    assert advice.recommendation.prediction.evidence.value in ("measured", "calibrated")
    expected = advice.expected_performance
    assert expected["estimated_tokens_per_second_low"] * 0.5 < seen
    assert seen < expected["estimated_tokens_per_second_high"] * 2
