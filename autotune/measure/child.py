"""One run in a child process of its own, watched: what is known of it, at any moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from autotune.backends.llamafile import with_own_program
from autotune.backends.protocol import EngineError
from autotune.domain.conditions import Conditions, Contamination
from autotune.domain.machine import Build
from autotune.domain.run import EngineReport, Generation, LoadTime, Reason, Run, Trial
from autotune.measure.messages import unpack_build, unpack_load, unpack_report
from autotune.measure.process import WorkerProcess
from autotune.measure.watch import Watch


class ChildRun:
    """A worker with one model, and what was found out about it. Leaving the context ends it.

    What is known survives the engine's death and the end of the worker: :meth:`run` tells it then
    as well.
    """

    def __init__(
        self,
        trial: Trial,
        backend: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        residency: Callable[[Path], float | None] = lambda _path: None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.trial, self.backend, self._clock = trial, backend, clock
        self._started_at, self._started = now(), clock()
        self._ended: float | None = None
        self._cached_ratio = residency(trial.model_path)
        self._reason: Reason | None = None
        self._message = ""
        self._build: Build | None = None
        self._load: LoadTime | None = None
        self._load_contamination: tuple[Contamination, ...] = ()
        self._report = EngineReport()
        self._conditions: Conditions | None = None
        self.generations: tuple[Generation, ...] = ()
        with ExitStack() as stack:
            self.worker = stack.enter_context(
                WorkerProcess(
                    backend,
                    deadline_s=trial.timeout_s,
                    memory_limit_bytes=trial.memory_limit_bytes,
                    clock=clock,
                    environ=with_own_program(environ, trial.model_path),
                )
            )
            self.watch = stack.enter_context(Watch(self.worker.pid, clock=clock))
            self._since = self.watch.start()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def load(self, *, notify: Callable[[str], None] = lambda _what: None) -> None:
        """Have the model loaded. Raises EngineError with the reason."""
        self._build = unpack_build(self.worker.ask("build")["build"])
        notify("loading")
        since = self.watch.start()
        path, config = str(self.trial.model_path), self.trial.config.as_dict()
        answer = self.worker.ask("load", self.watch, path=path, config=config)
        self._load = unpack_load(answer["load"])
        self._load_contamination = self.watch.conditions(since).contamination
        self._report = unpack_report(answer["report"])

    def fail(self, error: EngineError) -> None:
        """The run has failed, for that reason."""
        self._reason, self._message = error.reason, str(error)

    def note_conditions(self) -> None:
        """The conditions of the run are those seen from its start until now."""
        self._conditions = self.watch.conditions(self._since)

    def close(self) -> None:
        """End the worker, and look at its memory for the last time before."""
        if self._ended is None:
            self.worker.memory.poll()
            if self._conditions is None:
                self.note_conditions()
            self._stack.close()
            self._ended = self._clock()

    def run(self) -> Run:
        """What is known by now."""
        ended = self._clock() if self._ended is None else self._ended
        return Run(
            trial=self.trial,
            backend=self.backend,
            build=self._build,
            started_at=self._started_at,
            elapsed_s=ended - self._started,
            reason=self._reason,
            message=self._message,
            log_excerpt=self.worker.engine_log,
            load=self._load,
            cached_ratio=self._cached_ratio,
            peak_anon_bytes=self.worker.memory.peak_anon_bytes,
            peak_file_bytes=self.worker.memory.peak_file_bytes,
            peak_rss_bytes=self.worker.memory.peak_bytes,
            peak_pss_bytes=self.watch.peak_pss_bytes,
            peak_vram=self.watch.peak_vram,
            conditions=self._conditions or Conditions(),
            load_contamination=self._load_contamination,
            report=self._report,
            generations=self.generations,
        )
