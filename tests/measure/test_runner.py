"""Trials on the real engine, and every way in which they may end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autotune.domain.config import Config
from autotune.domain.run import Reason, Trial
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.measure.process import WorkerProcess
from autotune.measure.runner import LocalRunner

BACKEND = "llama-cpp-python"
CONFIG = Config(n_ctx=512, n_batch=256, n_ubatch=256)


def make_trial(model_path: Path, **changes: object) -> Trial:
    """A short request on the real model."""
    defaults = {"config": CONFIG, "workload": Workload(n_prompt=64, n_gen=8), "timeout_s": 120.0}
    return Trial(model_path=model_path, **{**defaults, **changes})  # type: ignore[arg-type]


def children() -> list[psutil.Process]:
    """Processes that this one has started and that still live."""
    return psutil.Process().children(recursive=True)


@pytest.fixture
def no_orphans() -> object:
    """Whatever happens in a test, no child outlives it."""
    yield
    assert children() == []


def test_a_trial_measures_load_memory_and_both_phases(smollm2_path: Path, no_orphans: None) -> None:
    """The whole record of a run, from a fresh child that is gone afterwards."""
    heard: list[str] = []
    run = LocalRunner(BACKEND).run(make_trial(smollm2_path), notify=heard.append)

    assert run.ok, run.message
    assert run.measurement is not None
    assert run.measurement.decode_tps is not None
    assert 3 <= len(run.generations) <= 3 + 8  # more than three where samples were contaminated
    assert run.load is not None
    assert run.build is not None
    assert run.build.backend == BACKEND
    assert heard[0] == "loading"
    assert all(len(generation.token_ns) == 8 for generation in run.generations)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux splits resident memory")
def test_resident_memory_is_split_into_anonymous_and_file(smollm2_path: Path) -> None:
    """Mapped weights are file-backed, copied ones anonymous; the peak holds both."""
    mapped = LocalRunner(BACKEND).run(make_trial(smollm2_path))
    copied = LocalRunner(BACKEND).run(
        make_trial(smollm2_path, config=CONFIG.replace(use_mmap=False))
    )

    assert mapped.peak_file_bytes is not None
    assert copied.peak_anon_bytes is not None
    assert mapped.peak_rss_bytes is not None
    assert mapped.peak_file_bytes > 90 * MIB
    assert copied.peak_anon_bytes > 90 * MIB
    assert mapped.peak_rss_bytes > 100 * MIB


def during(action: Callable[[int], None]) -> Callable[[str], None]:
    """A listener that does something to the child when the first sample starts."""

    def notify(what: str) -> None:
        if what.startswith("sample"):
            for child in children():
                action(child.pid)

    return notify


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_engine_is_a_crash_with_its_signal(
    smollm2_path: Path, number: signal.Signals, no_orphans: None
) -> None:
    """The load survives in the record, the reason names the signal."""
    notify = during(lambda pid: os.kill(pid, number))
    run = LocalRunner(BACKEND).run(make_trial(smollm2_path), notify=notify)

    assert run.reason is Reason.CRASH
    assert number.name in run.message
    assert run.load is not None
    assert run.measurement is None


def test_a_hanging_engine_is_a_timeout(smollm2_path: Path, no_orphans: None) -> None:
    """A stopped process answers nothing; it is ended at its deadline."""
    notify = during(lambda pid: os.kill(pid, signal.SIGSTOP))
    run = LocalRunner(BACKEND).run(make_trial(smollm2_path, timeout_s=3.0), notify=notify)

    assert run.reason is Reason.TIMEOUT
    assert run.message == "no answer within 3 s"


def test_an_engine_that_outgrows_its_memory_is_stopped(
    smollm2_path: Path, no_orphans: None
) -> None:
    """The guard ends it before the machine swaps, and says at what size."""
    run = LocalRunner(BACKEND).run(make_trial(smollm2_path, memory_limit_bytes=60 * MIB))

    assert run.reason is Reason.OOM
    assert "the memory limit is 60 MiB" in run.message


def test_an_unloadable_file_is_a_load_error_in_the_engines_words(
    tmp_path: Path, no_orphans: None
) -> None:
    """The excerpt of the engine's log is kept."""
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"GGUFnoise" * 50)
    run = LocalRunner(BACKEND).run(make_trial(path))

    assert run.reason is Reason.LOAD_ERROR
    assert "noise.gguf" in run.message
    assert run.log_excerpt


def test_a_cache_that_no_machine_holds_is_out_of_memory(
    smollm2_path: Path, no_orphans: None
) -> None:
    """A terabyte of KV cache: the engine's own words say that it could not be allocated."""
    run = LocalRunner(BACKEND).run(
        make_trial(smollm2_path, config=CONFIG.replace(n_ctx=50_000_000))
    )

    assert run.reason is Reason.OOM
    assert "insufficient memory" in run.message


def test_ctrl_c_ends_the_child_and_passes_through(smollm2_path: Path, no_orphans: None) -> None:
    """KeyboardInterrupt in the parent leaves nothing running."""

    def interrupt(what: str) -> None:
        if what.startswith("sample"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalRunner(BACKEND).run(make_trial(smollm2_path), notify=interrupt)


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """Even kill -9 of the measuring process leaves no orphan behind."""
    code = (
        "from autotune.measure.process import WorkerProcess; import time\n"
        f"worker = WorkerProcess({BACKEND!r}, deadline_s=60)\n"
        "worker.ask('build'); print(worker.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while _lives(pid) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_is_closed_twice_stays_closed() -> None:
    """Closing is what leaving the context does, and may be done again."""
    with WorkerProcess(BACKEND, deadline_s=30) as worker:
        worker.ask("build")
    worker.close()

    assert not _lives(worker.pid)
    assert threading.active_count() < 10


def test_files_of_the_working_directory_are_no_modules_of_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks for modules where its parent does: not where somebody happens to work."""
    for name in ("queue", "numpy", "llama_cpp"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a stranger')\n")
    monkeypatch.chdir(tmp_path)
    with WorkerProcess(BACKEND, deadline_s=60) as worker:
        assert worker.ask("build")["build"]["backend"] == BACKEND
