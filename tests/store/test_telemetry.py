"""Loads and generations of an application become rows, and never stand in its way."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest
from sqlalchemy import event, text

from autotune.domain.conditions import Conditions
from autotune.domain.run import Purpose, Reason
from autotune.domain.stored import RunState
from autotune.domain.workload import Workload
from autotune.store.store import Store
from autotune.store.telemetry import Telemetry
from autotune.store.usage import discard_usages, read_usages
from tests.store import examples, worker
from tests.store.uses import QUICK_S, answer, load, use_run


def test_a_model_in_use_is_a_row_from_its_load_on(store: Store, telemetry: Telemetry) -> None:
    """Running, with its load time, its memory and what was expected, before it generated."""
    load(telemetry, prediction=examples.make_prediction(), planned_bytes=123)
    assert telemetry.flush()

    (stored,) = store.list_runs()
    record = store.load_run(stored.run_id)
    assert (stored.purpose, stored.state) == (Purpose.USER, RunState.RUNNING)
    assert stored.load_s == pytest.approx(0.25)
    assert (record.prediction, record.planned_bytes) == (examples.make_prediction(), 123)
    (observation,) = store.observations()
    assert (observation.load, observation.decode_tps) == (use_run().load, None)
    assert observation.peak_rss_bytes is None, "how much it takes is known when it was used"


def test_generations_are_rows_as_they_come(
    store: Store, telemetry: Telemetry, clock: examples.Clock
) -> None:
    """With their exact sizes and times, without those of single tokens; they teach at once."""
    ticket = load(telemetry)
    clock.advance(5)
    telemetry.generated(ticket, answer(20))
    clock.advance(5)
    telemetry.generated(ticket, answer(23))
    assert telemetry.flush()

    assert ticket.run_id is not None
    record = store.load_run(ticket.run_id)
    assert record.run is not None
    first, second = record.run.generations
    assert (first.n_gen, second.n_gen) == (20, 23)
    assert (first.repetition, second.repetition) == (0, 1)
    assert (first.token_ns, first.decode_ns) == ((), 200_000_000)
    assert record.run.elapsed_s == 10
    with store.database.read() as session:
        rows = session.execute(text("SELECT itl_p50_s, ended_at FROM generation_run")).all()
    assert [gap for gap, _ in rows] == [0.01, 0.01]
    assert [at[11:19] for _, at in rows] == ["12:00:05", "12:00:10"]
    rates = {seen.workload: seen.decode_tps for seen in store.observations()}
    assert rates == {
        Workload(n_prompt=64, n_gen=16): pytest.approx(100),
        Workload(n_prompt=64, n_gen=32): pytest.approx(100),
    }


def test_no_prompt_reaches_the_store(file: Path, store: Store, telemetry: Telemetry) -> None:
    """Nothing that is handed over has a field for it: numbers, and the engine's own words."""
    ticket = load(telemetry)
    telemetry.generated(ticket, answer())
    assert telemetry.flush()

    with store.database.read() as session:
        columns = session.execute(text("SELECT * FROM generation_run")).mappings().one()
    words = {name for name, value in columns.items() if isinstance(value, str)}
    assert words <= {"workload_id", "token_ns", "throttle", "contamination", "ended_at"}


def test_the_end_has_the_final_peaks(store: Store, telemetry: Telemetry) -> None:
    """Memory at the load stays beside the highest of the whole run."""
    ticket = load(telemetry, use_run(peak_rss_bytes=50_000_000))
    telemetry.generated(ticket, answer())
    telemetry.unloaded(ticket, use_run(peak_rss_bytes=99_000_000, elapsed_s=60.0))
    assert telemetry.flush()

    (stored,) = store.list_runs()
    assert (stored.state, stored.elapsed_s) == (RunState.COMPLETE, 60.0)
    assert stored.n_reps == 1, "its generations stay"
    with store.database.read() as session:
        peaks = session.execute(text("SELECT load_peak_bytes, peak_rss_bytes FROM load_run"))
        assert tuple(peaks.one()) == (50_000_000, 99_000_000)
    (observation,) = store.observations()
    assert observation.peak_rss_bytes == 99_000_000


def test_peaks_are_refreshed_with_a_generation(store: Store, telemetry: Telemetry) -> None:
    """If the run comes with it; the last one counts."""
    ticket = load(telemetry, use_run(peak_rss_bytes=50_000_000))
    telemetry.generated(ticket, answer(), run=use_run(peak_rss_bytes=70_000_000))
    telemetry.generated(ticket, answer())
    assert telemetry.flush()

    (stored,) = store.list_runs()
    assert (stored.state, stored.peak_rss_bytes) == (RunState.RUNNING, 70_000_000)


