"""Programs: found or not, ended with all that is theirs, and dead with whoever started them."""

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

from autotune.backends.program import Program, find_program
from autotune.backends.protocol import EngineError
from autotune.backends.server_options import Installed
from autotune.domain.run import Reason

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the programs here are shell scripts")


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Wait for a condition; whether it came."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def shell(script: str) -> Program:
    """A running shell script."""
    return Program(["/bin/sh", "-c", script], os.environ)


def lives(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_setting_wins_over_the_path(tmp_path: Path) -> None:
    """Both are read from what is handed in, not from this process."""
    for name in ("engine", "other"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    environ = {"PATH": str(tmp_path)}

    assert find_program("engine", variable="ENGINE", environ=environ) == tmp_path / "engine"
    environ["ENGINE"] = str(tmp_path / "other")
    assert find_program("engine", variable="ENGINE", environ=environ) == tmp_path / "other"


def test_a_program_that_is_not_there_names_the_cure() -> None:
    """An engine that is not installed is an ImportError, as a library would be."""
    with pytest.raises(ImportError, match=r"no program engine; .* ENGINE=FILE"):
        find_program("engine", variable="ENGINE", environ={"PATH": "/nonexistent"})


def test_a_program_is_the_process_that_was_started() -> None:
    """Number, group and log are its own; its clock starts with it, not with what launches it."""
    before = time.perf_counter()
    program = shell("echo $$; exec sleep 60")
    try:
        assert until(lambda: program.read_log() != "")
        assert int(program.read_log()) == program.pid
        assert os.getpgid(program.pid) == program.pid
        assert before < program.started < time.perf_counter()
    finally:
        program.stop()
    assert not program.lives


def test_a_program_that_cannot_begin_is_refused(tmp_path: Path) -> None:
    """The system's words, though another program tried it."""
    with pytest.raises(EngineError, match="No such file") as caught:
        Program([str(tmp_path / "nothing")], os.environ)
    assert caught.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("magic", ["MZqFpD", "jartsr"])
def test_a_program_for_every_system_is_started_as_shells_start_it(
    tmp_path: Path, magic: str
) -> None:
    """Kernels know no such format; its first lines are a script that turns into the program."""
    ape = tmp_path / "a llamafile"
    ape.write_bytes(magic.encode() + b"='\n\x7f\xff'\necho llamafile v0.9.3 \"$1\" $$\n")
    ape.chmod(0o755)

    assert Installed(ape, os.environ).version.startswith("llamafile v0.9.3 --version")
    program = Program([str(ape), "a b"], os.environ)
    assert until(lambda: not program.lives)
    assert program.read_log() == f"llamafile v0.9.3 a b {program.pid}\n"
    assert program.name == "a llamafile"


def test_stopping_ends_the_whole_group() -> None:
    """Also a child of it that would not listen."""
    program = shell("(trap '' TERM; sleep 60) & echo $!; wait")
    assert until(lambda: program.read_log() != "")
    child = int(program.read_log())
    program.stop()

    assert until(lambda: not lives(child))


def test_a_program_that_does_not_listen_is_killed() -> None:
    """After its grace."""
    program = shell("trap '' TERM; echo ready; while :; do sleep 1; done")
    assert until(lambda: "ready" in program.read_log())
    program.stop(grace_s=0.1)

    assert not lives(program.pid)


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [
        ("kill -SEGV $$", Reason.CRASH, "killed by SIGSEGV"),
        ("kill -KILL $$", Reason.CRASH, "killed by SIGKILL"),
        ("kill -ILL $$", Reason.CRASH, "killed by SIGILL: it was built for another processor"),
        ("echo 'error: out of memory'; exit 1", Reason.OOM, "it failed: error: out of memory"),
        ("echo 'error: unknown argument: -x'; exit 1", Reason.CONSTRAINT, "unknown argument"),
        ("echo all is well; exit 1", Reason.LOAD_ERROR, "it failed"),
    ],
)
def test_a_failure_has_the_class_of_its_evidence(script: str, reason: Reason, words: str) -> None:
    """The signal that ended it, else what it said."""
    program = shell(script)
    error = program.failure(Reason.LOAD_ERROR, "it failed")
    program.stop()

    assert error.reason is reason
    assert words in str(error)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_a_program_dies_with_whoever_started_it() -> None:
    """Even where that is killed outright and can end nothing."""
    code = (
        "import os, time; from autotune.backends.program import Program\n"
        "print(Program(['/bin/sleep', '60'], os.environ).pid, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert lives(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()

    assert until(lambda: not lives(pid))
