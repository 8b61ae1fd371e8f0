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
from autotune.tune.verdict import pool, speedup

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
    if n_trials == 1 and question.study.time_limit_s > study.study.time_limit_s:
        return None  # it had no time to try anything; now there is more
    runs = [record.run for record in confirmed if record.run is not None]
    answer = _answer(question, store, study, runs, n_trials=n_trials)
    if answer is not None:
        store.record_recommendation(
            answer.recommendation,
            machine_id=question.subject.machine_id,
            model_id=question.subject.model.model_id,
            study_id=study.study_id,
            speedup=answer.speedup.request if answer.speedup else None,
        )
    return answer


def stopped_trials(
    question: Question, store: Store, *, build: str | None, now: Callable[[], datetime]
) -> Trials | None:
    """The trials of a study that asked the same and was stopped, or lost its process.

    Those of another ``build``, and old ones, are no part of it any more.
    """
    store.close_dead_runs()
    study = _find(question, store)
    if study is None or study.state not in (StudyState.STOPPED, StudyState.FAILED):
        return None
    runs = [
        (record.summary.run_id, record.run)
        for record in _records(store, study)
        if record.run is not None
        and record.summary.discarded_at is None
        and build in (None, record.summary.build)
        and now() - record.run.started_at <= FRESH
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
) -> Answer | None:
    """The verdict once more, with the runs that confirmed it.

    Runs of a confirmation that was broken off may have been of another configuration.
    """
    advice = store.find_verdict(study.study_id, backend=study.study.backend)
    if advice is None:
        return None
    defaults = [run for run in runs if run.trial.config == question.study.default]
    winners = [run for run in runs if run.trial.config == advice.config]
    configs = [case.config for case in question.cases]
    if not winners or advice.config not in configs:
        return None
    best, base = pool(winners), pool(defaults) if defaults else None
    return Answer(
        study_id=study.study_id,
        default=base,
        winner=best,
        is_default=advice.config == question.study.default,
        speedup=speedup(best, base) if base else None,
        recommendation=recommend(
            current_predictor(store, question.subject.api),
            question.cases,
            target=question.study.target,
            default=question.study.default,
            available_bytes=question.available_bytes,
            limits=question.limits,
            quality=store.quality_costs(question.subject.model.model_id),
            chosen=configs.index(best.config),
        ),
        n_trials=n_trials,
        elapsed_s=0.0,
        measured_at=study.finished_at,
    )
