"""Runners make a trial happen. :class:`LocalRunner` does it for real, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from autotune.backends.protocol import EngineError
from autotune.domain.conditions import Conditions, Contamination
from autotune.domain.machine import Build
from autotune.domain.run import EngineReport, Generation, LoadTime, Run, Trial
from autotune.measure.messages import unpack_build, unpack_load, unpack_report, unpack_sample
from autotune.measure.procedure import measure_generations
from autotune.measure.process import WorkerProcess
from autotune.measure.watch import Watch

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
    load_contamination: tuple[Contamination, ...] = ()
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
        with (
            WorkerProcess(
                self.backend,
                deadline_s=trial.timeout_s,
                memory_limit_bytes=trial.memory_limit_bytes,
                clock=self._clock,
            ) as worker,
            Watch(worker.pid, clock=self._clock) as watch,
        ):
            since = watch.start()
            try:
                self._measure(trial, worker, watch, found, notify)
            except EngineError as error:
                facts |= {"reason": error.reason, "message": str(error)}
            facts["conditions"] = watch.conditions(since)
        return Run(
            trial=trial,
            backend=self.backend,
            build=found.build,
            started_at=started_at,
            elapsed_s=self._clock() - started,
            load=found.load,
            load_contamination=found.load_contamination,
            report=found.report,
            generations=found.generations,
            log_excerpt=worker.engine_log,
            peak_anon_bytes=worker.memory.peak_anon_bytes,
            peak_file_bytes=worker.memory.peak_file_bytes,
            peak_rss_bytes=worker.memory.peak_bytes,
            peak_pss_bytes=watch.peak_pss_bytes,
            peak_vram=watch.peak_vram,
            **facts,
        )

    def _measure(
        self,
        trial: Trial,
        worker: WorkerProcess,
        watch: Watch,
        found: _Found,
        notify: Callable[[str], None],
    ) -> None:
        found.build = unpack_build(worker.ask("build")["build"])
        notify("loading")
        since = watch.start()
        config = trial.config.as_dict()
        answer = worker.ask("load", watch, path=str(trial.model_path), config=config)
        found.load = unpack_load(answer["load"])
        found.load_contamination = watch.conditions(since).contamination
        found.report = unpack_report(answer["report"])
        began = self._clock()
        earlier: list[Conditions] = []

        def take(repetition: int) -> Generation:
            notify(f"sample {repetition + 1}")
            generation = _take(trial, worker, watch, repetition, earlier=earlier)
            earlier.append(generation.conditions)
            return generation

        found.generations = measure_generations(
            take,
            n_reps=trial.n_reps,
            max_reps=trial.max_reps,
            spent_ratio=lambda: (self._clock() - began) / max(trial.sampling_s, 1e-3),
        )


def _take(
    trial: Trial,
    worker: WorkerProcess,
    watch: Watch,
    repetition: int,
    *,
    earlier: Sequence[Conditions],
) -> Generation:
    """One timed request, with what was seen of the machine meanwhile."""
    since = watch.start()
    answer = worker.ask("sample", watch, workload=trial.workload.label, seed=_SEED + repetition)
    conditions = watch.conditions(since).held_against(earlier)
    sample = unpack_sample(answer["sample"])
    return Generation(
        workload=trial.workload,
        repetition=repetition,
        prefill_ns=sample.prefill_ns,
        ttft_ns=sample.ttft_ns,
        token_ns=sample.token_ns,
        prefill_cpu_ns=sample.prefill_cpu_ns,
        decode_cpu_ns=sample.decode_cpu_ns,
        conditions=conditions,
    )
