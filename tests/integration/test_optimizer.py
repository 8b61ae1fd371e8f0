"""The guide's optimizer on a real model: before any run, after some, restarted and shared."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotune.domain.config import Config
from autotune.domain.errors import NothingFitsError, UserError
from autotune.domain.run import LoadTime, Purpose, Reason
from autotune.domain.workload import Workload
from autotune.facts.gguf import read_model
from autotune.integration.cache import utc_now
from autotune.integration.configs import BackendConfig
from autotune.integration.optimizer import PerformanceOptimizer
from autotune.store.telemetry import Telemetry
from tests.engine_isa import room_for_copies_mb
from tests.factories import make_generation, make_run, make_trial
from tests.integration.detectors import LIBRARY, SERVER, make_detector
from tests.store.test_engine import unprivileged

Make = Callable[[], PerformanceOptimizer]
REQUEST = Workload(n_prompt=512, n_gen=128)
SAW = {"load_time_ms": 2500.0, "memory_usage_mb": 6000, "tokens_per_second": 45.5}
MACHINE = {"gpu_count": 0, "total_vram": 0, "cpu_cores": 1, "total_ram": 16384}


def measure(
    optimizer: PerformanceOptimizer,
    model: Path,
    *,
    backend: str = LIBRARY,
    token_ns: int = 20_000_000,
    config: Config | None = None,
    reason: Reason | None = None,
) -> None:
    """Write down a run as a study would have: 512 tokens in a second, then 128."""
    store, cache = optimizer.performance_cache.store, optimizer.performance_cache
    trial = make_trial(
        model_path=model.absolute(), config=config or Config(n_ctx=4096, n_threads=1),
        workload=REQUEST, purpose=Purpose.BENCH,
    )  # fmt: skip
    generation = make_generation(
        workload=REQUEST, prefill_ns=10**9, ttft_ns=10**9 + token_ns, token_ns=(token_ns,) * 128
    )
    run = make_run(
        trial=trial, backend=backend, reason=reason,
        load=LoadTime(model_s=0.3, context_s=0.1, first_eval_s=0.1),
        peak_rss_bytes=300 * 1024**2,
        generations=() if reason else (generation,) * 1,
    )  # fmt: skip
    model_id = read_model(model).model_id
    run_id = store.begin_run(trial, machine_id=cache.machine_id, model_id=model_id, backend=backend)
    store.finish_run(run_id, run)


def test_before_any_run_physics_answers_and_says_so(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """Every attribute of the guide, with numbers in the reasons."""
    advice = optimizer.get_optimal_backend(str(smollm2_path), [LIBRARY, SERVER], "auto")

    assert advice.recommended_backend in (LIBRARY, SERVER)
    assert 0 <= advice.confidence_score <= 1
    assert "physics" in "\n".join(advice.reasoning)
    assert set(advice.alternative_backends) == {LIBRARY, SERVER} - {advice.recommended_backend}
    settings = advice.recommended_config
    assert isinstance(settings, BackendConfig)
    assert (settings.name, settings.gpu_enabled) == (advice.recommended_backend, False)
    assert settings.context_size == 4096
    expected = advice.expected_performance
    low, high = (expected[f"estimated_tokens_per_second_{end}"] for end in ("low", "high"))
    assert 1 < low < expected["estimated_tokens_per_second"] < high


def test_runs_change_the_choice(optimizer: PerformanceOptimizer, smollm2_path: Path) -> None:
    """The measured faster backend is recommended, with what was measured."""
    for token_ns, backend in ((40_000_000, LIBRARY), (10_000_000, SERVER)):
        for _ in range(2):
            for threads in range(1, 3):
                config = Config(n_ctx=4096, n_threads=threads, n_threads_batch=threads)
                measure(optimizer, smollm2_path, backend=backend, token_ns=token_ns, config=config)

    advice = optimizer.get_optimal_backend(smollm2_path, [LIBRARY, SERVER])

    assert advice.recommended_backend == SERVER
    assert advice.alternative_backends == [LIBRARY]
    assert advice.alternatives[0].request_ratio > 1.5
    assert advice.expected_performance["estimated_tokens_per_second"] == pytest.approx(100, rel=0.2)


@pytest.mark.parametrize("first", [LIBRARY, SERVER])
def test_priorities_decide_where_nothing_else_does(
    optimizer: PerformanceOptimizer, smollm2_path: Path, first: str
) -> None:
    """Before any run two engines of llama.cpp are one."""
    advice = optimizer.get_optimal_backend(smollm2_path, [LIBRARY, SERVER], priorities={first: -1})

    assert advice.recommended_backend == first


def test_a_backend_that_cannot_be_used_is_told_and_not_chosen(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """One is not installed, one never knew the model."""
    measure(optimizer, smollm2_path, backend=SERVER, reason=Reason.UNSUPPORTED)

    advice = optimizer.get_optimal_backend(smollm2_path, ["ctransformers", SERVER, LIBRARY])

    assert advice.recommended_backend == LIBRARY
    assert advice.alternative_backends == []
    assert set(advice.unavailable_backends) == {"ctransformers", SERVER}
    assert "unsupported" in advice.unavailable_backends[SERVER]


def test_without_a_usable_backend_the_error_names_what_to_install(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """The guide's own list, on a machine that has none of it."""
    with pytest.raises(UserError, match=r"\[ctransformers\].*pip install llama-cpp-python"):
        optimizer.get_optimal_backend(smollm2_path, ["ctransformers", "transformers"])


