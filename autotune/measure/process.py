"""The parent's end of a worker: start it, ask it, watch it, and be sure that it is gone."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from autotune.backends.protocol import EngineError
from autotune.domain.run import Reason
from autotune.domain.units import human_bytes, human_seconds
from autotune.facts.activity import count_oom_kills
from autotune.measure.observe import MemoryObserver, Observer

POLL_S = 0.04
"""Time between two looks at the child."""
_EXCERPT_BYTES = 4000
_GONE_S = 10.0
"""A killed process with much memory takes a while to give it back."""


class WorkerProcess:
    """A child process with an engine in it. Use as a context manager: leaving kills its group."""

    def __init__(
        self,
        backend: str,
        *,
        deadline_s: float,
        memory_limit_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._clock = clock
        self._deadline = clock() + deadline_s
        self._deadline_s = deadline_s
        self._memory_limit_bytes = memory_limit_bytes
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._kernel_oom_kills = count_oom_kills()
        self._process = _spawn(backend, self._stderr.fileno(), environ)
        self._answers = _read_lines(self._process)
        self._programs: list[psutil.Process] = []
        self._looked_at = -math.inf
        self.memory = MemoryObserver(self._process.pid)
        self.engine_log = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def ask(
        self,
        do: str,
        *observers: Observer,
        on_text: Callable[[str], bool] = lambda _text: True,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Send one command and wait for its answer, observing meanwhile.

        ``on_text`` is given the text of an answer as it comes, and empty text now and then while
        nothing comes; by returning False it ends a ``generate``, which then answers soon.

        Raises EngineError with the reason when the worker refuses, dies, outstays its deadline
        or outgrows its memory.
        """
        self._send({"do": do, **arguments})
        answer = self._await(observers, on_text)
        if not answer["ok"]:
            self.engine_log = answer["log"]
            raise EngineError(Reason(answer["reason"]), answer["message"])
        return answer

    def restart_deadline(self, deadline_s: float | None = None) -> None:
        """Count the child's time from now on: one that is kept gets all of it for each command."""
        self._deadline_s = self._deadline_s if deadline_s is None else deadline_s
        self._deadline = self._clock() + self._deadline_s

    @property
    def lives(self) -> bool:
        """Whether the child still runs."""
        return self._process.poll() is None

    def settle(self, within_s: float) -> None:
        """End what a command that nobody waits for any more still does, and read its answer away.

        A child that does not answer in time is closed.
        """
        self.restart_deadline(within_s)
        self._send({"do": "stop"})
        with contextlib.suppress(EngineError):
            self._await((), lambda _text: True)

    def _send(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # a dead child is noticed when awaited
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def _await(
        self, observers: tuple[Observer, ...], on_text: Callable[[str], bool]
    ) -> dict[str, Any]:
        is_wanted, self._looked_at = True, -math.inf
        while True:
            said = self._next(observers)
            if "started" in said:
                self._follow(said["started"], observers)
                self._looked_at = -math.inf
            elif "text" not in said:
                return said
            elif is_wanted and not on_text(said["text"]):
                is_wanted = False
                self._send({"do": "stop"})

    def _next(self, observers: tuple[Observer, ...]) -> dict[str, Any]:
        """What the child says next; an empty text when it says nothing for a while."""
        self._look(observers)
        try:
            line = self._answers.get(timeout=POLL_S)
        except queue.Empty:
            return {"text": ""}
        if line is None:
            raise self._death()
        return dict(json.loads(line))

    def _look(self, observers: tuple[Observer, ...]) -> None:
        """Observe and guard, unless that was just done: pieces of text come often."""
        now = self._clock()
        if now < self._looked_at + POLL_S:
            return
        self._looked_at = now
        for observer in (self.memory, *observers):
            observer.poll()
        self._guard()

    def _follow(self, pid: int, observers: tuple[Observer, ...]) -> None:
        """The engine is a program of its own: it is watched, and ended with the child."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._programs.append(psutil.Process(pid))
        for observer in (self.memory, *observers):
            observer.follow(pid)

    def _guard(self) -> None:
        """Stop the child at its deadline or at its memory limit."""
        limit, resident = self._memory_limit_bytes, self.memory.resident_bytes
        if limit is not None and resident is not None and resident > limit:
            self.close()
            raise EngineError(
                Reason.OOM,
                f"stopped at {human_bytes(resident)}: the memory limit is {human_bytes(limit)}",
            )
        if self._clock() > self._deadline:
            self.close()
            raise EngineError(Reason.TIMEOUT, f"no answer within {human_seconds(self._deadline_s)}")

    def _death(self) -> EngineError:
        """Why the child ended, from its exit status."""
        status = self._process.wait()
        with contextlib.suppress(ValueError):  # closed, by another thread
            self._stderr.seek(0)
            self.engine_log = self._stderr.read()[-_EXCERPT_BYTES:].decode("utf-8", "replace")
        if status >= 0:
            return EngineError(Reason.CRASH, f"the engine's process ended with status {status}")
        if -status == signal.SIGKILL and count_oom_kills() > self._kernel_oom_kills:
            size = human_bytes(self.memory.resident_bytes)
            return EngineError(Reason.OOM, f"the system was out of memory and killed it at {size}")
        return EngineError.killed("the engine's process", -status)

    def close(self) -> None:
        """Kill the child with everything it started, and wait until it is gone."""
        kill_group(self._process)
        for program in self._programs:
            end_program(program)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._stderr.close()


def _spawn(backend: str, stderr: int, environ: Mapping[str, str]) -> subprocess.Popen[str]:
    """A worker in a process group of its own, so that all of it can be ended."""
    windows_group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    return subprocess.Popen(
        [sys.executable, *_safe_path(), "-m", "autotune.measure.worker", backend],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        start_new_session=os.name == "posix",
        creationflags=windows_group,
        # Otherwise an assertion of ggml's attaches a debugger to itself, for three seconds.
        env={**environ, "GGML_NO_BACKTRACE": "1"},
    )


def _safe_path() -> Sequence[str]:
    """Keeps the working directory, and whatever lies in it, from a worker of a parent that does not
    look for modules there either."""
    try:
        is_there = {"", str(Path.cwd())} & set(sys.path)
    except OSError:  # it was removed
        return ("-P",)
    return () if is_there else ("-P",)


def _read_lines(process: subprocess.Popen[str]) -> queue.SimpleQueue[str | None]:
    """The child's answers as they come; None after the last. Works where pipes cannot be polled."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError, OSError):  # closed by close()
            for line in process.stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def end_program(program: psutil.Process) -> None:
    """End a program with its process group, and wait until it is gone; a dead one is let rest.

    What it has started lives on where the program alone was killed, and is ended then as well. A
    process that has its number by now is another one, and left alone.
    """
    if psutil.pid_exists(program.pid) and not program.is_running():
        return
    group = _group(program.pid)
    left = [process for process in (program, *group) if _lives(process)]
    if not left:
        return
    with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
        if group:
            os.killpg(program.pid, signal.SIGKILL)
        else:
            program.kill()
    deadline = time.monotonic() + _GONE_S
    while any(map(_lives, left)) and time.monotonic() < deadline:
        time.sleep(POLL_S / 4)


def _group(number: int) -> list[psutil.Process]:
    """The processes of a group; none where the system has no groups."""
    members = []
    for pid in psutil.pids() if os.name == "posix" else ():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getpgid(pid) == number:
                members.append(psutil.Process(pid))
    return members


def _lives(process: psutil.Process) -> bool:
    """Neither gone nor a zombie, which is nothing but an exit status."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill_group(process: subprocess.Popen[Any]) -> None:
    """End a process with everything it started, and wait until it is gone."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
    process.wait()
