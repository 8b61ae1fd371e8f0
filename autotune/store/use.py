"""Ordinary use: a model that an application loaded, and generates with for as long as it likes.

Its row is there from the load on, and filled as there is news. It teaches from then on, and goes on
teaching when the application is killed: what it generated, it generated.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from autotune.domain.prediction import Prediction
from autotune.domain.run import Generation, Reason, Run
from autotune.domain.stored import RunState
from autotune.store.codec import to_json
from autotune.store.recorder import Recorder
from autotune.store.run_rows import report, run_row
from autotune.store.tables import GenerationRow, LoadRunRow
from autotune.store.translate.facts import workload_row
from autotune.store.translate.history import (
    device_peak_rows,
    fill_end,
    fill_peaks,
    generation_row,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A load by an application, whether or not it succeeded."""

    run: Run
    """As it was when the load was done; its purpose is ``user``."""
    machine_id: str
    model_id: str
    prediction: Prediction | None = None
    """What was expected of it, before."""
    planned_bytes: int | None = None
    recommendation_id: int | None = None
    """The advice that was at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """One generation by an application."""

    generation: Generation
    repetition: int
    """0, 1, 2 … in the order of the run, whatever the workload."""
    ended_at: datetime
    run: Run | None = None
    """The run as it is now, if its peaks are to be refreshed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the use of a model ended: with the whole run, with a failure, or with both."""

    run: Run | None = None
    reason: Reason | None = None
    message: str = ""
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A model in use: how it was loaded, and what is new of it."""

    loaded: Loaded
    generations: tuple[Generated, ...] = ()
    ending: Ended | None = None

    @property
    def has_lessons(self) -> bool:
        """Whether it tells more than an end in good order."""
        return bool(self.generations) or bool(self.ending and self.ending.reason)


def enter_use(session: Session, use: Use, *, now: datetime, recorder: Recorder) -> LoadRunRow:
    """A new row: a load that failed, or one that is in use from now on."""
    loaded, run = use.loaded, use.loaded.run
    row = run_row(
        session,
        run.trial,
        machine_id=loaded.machine_id,
        model_id=loaded.model_id,
        backend=run.backend,
        prediction=loaded.prediction,
        planned_bytes=loaded.planned_bytes,
        recommendation_id=loaded.recommendation_id,
        now=now,
        recorder=recorder,
    )
    report(session, row, dataclasses.replace(run, generations=()))
    row.load_peak_bytes = run.peak_rss_bytes
    if run.ok:
        row.state = RunState.RUNNING
    return row


def append_generations(session: Session, row: LoadRunRow, generated: tuple[Generated, ...]) -> None:
    """Add generations to a run; one that was given up for lost is in use again."""
    if not generated:
        return
    for workload in {new.generation.workload for new in generated}:
        session.merge(workload_row(workload))
    session.flush()
    session.add_all([_generation_row(row.run_id, new) for new in generated])
    if row.reason is Reason.INTERRUPTED:
        row.state, row.reason, row.message = RunState.RUNNING, None, ""
    _note_time(row, generated[-1].ended_at)
    seen = next((new.run for new in reversed(generated) if new.run is not None), None)
    if seen is not None:
        fill_peaks(row, seen)


def end_use(session: Session, row: LoadRunRow, ending: Ended) -> None:
    """Close a run. Why it failed, once known, stays."""
    reason, message = row.reason, row.message
    if ending.run is not None:
        fill_end(row, ending.run)
        for peak in device_peak_rows(ending.run):
            peak.run_id = row.run_id
            session.merge(peak)
    else:
        _note_time(row, ending.at)
    if ending.reason is not None:
        reason, message = ending.reason, ending.message
    if reason not in (None, Reason.INTERRUPTED):
        row.reason, row.message = reason, message
    row.state = RunState.FAILED if row.reason else RunState.COMPLETE


def _note_time(row: LoadRunRow, at: datetime) -> None:
    """A run lasts at least until its last news."""
    row.elapsed_s = max(row.elapsed_s or 0.0, (at - row.started_at).total_seconds())


def _generation_row(run_id: int, new: Generated) -> GenerationRow:
    """With quantiles of the times of single tokens in place of the times."""
    row = generation_row(new.generation)
    row.run_id, row.repetition, row.ended_at = run_id, new.repetition, new.ended_at
    row.token_ns = to_json(())
    return row