def test_a_load_that_failed_is_a_row_with_its_reason(store: Store, telemetry: Telemetry) -> None:
    """And a lesson, as every failure."""
    load(telemetry, use_run(reason=Reason.OOM, message="out of memory", load=None, build=None))
    assert telemetry.flush()

    (stored,) = store.list_runs()
    assert (stored.state, stored.reason) == (RunState.FAILED, Reason.OOM)
    (observation,) = store.observations()
    assert observation.reason is Reason.OOM


@pytest.mark.parametrize("at_once", [True, False])
def test_an_engine_that_died_has_failed_also_when_it_is_let_go(
    store: Store, telemetry: Telemetry, at_once: bool
) -> None:
    """The manager reports the death, then the end: the reason stays, the peaks are the last."""
    ticket = load(telemetry)
    telemetry.generated(ticket, answer())
    telemetry.failed(ticket, Reason.CRASH, "the engine died")
    if not at_once:
        telemetry.flush()
    telemetry.unloaded(ticket, use_run(peak_rss_bytes=123))
    assert telemetry.flush()

    (stored,) = store.list_runs()
    assert (stored.state, stored.reason) == (RunState.FAILED, Reason.CRASH)
    assert (stored.message, stored.peak_rss_bytes) == ("the engine died", 123)
    (observation,) = store.observations()
    assert observation.reason is Reason.CRASH


def test_what_is_queued_is_written_together(store: Store, clock: examples.Clock) -> None:
    """A hundred generations: a handful of transactions, not a hundred."""
    commits: list[int] = []
    event.listen(store.database.writer, "commit", lambda _: commits.append(1))
    with Telemetry(store, now=clock, linger_s=5.0) as telemetry:
        ticket = load(telemetry)
        for _ in range(100):
            telemetry.generated(ticket, answer())
        assert telemetry.flush()

    assert len(commits) <= 3
    assert store.list_runs()[0].n_reps == 100


def test_what_is_queued_is_written_at_the_end(store: Store, clock: examples.Clock) -> None:
    """Closing waits for it; what comes later is counted, and asked for nothing."""
    telemetry = Telemetry(store, now=clock, linger_s=60.0)
    ticket = load(telemetry)
    telemetry.generated(ticket, answer())
    telemetry.close()
    telemetry.close()

    assert store.list_runs()[0].n_reps == 1
    assert telemetry.dropped == 0
    telemetry.generated(ticket, answer())
    load(telemetry)
    assert telemetry.dropped == 2
    assert not telemetry.flush()
    assert "autotune-telemetry" not in {thread.name for thread in threading.enumerate()}


def test_a_program_that_ends_writes_what_it_queued(file: Path, store: Store) -> None:
    """Without a word: the interpreter's exit is enough."""
    process = worker.start("use", file, 3)
    worker.go(process)
    worker.finish(process)

    (stored,) = store.list_runs()
    assert (stored.n_reps, stored.state) == (3, RunState.RUNNING)


def test_a_killed_program_leaves_a_run_that_teaches(file: Path, store: Store) -> None:
    """It is closed as interrupted: the application's end, no failure of the configuration."""
    process = worker.start("use_on", file, 3)
    worker.go(process)
    worker.expect(process, "written")
    assert store.close_dead_runs() == 0
    worker.kill(process)

    assert store.close_dead_runs() == 1
    (stored,) = store.list_runs()
    assert (stored.state, stored.reason) == (RunState.FAILED, Reason.INTERRUPTED)
    (observation,) = store.observations()
    assert (observation.reason, observation.decode_tps) == (None, pytest.approx(100))


def test_a_model_may_idle_for_days(
    store: Store, telemetry: Telemetry, clock: examples.Clock
) -> None:
    """As long as its process lives, its run is open; measured runs have a time limit."""
    load(telemetry)
    assert telemetry.flush()
    clock.advance(7 * 86400)

    assert store.close_dead_runs() == 0


def test_a_run_given_up_for_lost_goes_on(store: Store, telemetry: Telemetry) -> None:
    """Somebody took it for dead: the next generation tells otherwise."""
    ticket = load(telemetry)
    assert telemetry.flush()
    with store.database.write() as session:
        session.execute(text("UPDATE load_run SET state = 'failed', reason = 'interrupted'"))

    telemetry.generated(ticket, answer())
    assert telemetry.flush()

    (stored,) = store.list_runs()
    assert (stored.state, stored.reason, stored.n_reps) == (RunState.RUNNING, None, 1)


