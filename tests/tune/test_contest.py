"""Contests between simulated backends, recorded in a real store."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autotune.domain.conditions import Conditions
from autotune.domain.errors import NothingFitsError
from autotune.domain.limits import Limits
from autotune.domain.prediction import Target
from autotune.domain.run import Purpose, Reason, Run, Trial
from autotune.measure.runner import Runner
from autotune.measure.simulated import SimulatedMachine, SimulatedRunner
from autotune.store.store import Store
from autotune.tune.backends import Contender, choose_backend
from autotune.tune.contest import ContestAnswer, contest
from autotune.tune.question import Question
from autotune.tune.race import Champion, race
from autotune.tune.verdict import pool
from tests.factories import make_trial
from tests.simulation import SMALL, TRUTH, make_question

FAST, SLOW, STRANGE = "fast", "slow", "strange"
HALF = dataclasses.replace(TRUTH, read_bytes_per_s=10e9, flops_per_s=25e9)
"""A machine on which everything takes twice as long: what a slower engine reaches."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store.db", now=lambda: datetime.now(UTC)) as store:
        yield store


class Refusing:
    """A backend that does not know the model."""

    def __init__(self) -> None:
        self.backend, self.n_runs = STRANGE, 0

    def run(self, trial: Trial, *, notify: Callable[[str], None] = lambda _what: None) -> Run:
        """A failure."""
        self.n_runs += 1
        run = SimulatedRunner(SMALL, TRUTH, backend=STRANGE).run(trial)
        return dataclasses.replace(
            run, reason=Reason.UNSUPPORTED, message="unknown architecture", generations=(),
            load=None, build=None,
        )  # fmt: skip


def runners(**machines: SimulatedMachine) -> dict[str, Runner]:
    """A simulated runner for each backend."""
    made: dict[str, Runner] = {
        name: SimulatedRunner(SMALL, machine, backend=name, seed=seed)
        for seed, (name, machine) in enumerate(machines.items())
    }
    return made | {STRANGE: Refusing()}


def contender(store: Store, backend: str) -> Contender:
    """An installed backend with the small model's candidates."""
    question = make_question(store, max_trials=5, n_cases=60)
    study = dataclasses.replace(question.study, backend=backend)
    cases = tuple(dataclasses.replace(case, backend=backend) for case in question.cases)
    question = dataclasses.replace(question, study=study, cases=cases)
    return Contender(name=backend, build="1", question=question)


def hold(store: Store, by: dict[str, Runner], *names: str, **how: Any) -> ContestAnswer:
    """A contest of these backends."""
    return contest(
        [contender(store, name) for name in names],
        runner_of=by.__getitem__,
        store=store,
        # Simulated runs bear a fixed date.
        now=lambda: datetime(2026, 1, 1, 1, tzinfo=UTC),
        target=Target.BALANCED,
        time_limit_s=600.0,
        sleep=lambda _seconds: None,
        **how,
    )


def test_every_backend_is_met_once_and_the_best_is_tuned(store: Store) -> None:
    """One run of the slower one's default; the study is the faster one's."""
    answer = hold(store, runners(fast=TRUTH, slow=HALF), SLOW, FAST)
    runs = store.list_runs(limit=None)

    assert answer.recommendation.backend == answer.ranking[0].name == FAST
    assert [run.purpose for run in runs if run.backend == SLOW] == [Purpose.PROBE]
    assert {c.name for c in answer.contacts if c.default is not None} == {FAST, SLOW}
    assert store.load_study(answer.study.study_id).study.backend == FAST
    assert answer.winner.n_runs >= 2


def test_a_backend_that_fails_costs_one_run_and_is_remembered(store: Store) -> None:
    """Unsupported once; the next contest does not ask again, unless it is to start afresh."""
    by = runners(fast=TRUTH)
    first = hold(store, by, STRANGE, FAST)
    strange = by[STRANGE]
    assert isinstance(strange, Refusing)

    assert first.recommendation.backend == FAST
    assert (first.contacts[0].name, first.contacts[0].default) == (STRANGE, None)
    assert first.contacts[0].problem == "unsupported: unknown architecture"
    again = hold(store, by, STRANGE, FAST)
    assert strange.n_runs == 1
    assert "unknown architecture" in again.contacts[0].problem
    hold(store, by, STRANGE, FAST, fresh=True)
    assert strange.n_runs == 2


def test_a_refusal_of_all_is_asked_about_again_afresh(store: Store) -> None:
    """What is remembered ends a contest without a run, unless it is to start afresh."""
    by = runners()
    strange = by[STRANGE]
    assert isinstance(strange, Refusing)
    for fresh, n_runs in ((False, 1), (False, 1), (True, 2)):
        with pytest.raises(NothingFitsError, match="unknown architecture"):
            hold(store, by, STRANGE, fresh=fresh)
        assert strange.n_runs == n_runs


