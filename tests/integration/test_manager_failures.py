"""What breaks under a manager: engines, stores and disks; generation goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from autotune.backends.protocol import EngineError
from autotune.domain.errors import AutotuneError, UserError, WorkFailedError
from autotune.domain.run import Reason
from autotune.domain.stored import RunState
from autotune.integration.manager import PerformanceIntegratedBackendManager
from tests.integration.managers import (
    FACT,
    LONG,
    Make,
    brief,
    children,
    flush,
    latest,
    load,
    make,
    note,
    session,
    store_of,
)


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


@pytest.mark.parametrize("queued", [False, True])
def test_a_listener_may_unload_while_the_application_does(
    make_manager: Make, smollm2_path: Path, queued: bool
) -> None:
    """Neither waits for the other; the next load serves."""
    manager, begun = make_manager(), threading.Event()
    load(manager, smollm2_path)
    said: list[bool] = []

    def listen(_text: str) -> bool:
        begun.set()
        while not said and manager.current_backend is not None:
            time.sleep(0.01)
        said.append(manager.unload_model())
        return True

    thread, _ = start(
        lambda: manager.generate_text_with_optimization(
            FACT, max_tokens=8, use_batch_processing=queued, on_text=listen
        )
    )
    assert begun.wait(60)
    assert manager.unload_model()
    thread.join(5)

    assert not thread.is_alive()
    assert not any(said)
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
from autotune.integration.configs import BackendConfig
from tests.integration.detectors import LIBRARY
from tests.integration.managers import FACT, load, make
with make(sys.argv[1]) as manager:
    # More threads than cores wait for one another.
    manager.configs[LIBRARY] = BackendConfig(name=LIBRARY, custom_args={"n_threads": 1})
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