@pytest.mark.parametrize(
    ("target", "n_ctx"), [("speed", 2048), ("balanced", 4096), ("quality", 8192)]
)
def test_the_target_decides_about_the_context(
    optimizer: PerformanceOptimizer, smollm2_path: Path, target: str, n_ctx: int
) -> None:
    """Never more than the model was trained for, which here is 8192."""
    advice = optimizer.get_optimal_backend(smollm2_path, None, "gpu", target)

    assert advice.recommended_config.context_size == n_ctx
    assert any("a GPU was preferred" in line for line in advice.reasoning)


def test_layers_follow_the_memory_plan(optimizer: PerformanceOptimizer, smollm2_path: Path) -> None:
    """None, some, all: never fewer with more memory, and as many as the model has."""
    ask = optimizer.optimize_gpu_layers
    counts = [ask(str(smollm2_path), "ctransformers", mb) for mb in range(0, 1200, 25)]

    assert (counts[0], counts[-1]) == (0, -1)
    some = [count for count in counts if count > 0]
    assert some == sorted(some)
    assert max(some) <= 30
    assert counts == [0] * counts.count(0) + some + [-1] * counts.count(-1)
    assert ask(smollm2_path, "transformers", 700) == 0
    assert ask(smollm2_path, "transformers", 8192) == -1


