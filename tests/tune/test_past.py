"""A study is gone on with after it was stopped, and answered at once when it was finished."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from autotune.domain.limits import Limits
from autotune.domain.run import Purpose, Run, Trial
from autotune.domain.study import StudyState
from autotune.measure.simulated import SimulatedMachine, SimulatedRunner
from autotune.store.store import Store
from autotune.tune.loop import tune
from autotune.tune.past import FRESH, past_answer, stopped_trials
from autotune.tune.question import Question
from tests.simulation import SMALL, TRUTH, make_question


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store.db", now=lambda: datetime.now(UTC)) as store:
        yield store


def no_sleep(_seconds: float) -> None:
    """Simulated machines recover at once."""


def now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


def simulated_now() -> datetime:
    """The moment of simulated runs, which bear a fixed date."""
    return datetime(2026, 1, 1, 1, tzinfo=UTC)


class Stopped:
    """A runner that is stopped by the user after so many trials."""

    backend = "simulated"

    def __init__(self, n_trials: int) -> None:
        self._inner, self._left = SimulatedRunner(SMALL, TRUTH), n_trials

    def run(self, trial: Trial, *, notify: Callable[[str], None] = lambda _what: None) -> Run:
        """One trial, or Ctrl-C."""
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        return self._inner.run(trial, notify=notify)


def stop_after(store: Store, n_trials: int) -> Question:
    """A study that was stopped."""
    question = make_question(store)
    with pytest.raises(KeyboardInterrupt):
        tune(question, runner=Stopped(n_trials), store=store, sleep=no_sleep)
    return question


def test_a_stopped_study_goes_on_where_it_was(store: Store) -> None:
    """The same study, no configuration tried twice, and the default only as an anchor."""
    question = stop_after(store, 4)
    past = stopped_trials(question, store, build=None, now=simulated_now)
    assert past is not None
    answer = tune(
        question, runner=SimulatedRunner(SMALL, TRUTH), store=store, sleep=no_sleep, past=past
    )
    runs = store.list_runs(study_id=answer.study_id, limit=None)
    tried = [run.config for run in runs if run.purpose is Purpose.EXPLORE and run.reason is None]

    assert answer.n_resumed == len(past.runs) >= 3
    assert [study.study_id for study in store.list_studies()] == [answer.study_id]
    assert store.load_study(answer.study_id).state is StudyState.COMPLETE
    assert len(tried) == len(set(tried))
    assert answer.n_trials <= question.study.max_trials


def test_a_study_that_had_no_time_is_no_answer_to_one_that_has(store: Store) -> None:
    """Only the default was run; asked again in a hurry that is the answer all the same."""
    hurried = make_question(store, time_limit_s=1.0)
    runner = SimulatedRunner(SMALL, TRUTH)
    answer = tune(
        hurried, runner=runner, store=store, clock=lambda: runner.elapsed_s, sleep=no_sleep
    )
    patient = make_question(store)

    assert (answer.is_default, answer.n_trials) == (True, 1)
    assert past_answer(hurried, store, build=None, now=now) is not None
    assert past_answer(patient, store, build=None, now=now) is None


def test_trials_of_another_machine_state_are_taken_back(store: Store) -> None:
    """The anchor is twice as slow as before: the search begins anew, and says what it dropped."""
    question = stop_after(store, 4)
    past = stopped_trials(question, store, build=None, now=simulated_now)
    slow = SimulatedMachine(
        read_bytes_per_s=TRUTH.read_bytes_per_s / 2, flops_per_s=TRUTH.flops_per_s / 2
    )
    answer = tune(
        question, runner=SimulatedRunner(SMALL, slow), store=store, sleep=no_sleep, past=past
    )
    runs = store.list_runs(study_id=answer.study_id, limit=None)

    assert any(run.discarded_at is not None for run in runs)
    assert not answer.is_default, "how fast the default was is no noise of the new machine"
    assert answer.default is not None
    assert answer.default.measurement.request_s.median > 1.5 * min(
        run.measurement.request_s.median
        for _, run in (past.runs if past else ())
        if run.measurement
    )


def test_a_finished_study_answers_at_once(store: Store) -> None:
    """The same verdict from the same runs, and when they were made."""
    question = make_question(store)
    first = tune(question, runner=SimulatedRunner(SMALL, TRUTH), store=store, sleep=no_sleep)
    n_runs = store.count_runs()
    again = past_answer(question, store, build=None, now=now)

    assert again is not None
    assert again.measured_at is not None
    assert (again.winner, again.default, again.speedup) == (
        first.winner,
        first.default,
        first.speedup,
    )
    assert again.n_trials == first.n_trials
    assert again.recommendation.config == first.winner.config
    assert store.count_runs() == n_runs
    assert stopped_trials(question, store, build=None, now=simulated_now) is None


@pytest.mark.parametrize("change", ["limits", "cases", "age", "build"])
def test_another_question_is_not_answered_from_the_past(store: Store, change: str) -> None:
    """Other limits or candidates, another build of the engine, or too long ago."""
    question = make_question(store)
    tune(question, runner=SimulatedRunner(SMALL, TRUTH), store=store, sleep=no_sleep)
    build, clock = None, now
    if change == "limits":
        question = make_question(store, limits=Limits(ttft_s=100.0))
    elif change == "cases":
        question = make_question(store, n_cases=20)
    elif change == "age":
        clock = lambda: now() + FRESH + timedelta(minutes=1)  # noqa: E731
    else:
        build = "another 1.0"

    assert past_answer(question, store, build=build, now=clock) is None
    assert dataclasses.is_dataclass(question)


def test_the_answer_is_the_studys_whatever_was_broken_off_before(
    store: Store, tmp_path: Path
) -> None:
    """Ctrl-C in the middle of a confirmation leaves runs of it behind."""
    with Store.open(tmp_path / "whole.db", now=now) as other:
        whole = tune(
            make_question(other), runner=SimulatedRunner(SMALL, TRUTH), store=other, sleep=no_sleep
        )
        n_runs = other.count_runs()
    assert not whole.is_default
    question = stop_after(store, n_runs - 3)
    past = stopped_trials(question, store, build=None, now=simulated_now)
    answer = tune(
        question, runner=SimulatedRunner(SMALL, TRUTH), store=store, sleep=no_sleep, past=past
    )
    again = past_answer(question, store, build=None, now=now)

    assert again is not None
    assert (again.is_default, again.winner) == (answer.is_default, answer.winner)


def test_an_answer_from_the_past_is_the_newest_advice(store: Store) -> None:
    """Whatever another question was answered with meanwhile: export writes what was shown."""
    question = make_question(store)
    answer = tune(question, runner=SimulatedRunner(SMALL, TRUTH), store=store, sleep=no_sleep)
    other = dataclasses.replace(question.study, question_id="another")
    where = {"machine_id": "m", "model_id": SMALL.model_id}
    config = answer.winner.config.replace(n_ubatch=64)
    advice = dataclasses.replace(
        answer.recommendation,
        prediction=dataclasses.replace(answer.recommendation.prediction, config=config),
    )
    study_id = store.start_study(other, **where)
    store.record_recommendation(advice, **where, study_id=study_id, speedup=2.0)
    assert past_answer(question, store, build=None, now=now) is not None
    found = store.find_recommendation(**where)

    assert found is not None
    assert (found.study_id, found.config) == (answer.study_id, answer.winner.config)


@pytest.mark.parametrize("change", ["build", "age"])
def test_trials_of_another_build_or_of_long_ago_are_not_gone_on_with(
    store: Store, change: str
) -> None:
    """They would stand beside new ones as if nothing had happened."""
    question = stop_after(store, 4)
    later = lambda: datetime(2027, 1, 1, tzinfo=UTC)  # noqa: E731
    build, clock = ("another 1.0", simulated_now) if change == "build" else (None, later)

    assert stopped_trials(question, store, build=build, now=clock) is None


def test_what_cannot_be_gone_on_with_costs_no_time(store: Store) -> None:
    """The default never ran: the study begins anew, with all of its time."""
    question = stop_after(store, 4)
    past = stopped_trials(question, store, build=None, now=simulated_now)
    assert past is not None
    others = tuple((i, run) for i, run in past.runs if run.trial.config != question.study.default)
    spent = dataclasses.replace(past, runs=others, spent_s=10 * question.study.time_limit_s)
    answer = tune(
        question, runner=SimulatedRunner(SMALL, TRUTH), store=store, sleep=no_sleep, past=spent
    )

    assert answer.n_trials > 2
    assert answer.n_resumed == 0
