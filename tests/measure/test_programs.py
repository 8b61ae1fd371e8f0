"""Engines that are programs, measured through the worker: seen, limited, ended like any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from autotune.domain.config import Config
from autotune.domain.run import Reason, Run, Trial
from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.measure.observe import MemoryObserver
from autotune.measure.process import WorkerProcess, end_program
from autotune.measure.runner import LocalRunner
from autotune.measure.watch import Watch
from tests.backends.programs import find_server
from tests.backends.test_program import lives, until
from tests.measure.test_watch import no_gpus, spin

BACKEND = "llama-server"
CONFIG = Config(n_ctx=512, n_batch=256, n_ubatch=256)


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real server, for the workers of a test."""
    monkeypatch.setenv("AUTOTUNE_LLAMA_SERVER", str(find_server()))


def servers() -> list[psutil.Process]:
    """The servers that workers of this process have started."""
    family = psutil.Process().children(recursive=True)
    return [process for process in family if process.name().startswith("llama-server")]


def run(
    path: Path, *, notify: Callable[[str], None] = lambda _what: None, **changes: object
) -> Run:
    """A short request on the real model."""
    defaults = {"config": CONFIG, "workload": Workload(n_prompt=64, n_gen=8), "timeout_s": 120.0}
    trial = Trial(model_path=path, **{**defaults, **changes})  # type: ignore[arg-type]
    return LocalRunner(BACKEND).run(trial, notify=notify)


def test_a_server_is_measured_and_gone(smollm2_path: Path) -> None:
    """The whole record, from a program that is the worker's and nobody else's."""
    seen: list[psutil.Process] = []
    measured = run(smollm2_path, notify=lambda _what: seen.extend(servers()))

    assert measured.ok, measured.message
    assert measured.measurement is not None
    assert measured.build is not None
    assert measured.build.backend == BACKEND
    assert all(len(generation.token_ns) == 8 for generation in measured.generations)
    assert all(generation.decode_cpu_ns for generation in measured.generations)
    assert seen
    assert not any(lives(process.pid) for process in seen)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux splits resident memory")
def test_memory_is_the_servers_and_not_the_workers(smollm2_path: Path) -> None:
    """Mapped weights are its file-backed memory; copied ones its anonymous memory."""
    mapped = run(smollm2_path)
    copied = run(smollm2_path, config=CONFIG.replace(use_mmap=False))

    assert (mapped.peak_file_bytes or 0) > 90 * MIB
    assert (copied.peak_anon_bytes or 0) > 90 * MIB
    assert 0 < (mapped.peak_anon_bytes or 0) < 60 * MIB
    assert (mapped.peak_rss_bytes or 0) > 100 * MIB
    assert (mapped.peak_pss_bytes or 0) > 90 * MIB


def test_a_server_that_outgrows_its_memory_is_stopped(smollm2_path: Path) -> None:
    """Its memory counts, and it is gone with the worker that started it."""
    seen: list[psutil.Process] = []

    def look(_what: str) -> None:
        seen.extend(servers())

    stopped = run(
        smollm2_path,
        memory_limit_bytes=60 * MIB,
        config=CONFIG.replace(use_mmap=False),
        notify=look,
    )

    assert stopped.reason is Reason.OOM
    assert "the memory limit is 60 MiB" in stopped.message
    assert servers() == []


def test_a_server_that_hangs_is_a_timeout_and_is_ended(smollm2_path: Path) -> None:
    """A stopped process hears no request to end; it is killed."""
    seen: list[psutil.Process] = []

    def freeze(what: str) -> None:
        if what.startswith("sample"):
            seen.extend(servers())
            for process in seen:
                os.kill(process.pid, signal.SIGSTOP)

    stuck = run(smollm2_path, timeout_s=6.0, notify=freeze)

    assert stuck.reason is Reason.TIMEOUT
    assert stuck.load is not None
    assert seen
    assert not any(lives(process.pid) for process in seen)


