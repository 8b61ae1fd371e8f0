"""What the store gives back: a run, a study, with the names and states it is kept under."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from autotune.domain.config import Config
from autotune.domain.prediction import Prediction, Target
from autotune.domain.run import Purpose, Reason, Run, Trial
from autotune.domain.study import Study, StudyState
from autotune.domain.workload import Workload


class RunState(enum.StrEnum):
    """How far a run got."""

    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """One line in a table of runs. Rates are medians over its generations.

    Of ordinary use they are those of its commonest workload, whose counts are powers of two.
    """

    run_id: int
    study_id: int | None
    machine_id: str
    model_id: str
    model_name: str
    backend: str
    build: str
    """Version and commit of the engine, as one word; empty where it died before it could say."""
    config: Config
    workload: Workload
    purpose: Purpose
    state: RunState
    started_at: datetime
    reason: Reason | None = None
    message: str = ""
    elapsed_s: float | None = None
    load_s: float | None = None
    peak_rss_bytes: int | None = None
    """Highest resident memory of the process."""
    peak_vram_bytes: int | None = None
    prefill_tps: float | None = None
    decode_tps: float | None = None
    ttft_s: float | None = None
    n_reps: int = 0
    """Generations kept."""
    discarded_at: datetime | None = None
    """When the run was taken back, because the machine had drifted; None for a run that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything that is stored of one run."""

    summary: StoredRun
    trial: Trial
    run: Run | None
    """None for a run that has not reported: still running, or its recorder went away."""
    prediction: Prediction | None
    """What was expected, written before the run."""
    planned_bytes: int | None
    source: str
    """``local``, or who measured an imported run."""
    measure_version: int

    @property
    def is_imported(self) -> bool:
        """Whether somebody else measured it: there is no file, and much is not known."""
        return self.summary.purpose is Purpose.IMPORT


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStudy:
    """A study and how far it got."""

    study_id: int
    study: Study
    machine_id: str
    model_id: str
    model_name: str
    state: StudyState
    note: str
    started_at: datetime
    finished_at: datetime | None
    n_runs: int
    n_failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecommendation:
    """What was advised for a model on a machine."""

    recommendation_id: int
    study_id: int | None
    """The study that it is the answer of; None for a recommendation without one."""
    backend: str
    config: Config
    target: Target
    workload: Workload
    confidence: float
    reasons: tuple[str, ...]
    speedup: float | None
    """Measured request time of the default over that of the advice; None where it does not run."""
    made_at: datetime

    @property
    def is_measured(self) -> bool:
        """Whether it is what a study measured and ended with."""
        return self.study_id is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPredictor:
    """One fit of the predictor."""

    predictor_id: int
    fingerprint: str
    """Of the rows that it learned from."""
    n_runs: int
    promoted: bool
    reason: str
    fitted_at: datetime
    state: bytes | None
    """None once a later fit took its place."""
