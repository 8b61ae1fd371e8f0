"""A machine that drifts in the middle of a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from autotune.domain.run import Generation, Purpose, Run, Trial
from autotune.measure.simulated import SimulatedRunner
from autotune.store.store import Store
from autotune.tune.loop import Answer, tune
from tests.simulation import DEFAULT, SMALL, TRUTH, WORKLOAD, make_question

SLOW = 1.5


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store.db", now=lambda: datetime.now(UTC)) as store:
        yield store


class DriftingRunner:
    """A simulated machine that is slower from one run to another, and recovers by waiting."""

    backend = "simulated"

    def __init__(self, *, slow_from: int, waits_needed: int) -> None:
        self._inner = SimulatedRunner(SMALL, TRUTH)
        self._slow_from, self._waits_left = slow_from, waits_needed
        self.n_runs = 0
        self.waited_s: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Waiting lets the machine cool down."""
        self.waited_s.append(seconds)
        self._waits_left -= 1

    def run(self, trial: Trial, *, notify: Callable[[str], None] = lambda _what: None) -> Run:
        """A simulated run, slowed while the machine drifts."""
        self.n_runs += 1
        run = self._inner.run(trial, notify=notify)
        if self.n_runs < self._slow_from or self._waits_left <= 0:
            return run
        return dataclasses.replace(run, generations=tuple(map(_slowed, run.generations)))


def _slowed(generation: Generation) -> Generation:
    assert generation.prefill_ns is not None
    return dataclasses.replace(
        generation,
        prefill_ns=round(generation.prefill_ns * SLOW),
        token_ns=tuple(round(ns * SLOW) for ns in generation.token_ns),
        decode_ns=None,
    )


def study(store: Store, runner: DriftingRunner, **changes: object) -> Answer:
    """A study on a drifting machine that waits without losing time."""
    return tune(
        make_question(store, **changes),
        runner=runner,
        store=store,
        clock=lambda: 0.0,
        sleep=runner.sleep,
    )


def test_a_steady_machine_discards_nothing(store: Store) -> None:
    """Anchors are measured, and everything counts."""
    answer = study(store, DriftingRunner(slow_from=1000, waits_needed=0))
    runs = store.list_runs(study_id=answer.study_id, limit=None)

    assert [run.run_id for run in runs if run.discarded_at] == []
    assert sum(run.purpose is Purpose.PROBE for run in runs) >= 2


def test_trials_of_a_drifting_machine_are_taken_back(store: Store) -> None:
    """Slow from the fourth run on: the trials since the clean anchor are discarded, and after two
    waits the search goes on and ends near the best."""
    runner = DriftingRunner(slow_from=4, waits_needed=2)
    answer = study(store, runner, max_trials=14)
    runs = store.list_runs(study_id=answer.study_id, limit=None)
    truth = SimulatedRunner(SMALL, TRUTH)

    assert len([run for run in runs if run.discarded_at]) == 4
    assert runner.waited_s == [4.0, 8.0]
    assert truth.request_s(answer.winner.config, WORKLOAD) < truth.request_s(DEFAULT, WORKLOAD)


def test_discarded_runs_teach_nothing(store: Store) -> None:
    """They stay in the store, and no predictor sees them again."""
    answer = study(store, DriftingRunner(slow_from=4, waits_needed=2))
    discarded = {
        run.run_id
        for run in store.list_runs(study_id=answer.study_id, limit=None)
        if run.discarded_at
    }

    assert discarded
    assert discarded.isdisjoint(o.run_id for o in store.observations())


def test_a_machine_that_never_recovers_ends_the_search(store: Store) -> None:
    """Waiting is bounded by the study's time."""
    seconds = 0.0
    runner = DriftingRunner(slow_from=4, waits_needed=1000)

    def sleep(duration: float) -> None:
        nonlocal seconds
        seconds += duration
        runner.sleep(duration)

    answer = tune(
        make_question(store, time_limit_s=300.0),
        runner=runner,
        store=store,
        clock=lambda: seconds,
        sleep=sleep,
    )

    assert 0 < seconds <= 300
    assert answer.winner.measurement is not None