def test_a_server_that_is_killed_is_a_crash_with_its_signal(smollm2_path: Path) -> None:
    """The load survives in the record."""

    def kill(what: str) -> None:
        if what.startswith("sample"):
            for process in servers():
                process.kill()

    dead = run(smollm2_path, notify=kill)

    assert dead.reason is Reason.CRASH
    assert "llama-server was killed by SIGKILL" in dead.message
    assert dead.load is not None


@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_no_server_outlives_those_who_measure(smollm2_path: Path, victim: str) -> None:
    """Whichever of the two is killed outright."""
    code = (
        "from autotune.measure.process import WorkerProcess; import psutil, time\n"
        f"worker = WorkerProcess({BACKEND!r}, deadline_s=60)\n"
        f"worker.ask('load', path={str(smollm2_path)!r}, config={CONFIG.as_dict()!r})\n"
        "(server,) = psutil.Process(worker.pid).children()\n"
        "print(worker.pid, server.pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        worker, server = map(int, parent.stdout.readline().split())
        assert lives(server)
        os.kill({"worker": worker, "parent": parent.pid}[victim], signal.SIGKILL)
        assert until(lambda: not lives(server))
        parent.kill()
        parent.wait()

    assert until(lambda: not lives(worker))


def test_ending_a_program_ends_its_group() -> None:
    """Stopped or not; one that is gone already is let rest."""
    script = "sleep 60 & echo $!; kill -STOP $$; wait"
    with subprocess.Popen(
        ["/bin/sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        child, program = int(leader.stdout.readline()), psutil.Process(leader.pid)
        end_program(program)
        assert not lives(leader.pid)
    assert until(lambda: not lives(child))
    end_program(program)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_server_behind_a_script_ends_with_its_worker(
    smollm2_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    """A script that waits for it dies with the worker, before anybody can end its group."""
    script = tmp_path / "server.sh"
    script.write_text(f'#!/bin/sh\n"{find_server()}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("AUTOTUNE_LLAMA_SERVER", str(script))
    with WorkerProcess(BACKEND, deadline_s=60) as worker:
        worker.ask("load", path=str(smollm2_path), config=CONFIG.as_dict())
        (process,) = servers()
        if is_killed:
            os.kill(worker.pid, signal.SIGKILL)
            assert until(lambda: not worker.lives)

    assert not lives(process.pid)


def test_a_missing_server_is_unsupported(
    smollm2_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A normal answer that names the cure."""
    monkeypatch.setenv("AUTOTUNE_LLAMA_SERVER", "/nonexistent/llama-server")
    missing = run(smollm2_path)

    assert missing.reason is Reason.UNSUPPORTED
    assert "AUTOTUNE_LLAMA_SERVER=FILE" in missing.message


def test_memory_follows_the_program() -> None:
    """What was seen of the process before is forgotten, a dead one is not held against it."""
    memory = MemoryObserver(os.getpid())
    memory.poll()
    ours = memory.peak_bytes
    with subprocess.Popen(["sleep", "60"]) as small:
        memory.follow(small.pid)
        memory.poll()
        small.kill()
    assert ours is not None
    assert memory.peak_bytes is not None
    assert memory.peak_bytes < ours / 2
    memory.follow(small.pid)
    memory.poll()
    assert memory.peak_bytes is None


def test_the_programs_work_is_not_foreign() -> None:
    """The same spinning process, before and after it is known as the engine's."""
    with spin(2.5) as hog:
        time.sleep(0.3)
        watch = Watch(os.getpid(), open_gpus=no_gpus)
        seen = []
        for _ in range(2):
            since = watch.start()
            time.sleep(0.8)
            seen.append(watch.conditions(since).foreign_cpu_ratio)
            watch.follow(hog.pid)
        hog.wait()

    assert seen[0] is not None
    assert seen[1] is not None
    assert seen[0] - seen[1] > 0.4 / (os.cpu_count() or 1)


def test_a_program_ended_with_its_worker_is_not_ended_twice(smollm2_path: Path) -> None:
    """Closing is what leaving the context does, and may be done again."""
    with WorkerProcess(BACKEND, deadline_s=60) as worker:
        worker.ask("load", path=str(smollm2_path), config=CONFIG.as_dict())
        (process,) = servers()
    worker.close()

    assert not lives(process.pid)
