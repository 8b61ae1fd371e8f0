"""The child process of a trial: ``python -m autotune.measure.worker BACKEND``.

Holds one engine and obeys commands from standard input (see :mod:`autotune.measure.messages`).
When the parent goes away, standard input ends and the child ends with it, even in the middle of
a computation, and takes the programs with it that its engine has started.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

from autotune.backends.protocol import Backend, EngineError, Judges, Plans, Session
from autotune.backends.registry import get_backend
from autotune.domain.config import Config
from autotune.domain.run import Reason
from autotune.domain.workload import Workload
from autotune.measure.messages import pack, unpack_request
from autotune.measure.process import end_program


class Worker:
    """One backend, at most one loaded model.

    ``on_text`` is given the pieces of an answer as they come, and ends it by returning False.
    """

    def __init__(
        self, backend: Backend, *, on_text: Callable[[str], bool] = lambda _text: True
    ) -> None:
        self._backend = backend
        self._on_text = on_text
        self._session: Session | None = None

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Obey one command; a failure is an answer, not an exception."""
        try:
            result = getattr(self, f"do_{command.pop('do')}")(**command)
        except EngineError as error:
            return self._failure(error.reason, str(error))
        except MemoryError as error:
            return self._failure(Reason.OOM, f"out of memory: {error}")
        except ImportError as error:
            return self._failure(Reason.UNSUPPORTED, f"{self._backend.name} is missing: {error}")
        except Exception as error:  # the parent stores whatever happened, and this process ends
            return self._failure(Reason.CRASH, f"{type(error).__name__}: {error}")
        return {"ok": True, **result}

    def _failure(self, reason: Reason, message: str) -> dict[str, Any]:
        log = self._backend.log_excerpt()
        return {"ok": False, "reason": reason, "message": _one_line(message), "log": log}

    def do_build(self) -> dict[str, Any]:
        """Which engine this is, and the GPUs that it can use."""
        gpus = [pack(gpu) for gpu in self._backend.gpus()]
        return {"build": pack(self._backend.build()), "gpus": gpus}

    def do_load(self, path: str, config: dict[str, Any]) -> dict[str, Any]:
        """Load a model; how long it took and what the engine says it did."""
        self._session = self._backend.load(Path(path), Config.from_dict(config))
        return {"load": pack(self._session.load), "report": pack(self._session.report())}

    def do_plan(self, path: str, config: dict[str, Any]) -> dict[str, Any]:
        """What a configuration would allocate, in the engine's own figures."""
        if not isinstance(self._backend, Plans):
            message = f"{self._backend.name} cannot plan without allocating"
            raise EngineError(Reason.UNSUPPORTED, message)
        return {"plan": pack(self._backend.plan(Path(path), Config.from_dict(config)))}

    def do_quality(
        self, path: str, config: dict[str, Any], reference: dict[str, Any], text: str
    ) -> dict[str, Any]:
        """What a configuration costs in quality, held against the reference over a text."""
        if not isinstance(self._backend, Judges):
            message = f"{self._backend.name} gives out no distributions to judge quality by"
            raise EngineError(Reason.UNSUPPORTED, message)
        cost = self._backend.quality(
            Path(path),
            Config.from_dict(config),
            reference=Config.from_dict(reference),
            text=text,
        )
        return {"quality": pack(cost)}

    def do_sample(self, workload: str, seed: int) -> dict[str, Any]:
        """Serve one request and time it."""
        return {"sample": pack(self._loaded().sample(Workload.parse(workload), seed=seed))}

    def do_generate(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request of ordinary use, its text in pieces before the answer."""
        completion = self._loaded().generate(unpack_request(request), on_text=self._on_text)
        return {"completion": pack(completion)}

    def _loaded(self) -> Session:
        if self._session is None:
            raise EngineError(Reason.LOAD_ERROR, "no model is loaded")
        return self._session


def _one_line(message: str) -> str:
    return " ".join(message.split())


def _commands(
    stream: IO[str], programs: Sequence[psutil.Process], stopped: threading.Event
) -> queue.SimpleQueue[dict[str, Any]]:
    """Commands as they come. The end of the stream ends the process at once.

    ``stop`` does not wait for its turn: it sets ``stopped``, which the next ``generate`` clears.
    """
    commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in stream:
            command = json.loads(line)
            if command["do"] == "stop":
                stopped.set()
                continue
            if command["do"] == "generate":
                stopped.clear()
            commands.put(command)
        for program in programs:
            end_program(program)
        os._exit(0)  # the main thread may be deep inside the engine

    threading.Thread(target=read, daemon=True).start()
    return commands


def _private_stdout() -> IO[str]:
    """Our own channel to the parent; whatever a library prints goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return channel


def main() -> None:
    """Serve commands until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    channel = _private_stdout()
    programs: list[psutil.Process] = []
    stopped = threading.Event()

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    def announce(pid: int) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            programs.append(psutil.Process(pid))
        say({"started": pid})

    def on_text(text: str) -> bool:
        if text:
            say({"text": text})
        return not stopped.is_set()

    worker = Worker(get_backend(sys.argv[1], os.environ, announce=announce), on_text=on_text)
    commands = _commands(sys.stdin, programs, stopped)
    while True:
        say(worker.answer(commands.get()))


if __name__ == "__main__":
    main()
