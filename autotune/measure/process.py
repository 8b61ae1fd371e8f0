"""The parent's end of a worker: start it, ask it, watch it, and be sure that it is gone."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from autotune.backends.protocol import EngineError
from autotune.domain.run import Reason
from autotune.domain.units import human_bytes, human_seconds
from autotune.measure.observe import MemoryObserver, Observer

POLL_S = 0.04
"""Time between two looks at the child."""
_EXCERPT_BYTES = 4000


class WorkerProcess:
    """A child process with an engine in it. Use as a context manager: leaving kills its group."""

    def __init__(
        self,
        backend: str,
        *,
        deadline_s: float,
        memory_limit_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._deadline = clock() + deadline_s
        self._deadline_s = deadline_s
        self._memory_limit_bytes = memory_limit_bytes
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._kernel_oom_kills = count_oom_kills()
        self._process = _spawn(backend, self._stderr.fileno())
        self._answers = _read_lines(self._process)
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

    def ask(self, do: str, *observers: Observer, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its answer, observing meanwhile.

        Raises EngineError with the reason when the worker refuses, dies, outstays its deadline
        or outgrows its memory.
        """
        self._send({"do": do, **arguments})
        answer = self._await(observers)
        if not answer["ok"]:
            self.engine_log = answer["log"]
            raise EngineError(Reason(answer["reason"]), answer["message"])
        return answer

    def restart_deadline(self) -> None:
        """Count the child's time from now on: one that is kept gets all of it for each command."""
        self._deadline = self._clock() + self._deadline_s

    def _send(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # a dead child is noticed when awaited
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()

    def _await(self, observers: tuple[Observer, ...]) -> dict[str, Any]:
        while True:
            for observer in (self.memory, *observers):
                observer.poll()
            self._guard()
            try:
                line = self._answers.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if line is None:
                raise self._death()
            return dict(json.loads(line))

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
        self._stderr.seek(0)
        self.engine_log = self._stderr.read()[-_EXCERPT_BYTES:].decode("utf-8", "replace")
        if status >= 0:
            return EngineError(Reason.CRASH, f"the engine's process ended with status {status}")
        if -status == signal.SIGKILL and count_oom_kills() > self._kernel_oom_kills:
            size = human_bytes(self.memory.resident_bytes)
            return EngineError(Reason.OOM, f"the system was out of memory and killed it at {size}")
        name = signal.Signals(-status).name
        return EngineError(Reason.CRASH, f"the engine's process was killed by {name}")

    def close(self) -> None:
        """Kill the child with everything it started, and wait until it is gone."""
        kill_group(self._process)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._stderr.close()


def count_oom_kills(root: Path = Path("/")) -> int:
    """Processes that this system's kernel has killed for want of memory; 0 where it does not say.

    Linux counts them in ``/proc/vmstat``, those of memory-limited cgroups included.
    """
    try:
        counters = (root / "proc/vmstat").read_text()
    except OSError:
        return 0
    return next(
        (int(line.split()[1]) for line in counters.splitlines() if line.startswith("oom_kill ")), 0
    )


def _spawn(backend: str, stderr: int) -> subprocess.Popen[str]:
    """A worker in a process group of its own, so that all of it can be ended."""
    windows_group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
    return subprocess.Popen(
        [sys.executable, "-m", "autotune.measure.worker", backend],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        encoding="utf-8",
        start_new_session=os.name == "posix",
        creationflags=windows_group,
    )


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


def kill_group(process: subprocess.Popen[Any]) -> None:
    """End a process with everything it started, and wait until it is gone."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
    process.wait()
