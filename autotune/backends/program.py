"""An engine that is a program of its own: found, started, listened to, and surely ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from autotune.backends import tether
from autotune.backends.llama_log import read_problems, read_reason
from autotune.backends.protocol import EngineError
from autotune.domain.run import Reason
from autotune.facts.activity import count_oom_kills

_GRACE_S = 5.0
"""Time to end in an orderly way; a server that decodes notices after its current batch."""
_EXIT_S = 2.0
"""Time from closing its connections to having an exit status."""
_APE = (b"MZqFpD", b"jartsr")
"""What a program of Cosmopolitan begins with, every llamafile for one: see its ``ape/ape.S``."""
_LOG_LINES = 4096
"""A load takes hundreds, a request ten."""


def find_program(name: str, *, variable: str, environ: Mapping[str, str]) -> Path:
    """The program that an environment variable names, else the one of that name on ``PATH``.

    Raises ImportError where there is none: an engine that is not installed.
    """
    wanted = environ.get(variable) or name
    found = shutil.which(wanted, path=environ.get("PATH"))
    if found is None:
        raise ImportError(f"no program {wanted}; put it on PATH or name it with {variable}=FILE")
    return Path(found).absolute()


def by_shell(command: Sequence[str]) -> Sequence[str]:
    """The command, by a shell where its program is a script to that and nothing to the kernel."""
    if os.name == "posix":
        # What cannot be read may yet be run; what cannot be run says so when it is started.
        with contextlib.suppress(OSError), Path(command[0]).open("rb") as program:
            if program.read(len(_APE[0])) in _APE:
                return ["/bin/sh", *command]
    return command


class Program:
    """A running program in a session of its own, with a log.

    On Linux the kernel kills it when the thread that started it ends, however that ends. Other
    systems have no such thing: there it outlives a starter that is killed outright, unless
    somebody who knows its number ends it (:mod:`autotune.measure.process` does).
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = Path(command[0]).name
        self.is_private = False
        """Whether its words may be those of somebody's request: then nobody repeats them."""
        self._oom_kills = count_oom_kills()
        self._said: deque[tuple[float, str]] = deque(maxlen=_LOG_LINES)
        try:
            self._process, self.started = _start(by_shell(command), environ)
        except OSError as error:
            message = f"{self.name} cannot be started: {error.strerror}"
            raise EngineError(Reason.UNSUPPORTED, message) from error
        self.pid = self._process.pid
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as stream:
            for line in stream:
                self._said.append((time.perf_counter(), line.decode("utf-8", "replace")))

    @property
    def lives(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def read_log(self) -> str:
        """What it has said so far, the latest lines of it; after its end all."""
        if not self.lives:
            self._listener.join(_EXIT_S)
        return "".join(line for _, line in self._said.copy())

    def when_said(self, *signs: str) -> float | None:
        """When it first said one of these, by ``time.perf_counter``; None if it never did."""
        lines = self._said.copy()
        return next((at for at, line in lines if any(sign in line for sign in signs)), None)

    def failure(self, otherwise: Reason, message: str) -> EngineError:
        """Why it failed: the signal that killed it, else its own words and their class.

        Of a private program the class alone.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_S)
        status = self._process.returncode
        if status is not None and status < 0:
            return self._killed(-status)
        problems = read_problems(self.read_log())
        has_words = problems and not self.is_private
        words = f"{message}: {problems[0]}" if has_words else message
        return EngineError(read_reason(problems, otherwise), words)

    def _killed(self, number: int) -> EngineError:
        if number == signal.SIGKILL and count_oom_kills() > self._oom_kills:
            return EngineError(Reason.OOM, f"the system was out of memory and killed {self.name}")
        return EngineError.killed(self.name, number)

    def stop(self, *, grace_s: float = _GRACE_S) -> None:
        """End it with everything that it started, and wait until it is gone.

        It is asked to, and killed after ``grace_s``.
        """
        if self.lives:
            self._signal_group(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
            self._signal_group(getattr(signal, "SIGKILL", signal.SIGTERM))
            self._process.wait()
        self._listener.join(_EXIT_S)

    def _signal_group(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.name == "posix":
                os.killpg(self.pid, number)
            else:
                self._process.terminate()


def _start(
    command: Sequence[str], environ: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], float]:
    """The process, and when the program itself began, by ``time.perf_counter``."""
    if sys.platform != "linux" or not sys.executable:
        return _spawn(command, environ), time.perf_counter()
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as pipe:
        tethered = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), str(theirs)]
        try:
            process = _spawn([*tethered, *command], environ, pass_fds=(theirs,))
        finally:
            os.close(theirs)
        error = pipe.read()
    if error:
        process.communicate()
        raise OSError(int(error), os.strerror(int(error)))
    return process, time.perf_counter()


def _spawn(
    command: Sequence[str], environ: Mapping[str, str], *, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=os.name == "posix",
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        pass_fds=pass_fds,
    )
