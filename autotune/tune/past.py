"""What earlier studies left behind: an answer that still holds, or trials to go on from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from autotune.domain.run import Purpose, Run
from autotune.domain.stored import RunRecord, StoredStudy
from autotune.domain.study import StudyState
from autotune.predict.life import current_predictor
from autotune.recommend.choose import recommend
from autotune.store.store import Store
from autotune.tune.question import Answer, Question
from autotune.tune.verdict import is_faster, pool, process_noise_sd, speedup

FRESH = timedelta(days=7)
"""An older answer is measured again."""


@dataclass(frozen=True, slots=True)
class Trials:
    """A stopped study, and what it had measured, oldest first."""

    study_id: int
    runs: tuple[tuple[int, Run], ...]
    """(run number, run)"""
    spent_s: float


def past_answer(
    question: Question, store: Store, *, build: str | None, now: Callable[[], datetime]
) -> Answer | None:
    """The answer of a complete study that asked the same, not long ago, with this build.

    ``build`` is the engine's label as runs carry it; None where nobody knows.
    """
    study = _find(question, store)
    if study is None or study.state is not StudyState.COMPLETE or study.finished_at is None:
        return None
    if now() - study.finished_at > FRESH:
        return None
    records = _records(store, study)
    confirmed = [
        record
        for record in records
        if record.trial.purpose is Purpose.CONFIRM and record.run is not None and record.run.ok
    ]
    if not confirmed or any(build not in (None, r.summary.build) for r in confirmed):
        return None
    n_trials = 1 + sum(record.trial.purpose is Purpose.EXPLORE for record in records)
    runs = [record.run for record in confirmed if record.run is not None]
    default = question.study.default
    noise_sd = process_noise_sd(
        [r.run for r in records if r.run is not None and r.trial.config == default]
    )
    return _answer(question, store, study, runs, n_trials=n_trials, noise_sd=noise_sd)


def stopped_trials(question: Question, store: Store) -> Trials | None:
    """The trials of a study that asked the same and was stopped, or lost its process."""
    store.close_dead_runs()
    study = _find(question, store)
    if study is None or study.state not in (StudyState.STOPPED, StudyState.FAILED):
        return None
    runs = [
        (record.summary.run_id, record.run)
        for record in _records(store, study)
        if record.run is not None
        and record.summary.discarded_at is None
        and (record.run.reason is None or record.run.reason.is_label)
        and record.trial.purpose in (Purpose.PROBE, Purpose.EXPLORE)
    ]
    if not runs:
        return None
    return Trials(study.study_id, tuple(runs), sum(run.elapsed_s for _, run in runs))


def _find(question: Question, store: Store) -> StoredStudy | None:
    return store.find_study(
        question.study,
        machine_id=question.subject.machine_id,
        model_id=question.subject.model.model_id,
    )


def _records(store: Store, study: StoredStudy) -> list[RunRecord]:
    """Oldest first."""
    runs = store.list_runs(study_id=study.study_id, limit=None)
    return [store.load_run(run.run_id) for run in sorted(runs, key=lambda run: run.run_id)]


def _answer(
    question: Question,
    store: Store,
    study: StoredStudy,
    runs: Sequence[Run],
    *,
    n_trials: int,
    noise_sd: float,
) -> Answer | None:
    """The verdict once more, from the same confirmation."""
    default = question.study.default
    defaults = [run for run in runs if run.trial.config == default]
    winners = [run for run in runs if run.trial.config != default]
    if not defaults or len(winners) > len(defaults):
        return None
    # A winner that failed in its confirmation has proven nothing.
    whole = len(winners) == len(defaults)
    proven = whole and is_faster(winners, defaults, noise_sd=noise_sd)
    best, base = pool(winners if proven else defaults), pool(defaults)
    configs = [case.config for case in question.cases]
    return Answer(
        study_id=study.study_id,
        default=base,
        winner=best,
        is_default=not proven,
        speedup=speedup(best, base),
        recommendation=recommend(
            current_predictor(store, question.subject.api),
            question.cases,
            target=question.study.target,
            default=default,
            available_bytes=question.available_bytes,
            limits=question.limits,
            quality=store.quality_costs(question.subject.model.model_id),
            chosen=configs.index(best.config),
        ),
        n_trials=n_trials,
        elapsed_s=0.0,
        measured_at=study.finished_at,
    )
