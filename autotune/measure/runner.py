"""Runners make a trial happen. :class:`LocalRunner` does it for real, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from autotune.backends.protocol import EngineError
from autotune.domain.conditions import Conditions
from autotune.domain.run import Generation, Run, Trial
from autotune.measure.child import ChildRun
from autotune.measure.messages import unpack_sample
from autotune.measure.procedure import measure_generations

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
        with ChildRun(
            trial, self.backend, now=self._now, clock=self._clock, residency=self._residency
        ) as child:
            try:
                child.load(notify=notify)
                child.generations = self._measure(child, notify)
            except EngineError as error:
                child.fail(error)
        return child.run()

    def _measure(self, child: ChildRun, notify: Callable[[str], None]) -> tuple[Generation, ...]:
        trial, began = child.trial, self._clock()
        earlier: list[Conditions] = []

        def take(repetition: int) -> Generation:
            notify(f"sample {repetition + 1}")
            generation = _take(child, repetition, earlier=earlier)
            earlier.append(generation.conditions)
            return generation

        return measure_generations(
            take,
            n_reps=trial.n_reps,
            max_reps=trial.max_reps,
            spent_ratio=lambda: (self._clock() - began) / max(trial.sampling_s, 1e-3),
        )


def _take(child: ChildRun, repetition: int, *, earlier: Sequence[Conditions]) -> Generation:
    """One timed request, with what was seen of the machine meanwhile."""
    workload, since = child.trial.workload, child.watch.start()
    answer = child.worker.ask(
        "sample", child.watch, workload=workload.label, seed=_SEED + repetition
    )
    conditions = child.watch.conditions(since).held_against(earlier)
    sample = unpack_sample(answer["sample"])
    return Generation(
        workload=workload,
        repetition=repetition,
        prefill_ns=sample.prefill_ns,
        ttft_ns=sample.ttft_ns,
        token_ns=sample.token_ns,
        prefill_cpu_ns=sample.prefill_cpu_ns,
        decode_cpu_ns=sample.decode_cpu_ns,
        conditions=conditions,
    )