def test_a_model_in_use_teaches_again_after_clearing(
    store: Store, telemetry: Telemetry, clock: examples.Clock
) -> None:
    """What it generated before stays taken back; the rest is another run, of the same load."""
    ticket = load(telemetry, prediction=examples.make_prediction())
    telemetry.generated(ticket, answer())
    assert telemetry.flush()
    cleared = ticket.run_id
    clock.advance(5)
    assert discard_usages(store.database, None, now=clock()) == 1
    assert store.observations() == ()
    for _ in range(2):
        clock.advance(5)
        telemetry.generated(ticket, answer(token_ns=(20_000_000,) * 20))
        assert telemetry.flush()

    (observation,) = store.observations()
    assert observation.decode_tps == pytest.approx(50)
    assert observation.load == use_run().load
    assert store.kpis().decode_tps.n == 2
    (usage,) = read_usages(store.database)
    assert ticket.run_id == usage.run_id != cleared
    telemetry.unloaded(ticket, use_run())
    assert telemetry.flush()
    runs = {run.run_id: (run.state, run.n_reps) for run in store.list_runs()}
    assert runs == {cleared: (RunState.COMPLETE, 1), ticket.run_id: (RunState.COMPLETE, 2)}


@pytest.mark.parametrize("dies", [True, False])
def test_after_clearing_a_death_is_a_lesson_and_an_end_in_good_order_is_none(
    store: Store, telemetry: Telemetry, clock: examples.Clock, dies: bool
) -> None:
    """Of a model that generates nothing any more."""
    ticket = load(telemetry)
    telemetry.generated(ticket, answer())
    assert telemetry.flush()
    discard_usages(store.database, None, now=clock())
    if dies:
        telemetry.failed(ticket, Reason.CRASH, "the engine died")
    telemetry.unloaded(ticket, use_run())
    assert telemetry.flush()

    assert [seen.reason for seen in store.observations()] == [Reason.CRASH] * dies
    assert RunState.RUNNING not in {run.state for run in store.list_runs()}


def test_two_processes_use_one_store(file: Path, store: Store) -> None:
    """Each with a thread of its own: no generation is lost."""
    workers = [worker.start("use", file, 200) for _ in range(2)]
    for process in workers:
        worker.go(process)
    for process in workers:
        worker.finish(process)

    assert [stored.n_reps for stored in store.list_runs()] == [200, 200]


def test_two_managers_in_one_process_use_one_store(
    store: Store, telemetry: Telemetry, clock: examples.Clock
) -> None:
    """Two writers on the same store object do not mix their runs."""
    with Telemetry(store, now=clock, linger_s=QUICK_S) as other:
        ours, theirs = load(telemetry), load(other)
        for _ in range(50):
            telemetry.generated(ours, answer())
            other.generated(theirs, answer())
        assert telemetry.flush()
        assert other.flush()

    assert [stored.n_reps for stored in store.list_runs()] == [50, 50]
    assert ours.run_id != theirs.run_id


def test_logging_is_silent_unless_asked_for() -> None:
    """The logger is below ``autotune``, where applications turn it up."""
    assert logging.getLogger("autotune.store.telemetry").parent is not None
    assert not logging.getLogger("autotune.store.telemetry").handlers


def test_contaminated_generations_weigh_less_than_clean_ones(
    store: Store, telemetry: Telemetry
) -> None:
    """Rates of the clean ones; where there is none, of all, and marked."""
    busy = Conditions(foreign_cpu_ratio=0.5)
    ticket = load(telemetry)
    telemetry.generated(ticket, answer(conditions=busy, token_ns=(50_000_000,) * 20))
    assert telemetry.flush()
    (dirty,) = store.observations()
    telemetry.generated(ticket, answer())
    assert telemetry.flush()
    (clean,) = store.observations()

    assert (dirty.decode_tps, dirty.contaminated) == (pytest.approx(20), True)
    assert (clean.decode_tps, clean.contaminated) == (pytest.approx(100), False)


def test_guesses_are_kept_and_their_rate_teaches_nothing(
    store: Store, telemetry: Telemetry
) -> None:
    """An answer that repeats its prompt comes faster than the engine decodes, and takes memory."""
    tickets = [load(telemetry), load(telemetry)]
    fast = answer(n_drafted=12, n_accepted=9, token_ns=(1_000_000,) * 20)
    for ticket, told in zip(tickets, (fast, answer()), strict=True):
        telemetry.generated(ticket, told)
        telemetry.unloaded(ticket, use_run(peak_rss_bytes=2**30))
    assert telemetry.flush()
    observation, plain = store.observations()
    ticket = tickets[0]
    (kept,) = store.load_run(ticket.run_id).run.generations

    assert (kept.n_drafted, kept.n_accepted) == (12, 9)
    assert kept.decode_tps == pytest.approx(1000)
    assert observation.decode_tps is None
    assert observation.prefill_tps == pytest.approx(640)
    assert (observation.peak_rss_bytes, plain.peak_rss_bytes) == (None, 2**30)
