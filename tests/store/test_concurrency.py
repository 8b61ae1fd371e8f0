"""Several processes, one store: none loses a row, none has to wait for a reader."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from autotune.domain.errors import UserError
from autotune.domain.run import Reason
from autotune.domain.stored import RunState
from autotune.domain.study import StudyState
from autotune.store.store import Store
from tests.factories import make_machine, make_run
from tests.store import examples, worker


def test_three_writers_lose_no_transaction(store: Store, file: Path) -> None:
    """900 read-then-write transactions from three processes are all counted."""
    store.record_machine(examples.MACHINE_ID, make_machine())
    start = make_machine().n_usable
    workers = [worker.start("increment", file, 300) for _ in range(3)]

    for process in workers:
        worker.go(process)
    for process in workers:
        worker.finish(process)

    with store.database.read() as session:
        assert session.scalar(text("SELECT n_usable FROM machine")) == start + 900


def test_two_first_openers_both_succeed(file: Path) -> None:
    """One makes the tables, the other finds them made."""
    workers = [worker.start("open", file) for _ in range(2)]

    for process in workers:
        worker.go(process)
    for process in workers:
        worker.finish(process)

    with Store.open(file, now=examples.epoch) as store:
        assert store.count_runs() == 0


def test_a_reader_sees_the_last_commit_while_a_write_is_open(store: Store) -> None:
    """And the new state as soon as it is committed."""
    examples.record(store)

    with store.database.write() as session:
        session.execute(text("DELETE FROM prediction"))
        session.execute(text("UPDATE load_run SET backend = 'changed'"))
        assert store.list_runs()[0].backend == examples.BACKEND

    assert store.list_runs()[0].backend == "changed"


def test_a_reader_cannot_write(store: Store) -> None:
    """The session for reading refuses, so that a report never changes what it reports."""
    with pytest.raises(UserError, match="cannot be written"), store.database.read() as session:
        session.execute(text("DELETE FROM load_run"))


def test_a_writer_killed_in_the_middle_leaves_a_whole_store(store: Store, file: Path) -> None:
    """kill -9 inside a transaction: nothing of it stays, and the next writer need not wait."""
    process = worker.start("write", file)
    worker.kill(process)

    examples.record(store)

    with store.database.read() as session:
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
        halves = text("SELECT count(*) FROM workload WHERE workload_id LIKE 'half%'")
        assert session.scalar(halves) == 0


def test_runs_of_a_dead_process_are_closed_and_others_are_not(file: Path, store: Store) -> None:
    """Killed: interrupted, which is no failure of the configuration. Alive: left alone."""
    ours = examples.begin(store)
    process = worker.start("begin", file)

    assert store.close_dead_runs() == 0
    worker.kill(process)
    assert store.close_dead_runs() == 1

    lost, running = store.list_runs()
    assert (lost.state, lost.reason) == (RunState.FAILED, Reason.INTERRUPTED)
    assert (running.run_id, running.state) == (ours, RunState.RUNNING)
    assert store.observations() == ()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells a process's birth")
def test_a_study_lives_as_long_as_its_process(store: Store, clock: examples.Clock) -> None:
    """One that was resumed may have begun long ago: it is not taken for dead, and not twice."""
    study_id = examples.start_study(store)
    store.finish_study(study_id, StudyState.STOPPED)
    clock.advance(24 * 3600)
    store.resume_study(study_id)
    store.close_dead_runs()

    assert store.load_study(study_id).state is StudyState.RUNNING
    with store.database.write() as session:
        session.execute(text("UPDATE study SET recorder_birth = 'another boot'"))
    store.close_dead_runs()
    assert store.load_study(study_id).state is StudyState.FAILED
    assert store.load_study(study_id).note == "the process that measured it went away"


def test_a_run_given_up_for_lost_may_still_report(store: Store, clock: examples.Clock) -> None:
    """A computer that slept is not a dead one: what it measured counts."""
    run_id = examples.begin(store)
    clock.advance(2 * 600 + 61)

    assert store.close_dead_runs() == 1
    assert store.load_run(run_id).run is None

    store.finish_run(run_id, make_run())
    assert store.list_runs()[0].state is RunState.COMPLETE
