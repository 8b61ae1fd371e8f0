"""Runners make a trial happen. :class:`LocalRunner` does it for real, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from autotune.backends.protocol import EngineError
from autotune.domain.machine import Build
from autotune.domain.run import EngineReport, Generation, LoadTime, Run, Trial
from autotune.measure.messages import unpack_build, unpack_load, unpack_report, unpack_sample
from autotune.measure.observe import ForeignCPU
from autotune.measure.procedure import measure_generations
from autotune.measure.process import WorkerProcess

_SEED = 20240229
"""Seed of the random tokens; each repetition adds its number."""


class Runner(Protocol):
    """Makes trials happen, for real or not."""

    backend: str
    """Name of the engine whose runs it makes."""

    def run(self, trial: Trial, *, notify: Callable[[str], None] = ...) -> Run:
        """Carry out one trial. A failure is a run with a reason, never an exception."""


def _silent(_what: str) -> None:
    return


@dataclass(slots=True)
class _Found:
    """What is known of a run so far; survives the engine's death."""

    build: Build | None = None
    load: LoadTime | None = None
    report: EngineReport = field(default_factory=EngineReport)
    generations: tuple[Generation, ...] = ()


class LocalRunner:
    """One fresh child process for each trial, watched from here."""

    def __init__(
        self,
        backend: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        residency: Callable[[Path], float | None] = lambda _path: None,
    ) -> None:
        self.backend = backend
        self._now, self._clock, self._residency = now, clock, residency

    def run(self, trial: Trial, *, notify: Callable[[str], None] = _silent) -> Run:
        """Load, warm up, repeat; the child is gone when this returns or raises."""
        started_at, started = self._now(), self._clock()
        facts: dict[str, Any] = {"cached_ratio": self._residency(trial.model_path)}
        found = _Found()
        with WorkerProcess(
            self.backend,
            deadline_s=trial.timeout_s,
            memory_limit_bytes=trial.memory_limit_bytes,
            clock=self._clock,
        ) as worker:
            foreign = ForeignCPU(worker.pid, self._clock)
            try:
                self._measure(trial, worker, found, notify)
            except EngineError as error:
                facts |= {"reason": error.reason, "message": str(error)}
            facts["foreign_cpu_ratio"] = foreign.ratio()
        return Run(
            trial=trial,
            backend=self.backend,
            build=found.build,
            started_at=started_at,
            elapsed_s=self._clock() - started,
            load=found.load,
            report=found.report,
            generations=found.generations,
            log_excerpt=worker.engine_log,
            peak_anon_bytes=worker.memory.peak_anon_bytes,
            peak_file_bytes=worker.memory.peak_file_bytes,
            peak_rss_bytes=worker.memory.peak_bytes,
            **facts,
        )

    def _measure(
        self, trial: Trial, worker: WorkerProcess, found: _Found, notify: Callable[[str], None]
    ) -> None:
        found.build = unpack_build(worker.ask("build")["build"])
        notify("loading")
        answer = worker.ask("load", path=str(trial.model_path), config=trial.config.as_dict())
        found.load = unpack_load(answer["load"])
        found.report = unpack_report(answer["report"])
        enough_at = self._clock() + trial.sampling_s

        def take(repetition: int) -> Generation:
            notify(f"sample {repetition + 1}")
            return _take(trial, worker, repetition)

        found.generations = measure_generations(
            take,
            n_reps=trial.n_reps,
            max_reps=trial.max_reps,
            time_left=lambda: self._clock() < enough_at,
        )


def _take(trial: Trial, worker: WorkerProcess, repetition: int) -> Generation:
    """One timed request, with the share that others took of the machine meanwhile."""
    foreign = ForeignCPU(worker.pid)
    answer = worker.ask("sample", workload=trial.workload.label, seed=_SEED + repetition)
    sample = unpack_sample(answer["sample"])
    return Generation(
        workload=trial.workload,
        repetition=repetition,
        prefill_ns=sample.prefill_ns,
        ttft_ns=sample.ttft_ns,
        token_ns=sample.token_ns,
        cpu_ns=sample.cpu_ns,
        foreign_cpu_ratio=foreign.ratio(),
    )