class Disturbed:
    """A backend whose first run something else on the machine spoils."""

    def __init__(self) -> None:
        self.backend, self.n_runs = SLOW, 0
        self._inner = SimulatedRunner(SMALL, TRUTH, backend=SLOW)

    def run(self, trial: Trial, *, notify: Callable[[str], None] = lambda _what: None) -> Run:
        """Ten times slower at first, and it shows."""
        self.n_runs += 1
        run = self._inner.run(trial)
        if self.n_runs > 1:
            return run
        busy = Conditions(foreign_cpu_ratio=0.5)
        spoiled = tuple(
            dataclasses.replace(
                g, prefill_ns=10 * (g.prefill_ns or 0), decode_ns=10 * (g.decode_ns or 0),
                token_ns=(), conditions=busy,
            )
            for g in run.generations
        )  # fmt: skip
        return dataclasses.replace(run, generations=spoiled, conditions=busy)


@pytest.mark.parametrize(("then_s", "is_raced"), [(350.0, True), (599.0, False)])
def test_first_contacts_leave_time_for_the_study(
    store: Store, then_s: float, is_raced: bool
) -> None:
    """On a slow day the first usable backend takes more than half of it; no other is met then.

    It may still be raced, where there is time; otherwise it is told that there was none.
    """
    said: list[str] = []

    def clock() -> float:
        return then_s if any(run.backend == FAST for run in store.list_runs()) else 0.0

    by = runners(fast=HALF, slow=HALF)
    answer = hold(store, by, FAST, SLOW, clock=clock, say=said.append)
    fast, slow = answer.contacts

    assert fast.default is not None
    assert slow.default is None
    assert "first contact: slow" not in said
    assert (slow.best is not None) is is_raced
    assert ("the time ran out: raise --time-limit" in slow.problem) is not is_raced


def test_the_most_promising_backend_is_met_first(store: Store) -> None:
    """By what is known of them, whatever the order they are offered in."""
    hold(store, runners(fast=TRUTH, slow=HALF), SLOW, FAST)
    said: list[str] = []
    hold(store, runners(fast=TRUTH, slow=HALF), SLOW, FAST, fresh=True, say=said.append)

    assert said[:2] == ["first contact: fast", "first contact: slow"]


def test_a_spoiled_first_contact_is_repeated(store: Store) -> None:
    """A neighbour that wakes at the wrong time does not decide between backends."""
    by = runners(fast=HALF) | {SLOW: Disturbed()}
    answer = hold(store, by, FAST, SLOW)

    assert answer.recommendation.backend == SLOW
    probes = [run for run in store.list_runs(limit=None) if run.purpose is Purpose.PROBE]
    assert sum(run.backend == SLOW for run in probes) >= 2


def test_backends_within_the_noise_run_by_turns(store: Store) -> None:
    """Two that are alike are raced in the end: pairs of fresh runs, interleaved."""
    answer = hold(store, runners(fast=TRUTH, slow=TRUTH), FAST, SLOW)
    newest = store.list_runs(limit=4)

    assert {run.purpose for run in newest} == {Purpose.CONFIRM}
    assert [run.backend for run in newest] in ([FAST, SLOW] * 2, [SLOW, FAST] * 2)
    assert any("by turns" in reason for reason in answer.recommendation.reasons)
    assert all(contact.best is not None for contact in answer.contacts)


def test_a_rival_that_breaks_a_limit_has_lost(store: Store) -> None:
    """However fast: what it took was seen in the race."""
    ours, theirs = (contender(store, name).question for name in (SLOW, FAST))
    assert ours is not None
    assert theirs is not None
    limits = Limits(memory_bytes=1)
    theirs = dataclasses.replace(theirs, limits=limits)
    by = runners(fast=TRUTH, slow=HALF)

    def run(question: Question, index: int) -> Run:
        case = question.cases[index]
        trial = make_trial(config=case.config, workload=case.workload)
        return by[question.study.backend].run(trial)

    measured = pool([run(ours, 0)])
    champion = Champion(question=ours, index=0, measured=measured)
    result = race(champion, (theirs, 0), run=run, left_s=lambda: 600.0)

    assert result.winner.name == SLOW
    assert f"{SLOW}: keeps {limits}, beside {FAST}" in result.told


def test_what_won_the_race_is_what_is_advised(store: Store) -> None:
    """The store's advice, which export reads, names the same backend and configuration."""
    answer = hold(store, runners(fast=TRUTH, slow=TRUTH), FAST, SLOW)
    advice = store.find_recommendation(machine_id="m", model_id=SMALL.model_id)

    assert advice is not None
    assert (advice.backend, advice.config) == (answer.recommendation.backend, answer.winner.config)
    assert answer.recommendation.backend == answer.ranking[0].name


def test_nothing_to_use_is_one_line(store: Store) -> None:
    """Neither installed nor known: the reasons, and no study."""
    missing = Contender(name="llamafile", problem="put it on PATH")
    with pytest.raises(NothingFitsError, match="llamafile: put it on PATH; strange: does not know"):
        contest(
            [missing, contender(store, STRANGE)],
            runner_of=runners().__getitem__,
            store=store,
            now=lambda: datetime.now(UTC),
            target=Target.BALANCED,
            time_limit_s=60.0,
        )

    assert store.list_studies() == ()


def test_choosing_without_running_needs_no_runner(store: Store) -> None:
    """After a contest the store alone gives the same answer."""
    answer = hold(store, runners(fast=TRUTH, slow=HALF), SLOW, FAST)
    contenders = [contender(store, name) for name in (SLOW, FAST)]
    selection = choose_backend(contenders, store, target=Target.BALANCED)

    assert selection.chosen.backend == answer.recommendation.backend