def test_the_batch_shrinks_with_the_memory(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """And with the requests that share it; where nothing fits, the error says what is needed."""
    ask, copies = optimizer.get_dynamic_batch_size, room_for_copies_mb(smollm2_path)
    sizes = [ask(smollm2_path, LIBRARY, copies + mb) for mb in (16384, 330, 310)]

    assert sizes[0] == 512
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 512
    needs = rf"needs \d+ MB, {copies + 330} MiB are available: free"
    with pytest.raises(NothingFitsError, match=needs):
        ask(smollm2_path, LIBRARY, copies + 330, 8)


@pytest.mark.parametrize(
    ("target", "most"), [("speed", 4096), ("balanced", 8192), ("quality", 8192)]
)
def test_the_context_is_the_most_that_fits(
    optimizer: PerformanceOptimizer, smollm2_path: Path, target: str, most: int
) -> None:
    """Up to the end of the target's range and of the model's own; less with little memory."""
    ask, copies = optimizer.get_adaptive_context_size, room_for_copies_mb(smollm2_path)
    sizes = [ask(smollm2_path, LIBRARY, copies + mb, target) for mb in (16384, 300, 250, 230)]

    assert sizes[0] == most
    assert sizes == sorted(sizes, reverse=True)
    assert 256 <= sizes[-1] < sizes[0]
    with pytest.raises(NothingFitsError, match="256 tokens of context needs"):
        ask(smollm2_path, LIBRARY, 100, target)


def test_a_prediction_has_every_key_of_the_guide(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """Inside its own interval, JSON-ready, and narrower once it was measured."""
    before = optimizer.predict_performance(str(smollm2_path), LIBRARY)
    for name in ("load_time_ms", "memory_usage_mb", "tokens_per_second"):
        low, high = before["intervals"][f"predicted_{name}"]
        assert low < before[f"predicted_{name}"] < high
    assert 0 <= before["predicted_success_rate"] <= 1
    json.dumps(before)
    config = Config(n_ctx=4096, n_threads=1, n_threads_batch=1)
    for _ in range(3):
        measure(optimizer, smollm2_path, config=config)

    settings = BackendConfig.from_config(LIBRARY, config)
    after = optimizer.predict_performance(smollm2_path, LIBRARY, config=settings)

    assert after["evidence"] == "measured"
    assert after["predicted_tokens_per_second"] == pytest.approx(50, rel=0.01)
    assert after["predicted_load_time_ms"] == pytest.approx(500, rel=0.01)
    assert after["predicted_memory_usage_mb"] == pytest.approx(300, rel=0.01)
    assert after["confidence"] > before["confidence"]


def test_another_machine_is_predicted_from_this_one(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """More cores compute prompts faster; memory that is too small is no success."""
    one = optimizer.predict_performance(smollm2_path, LIBRARY, MACHINE)
    eight = optimizer.predict_performance(smollm2_path, LIBRARY, {**MACHINE, "cpu_cores": 8})
    tiny = optimizer.predict_performance(smollm2_path, LIBRARY, {"total_ram": 64})

    name = "predicted_prompt_tokens_per_second"
    assert eight[name] > 2 * one[name]
    assert tiny["predicted_success_rate"] < 0.1
    assert "8 cores like those" in eight["notes"][0]


def test_a_gpu_of_which_only_the_memory_is_known_is_wide(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """The whole model fits, so it lies there; how fast it is, nobody says."""
    here = optimizer.predict_performance(smollm2_path, "ctransformers")
    there = optimizer.predict_performance(
        smollm2_path, "ctransformers", {**MACHINE, "gpu_count": 1, "total_vram": 8192}
    )

    assert there["config"]["gpu_layers"] == -1
    assert there["predicted_vram_usage_mb"] > 90
    assert "wide" in there["notes"][-1]
    low, high = there["intervals"]["predicted_tokens_per_second"]
    assert here["predicted_tokens_per_second"] < there["predicted_tokens_per_second"]
    assert high / low > 10


def test_what_is_recorded_teaches_and_is_remembered(
    make_optimizer: Make, smollm2_path: Path
) -> None:
    """A second optimizer on the same store and a restarted one know it as well."""
    first, second = make_optimizer(), make_optimizer()
    before = second.predict_performance(smollm2_path, "ctransformers")
    first.record_performance("ctransformers", str(smollm2_path), success=True, **SAW)
    first.stop()

    for other in (second, make_optimizer()):
        stats = other.get_performance_stats(smollm2_path, "ctransformers")
        after = other.predict_performance(smollm2_path, "ctransformers")
        found = stats["model_performances"]["ctransformers"]
        assert {name: found[name] for name in SAW} == pytest.approx(SAW)
        assert (stats["total_models"], stats["total_backend_profiles"]) == (1, 1)
        miss = [abs(p["predicted_tokens_per_second"] - 45.5) for p in (after, before)]
        assert miss[0] < miss[1] / 2
        # Nobody knows what the application counted.
        assert after["predicted_memory_usage_mb"] == before["predicted_memory_usage_mb"]


def test_what_is_told_of_one_backend_says_nothing_of_another(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """An absurd report must not spoil what is predicted of every engine."""
    before = optimizer.predict_performance(smollm2_path, LIBRARY)
    optimizer.record_performance("ctransformers", smollm2_path, 90_000.0, 6000, 0.5)

    after = optimizer.predict_performance(smollm2_path, LIBRARY)

    for name in ("predicted_tokens_per_second", "predicted_load_time_ms"):
        assert after[name] == pytest.approx(before[name], rel=0.1)


def test_clearing_makes_it_learn_anew(optimizer: PerformanceOptimizer, smollm2_path: Path) -> None:
    """The prediction is that of before; the copy has what was known."""
    before = optimizer.predict_performance(smollm2_path, LIBRARY)
    measure(optimizer, smollm2_path)
    assert optimizer.predict_performance(smollm2_path, LIBRARY) != before

    copy = optimizer.clear_performance_cache()

    assert copy is not None
    assert copy.is_file()
    assert optimizer.predict_performance(smollm2_path, LIBRARY) == before
    assert optimizer.get_performance_stats()["total_models"] == 0


def test_insights_are_empty_before_and_have_numbers_after(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """Four lists; a run with half the threads and a slow answer is worth a word."""
    empty = optimizer.get_optimization_insights(str(smollm2_path))
    assert set(empty) == {
        "recommendations", "performance_trends", "bottlenecks", "optimization_opportunities"
    }  # fmt: skip
    assert list(empty.values()) == [[]] * 4

    measure(optimizer, smollm2_path, token_ns=200_000_000)
    insights = optimizer.get_optimization_insights()

    assert any("5 tok/s generated" in line for line in insights["bottlenecks"])
    for line in insights["optimization_opportunities"]:
        assert "× the speed" in line
        assert f"autotune tune {smollm2_path}" in line


def test_answers_come_at_once_after_the_first(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """Within 50 ms in a running process; the best of five, since the machine is shared."""
    questions: list[Callable[[], Any]] = [
        lambda: optimizer.get_optimal_backend(smollm2_path),
        lambda: optimizer.optimize_gpu_layers(smollm2_path, LIBRARY, 8192),
        lambda: optimizer.get_dynamic_batch_size(smollm2_path, LIBRARY, 4096),
        lambda: optimizer.get_adaptive_context_size(smollm2_path, LIBRARY, 4096),
        lambda: optimizer.predict_performance(smollm2_path, LIBRARY),
        lambda: optimizer.get_performance_stats(smollm2_path),
        lambda: optimizer.get_optimization_insights(smollm2_path),
    ]
    for ask in questions:
        elapsed_s = []
        for _ in range(6):
            started = time.perf_counter()
            ask()
            elapsed_s.append(time.perf_counter() - started)
        assert min(elapsed_s[1:]) < 0.05


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise there")
def test_a_read_only_store_answers_and_refuses_only_to_be_written(
    probed_db: Path, smollm2_path: Path
) -> None:
    """Recommendations and predictions go on; recording says how to make it possible."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        model = Path(shutil.copy(smollm2_path, folder / smollm2_path.name))
        file = Path(shutil.copy(probed_db, folder / "c.db"))
        optimizer = PerformanceOptimizer(make_detector(), file)
        measure(optimizer, smollm2_path)  # since then nothing was fitted
        optimizer.stop()
        file.chmod(0o444)
        with unprivileged():
            optimizer = PerformanceOptimizer(make_detector(), file)
            assert optimizer.get_optimal_backend(model).recommended_backend
            assert optimizer.predict_performance(model, LIBRARY)["predicted_load_time_ms"] > 0
            assert optimizer.get_performance_stats(model)["total_models"] == 1
            with pytest.raises(UserError, match=r"c\.db cannot be written: make the file"):
                optimizer.record_performance(LIBRARY, model, **SAW)
            optimizer.stop()


def test_the_batch_processor_starts_and_stops_with_it(optimizer: PerformanceOptimizer) -> None:
    """As often as anybody likes; what is asked after the end is answered."""
    for _ in range(2):
        optimizer.start()
        optimizer.start()
        assert optimizer.batch_processor.get_queue_stats()["is_running"]
        optimizer.stop()
        optimizer.stop()
        assert not optimizer.batch_processor.get_queue_stats()["is_running"]
    assert optimizer.get_performance_stats()["total_models"] == 0


def test_a_model_in_use_counts_while_it_is_used(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """Ordinary use that goes on is a profile already; how much memory it takes is not known yet."""
    cache, model = optimizer.performance_cache, smollm2_path.absolute()
    trial = make_trial(model_path=model, config=Config(), workload=REQUEST, purpose=Purpose.USER)
    with Telemetry(cache.store, now=utc_now) as telemetry:
        run = make_run(trial=trial, backend=LIBRARY, generations=())
        ticket = telemetry.loaded(
            run, machine_id=cache.machine_id, model_id=read_model(model).model_id
        )
        telemetry.flush()
        found = optimizer.get_performance_stats(model)["model_performances"][LIBRARY]
        telemetry.unloaded(ticket, run)

    assert found["load_time_ms"] == pytest.approx(250)
    assert (found["success_rate"], found["memory_usage_mb"]) == (1.0, None)


def test_recording_uses_what_was_recommended(
    optimizer: PerformanceOptimizer, smollm2_path: Path
) -> None:
    """The guide's flow: ask, load with the answer, record; the row has that configuration."""
    advice = optimizer.get_optimal_backend(smollm2_path, [LIBRARY], performance_target="speed")

    run_id = optimizer.record_performance(LIBRARY, smollm2_path, **SAW)

    record = optimizer.performance_cache.store.load_run(run_id)
    assert record.summary.config == advice.recommendation.config
    assert record.summary.config.n_ctx == 2048
