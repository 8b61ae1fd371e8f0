"""The manager on a real model: what it says is what the rows say, and what goes wrong is told."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import event

from autotune.backends.protocol import EngineError
from autotune.domain.errors import AutotuneError, UserError, WorkFailedError
from autotune.domain.run import Generation, Purpose, Reason
from autotune.domain.stored import RunState, StoredRun
from autotune.domain.units import MIB
from autotune.integration.advice import OptimizationRecommendation
from autotune.integration.benchmark import PROMPTS
from autotune.integration.configs import BackendConfig
from autotune.integration.engine import ModelBackend
from autotune.integration.manager import PerformanceIntegratedBackendManager
from autotune.store.store import Store
from tests.integration.conftest import LIBRARY, SERVER, make_detector

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


@pytest.fixture
def make_manager(probed_db: Path, cache_file: Path) -> Iterator[Make]:
    """Makes managers of one store that has met this machine; no process outlives the test."""
    cache_file.write_bytes(probed_db.read_bytes())
    before, made = children(), []

    def new(file: str | Path = cache_file, **options: Any) -> PerformanceIntegratedBackendManager:
        made.append(make(file, **options))
        return made[-1]

    yield new
    for manager in made:
        manager.close()
    assert children() <= before


@pytest.fixture
def idle(make_manager: Make) -> PerformanceIntegratedBackendManager:
    """A manager without a model."""
    return make_manager()


@pytest.fixture(scope="module")
def manager(
    probed_db: Path, smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PerformanceIntegratedBackendManager]:
    """A manager with SmolLM2, for tests after which it is as good as before."""
    file = tmp_path_factory.mktemp("manager") / "used.db"
    file.write_bytes(probed_db.read_bytes())
    with make(file) as manager:
        load(manager, smollm2_path)
        yield manager


# What works.


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


# What cannot be.


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
    assert "pip install transformers" in (missing.error_message or "")


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


# What breaks.


def start(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Work in a thread; the list gets what it returned or raised."""
    done: list[Any] = []

    def run() -> None:
        try:
            done.append(work())
        except AutotuneError as error:
            done.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, done


@pytest.mark.parametrize("queued", [False, True])
def test_a_killed_engine_is_an_error_and_a_reason(
    make_manager: Make, smollm2_path: Path, queued: bool
) -> None:
    """In the middle of an answer: typed, told in the row; another load serves again."""
    manager, others = make_manager(), children()
    load(manager, smollm2_path)
    begun = threading.Event()
    thread, done = start(
        lambda: manager.generate_text_with_optimization(
            LONG,
            max_tokens=1500,
            use_batch_processing=queued,
            on_text=note(begun),
        )
    )
    assert begun.wait(60)
    for child in children() - others:
        child.send_signal(signal.SIGKILL)
    thread.join(30)

    (error,) = done
    assert isinstance(error, EngineError)
    assert error.reason is Reason.CRASH
    stored, _ = latest(manager)
    assert (stored.state, stored.reason) == (RunState.FAILED, Reason.CRASH)
    assert stored.elapsed_s is not None
    assert manager.current_model_path is None
    assert manager.get_comprehensive_performance_stats()["current_model"] is None
    assert session(manager)["generations_failed"] == 1
    with pytest.raises(UserError, match="call load_model_optimized first"):
        manager.generate_text_with_optimization(FACT)
    load(manager, smollm2_path)
    assert brief(manager, use_batch_processing=queued)


def test_an_unload_ends_the_answer_under_way(make_manager: Make, smollm2_path: Path) -> None:
    """What is not whole is not given for an answer; what was computed is a row all the same."""
    manager = make_manager()
    load(manager, smollm2_path)
    begun = threading.Event()
    thread, done = start(
        lambda: manager.generate_text_with_optimization(
            LONG, max_tokens=1500, temperature=0, on_text=note(begun)
        )
    )
    assert begun.wait(60)
    assert manager.unload_model()
    thread.join(30)

    (error,) = done
    assert isinstance(error, WorkFailedError)
    assert "unloaded before the answer was whole" in str(error)
    stored, _ = latest(manager)
    assert (stored.state, stored.reason, stored.n_reps) == (RunState.COMPLETE, None, 1)


def test_a_store_that_cannot_be_written_costs_no_generation(
    make_manager: Make, smollm2_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Read-only, for SQLite itself: one warning, and what was dropped is counted to the end."""
    manager = make_manager()
    load(manager, smollm2_path)
    assert flush(manager)

    def refuse(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA query_only = ON")

    writer = store_of(manager).database.writer
    event.listen(writer, "checkout", refuse)
    for _ in range(2):
        assert brief(manager)
        assert not flush(manager)
    event.remove(writer, "checkout", refuse)

    assert dropped(manager) == 2
    assert len([r for r in caplog.records if r.name == "autotune.store.telemetry"]) == 1
    manager.close()
    assert dropped(manager) >= 2


def dropped(manager: PerformanceIntegratedBackendManager) -> int:
    statistics = manager.get_performance_insights()["cache_statistics"]
    return int(statistics["telemetry_dropped"])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four mebibytes; skipped where nobody may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "autotune-test", str(folder)]
    if (
        not shutil.which("mount")
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_costs_no_generation(
    small_disk: Path, probed_db: Path, smollm2_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted while it is full, written again when it is not."""
    file = small_disk / "store.db"
    file.write_bytes(probed_db.read_bytes())
    with make(file) as manager:
        load(manager, smollm2_path)
        assert flush(manager)
        filler = small_disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as full:
            while True:
                full.write(b"x" * 4096)
        for _ in range(100):  # until the room in the files is used up, too
            assert brief(manager)
            flush(manager)
            if dropped(manager):
                break
        assert dropped(manager) > 0
        warnings = [r for r in caplog.records if r.name == "autotune.store.telemetry"]
        assert len(warnings) == 1
        with pytest.raises(UserError, match="cannot be written"):
            manager.export_performance_report(small_disk / "report.json")
        assert {path.name for path in small_disk.iterdir() if path != filler} <= {
            "store.db",
            "store.db-wal",
            "store.db-shm",
        }
        filler.unlink()
        known = latest(manager)[0].n_reps
        assert brief(manager)
        assert latest(manager)[0].n_reps == known + 1


_PROGRAM = """
import sys
from pathlib import Path
from tests.integration.test_manager import FACT, load, make
with make(sys.argv[1]) as manager:
    load(manager, Path(sys.argv[2]))
    for _ in range(int(sys.argv[3])):
        manager.generate_text_with_optimization(FACT, max_tokens=4)
"""


def test_two_processes_share_a_store(probed_db: Path, cache_file: Path, smollm2_path: Path) -> None:
    """All rows of both are there."""
    cache_file.write_bytes(probed_db.read_bytes())
    program = [sys.executable, "-c", _PROGRAM, str(cache_file), str(smollm2_path)]
    processes = [subprocess.Popen([*program, str(n)]) for n in (3, 5)]
    try:
        assert [process.wait(120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()

    with make(cache_file) as manager:
        runs = store_of(manager).list_runs()
        assert sorted(run.n_reps for run in runs) == [3, 5]
        assert {run.state for run in runs} == {RunState.COMPLETE}
