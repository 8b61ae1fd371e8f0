"""A store that cannot be written costs telemetry, never a generation."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from autotune.domain.stored import RunState
from autotune.store.store import Store
from autotune.store.telemetry import CAPACITY, Telemetry
from tests.store import examples
from tests.store.uses import QUICK_S, answer, load, use_run


def spoken(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of telemetry."""
    return [r.getMessage() for r in caplog.records if r.name == "autotune.store.telemetry"]


@pytest.fixture
def broken(store: Store) -> Iterator[list[str]]:
    """While it holds a word, every write of the store fails with it, as SQLite would."""
    words: list[str] = []

    def fail(*_: object) -> None:
        if words:
            error = sqlite3.OperationalError("broken")
            error.sqlite_errorname = words[0]
            raise error

    event.listen(store.database.writer, "before_cursor_execute", fail)
    yield words
    words.clear()


@pytest.mark.parametrize("word", ["SQLITE_FULL", "SQLITE_BUSY", "SQLITE_READONLY", "SQLITE_IOERR"])
def test_a_store_that_cannot_be_written_costs_telemetry_alone(
    store: Store,
    telemetry: Telemetry,
    broken: list[str],
    word: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning however long it lasts; what was generated is counted; it recovers by itself."""
    ticket = load(telemetry)
    telemetry.generated(ticket, answer())
    assert telemetry.flush()
    broken.append(word)
    for _ in range(3):
        telemetry.generated(ticket, answer())
        assert not telemetry.flush()

    assert telemetry.dropped == 3
    assert len(spoken(caplog)) == 1
    broken.clear()
    telemetry.generated(ticket, answer())
    assert telemetry.flush()
    (stored,) = store.list_runs()
    assert (stored.n_reps, telemetry.dropped) == (2, 3)
    assert store.count_runs() == 1


def test_what_two_models_generate_is_counted_for_each(
    store: Store, clock: examples.Clock, broken: list[str]
) -> None:
    """Both wait for the store together: one with a generation, one with four."""
    with Telemetry(store, now=clock, linger_s=60.0) as telemetry:
        tickets = [load(telemetry), load(telemetry)]
        assert telemetry.flush()
        broken.append("SQLITE_FULL")
        for ticket, n_generations in zip(tickets, (1, 4), strict=True):
            for _ in range(n_generations):
                telemetry.generated(ticket, answer())
        assert not telemetry.flush()

        assert telemetry.dropped == 5


def test_a_load_waits_for_a_store_that_cannot_be_written(
    store: Store, telemetry: Telemetry, broken: list[str]
) -> None:
    """Loads and ends are few: they are written when they can be, with the next news."""
    broken.append("SQLITE_FULL")
    ticket = load(telemetry)
    assert not telemetry.flush()
    telemetry.unloaded(ticket, use_run())
    assert not telemetry.flush()
    broken.clear()
    load(telemetry)
    assert telemetry.flush()

    running, complete = store.list_runs()
    assert (running.state, complete.state) == (RunState.RUNNING, RunState.COMPLETE)
    assert telemetry.dropped == 0


def test_a_locked_store_is_waited_for(file: Path, store: Store, telemetry: Telemetry) -> None:
    """Another program writes: whoever generates does not notice, nothing is lost."""
    ticket = load(telemetry)
    assert telemetry.flush()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    telemetry.generated(ticket, answer())
    assert not telemetry.flush(timeout_s=0.2)
    other.execute("COMMIT")
    other.close()

    assert telemetry.flush()
    assert (store.list_runs()[0].n_reps, telemetry.dropped) == (1, 0)


def test_a_database_that_is_read_only_is_warned_of_once(
    store: Store, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite's own refusal, of a connection that may not write."""

    def refuse(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA query_only = ON")

    event.listen(store.database.writer, "checkout", refuse)
    ticket = load(telemetry)
    telemetry.generated(ticket, answer())
    assert not telemetry.flush()
    event.remove(store.database.writer, "checkout", refuse)

    assert telemetry.dropped == 1
    (warning,) = spoken(caplog)
    assert "cannot be written" in warning


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one mebibyte; skipped where nobody may mount one."""
    import subprocess

    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "autotune-test", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        pytest.skip("there is no mount here")
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with suppress(OSError), file.open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 4096)


def test_a_full_disk_is_survived(
    small_disk: Path, clock: examples.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Filled by somebody else: dropped and counted; written again when there is room."""
    with (
        Store.open(small_disk / "t.db", now=clock) as store,
        Telemetry(store, now=clock, linger_s=QUICK_S) as telemetry,
    ):
        examples.record_facts(store)
        ticket = load(telemetry)
        assert telemetry.flush()
        filler = small_disk / "filler"
        fill(filler)
        while telemetry.dropped == 0:  # until the room in the files is used up, too
            for _ in range(20):
                telemetry.generated(ticket, answer())
            telemetry.flush()
        assert "is full" in spoken(caplog)[0]
        filler.unlink()
        before = store.list_runs()[0].n_reps
        telemetry.generated(ticket, answer())
        assert telemetry.flush()
        assert store.list_runs()[0].n_reps == before + 1


def test_a_full_queue_drops_and_counts(
    store: Store, clock: examples.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller never waits; the load itself is not lost."""
    with Telemetry(store, now=clock, capacity=10, linger_s=60.0) as telemetry:
        ticket = load(telemetry)
        for _ in range(25):
            telemetry.generated(ticket, answer())

        assert telemetry.dropped == 15
        assert len(spoken(caplog)) == 1
        telemetry.flush()
        assert store.list_runs()[0].n_reps == 10
    assert CAPACITY > 10


def test_a_load_that_the_store_will_never_have_harms_no_other(
    store: Store, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """A model that nobody recorded: given up, with everything that it generates."""
    stranger = load(telemetry, model_id="nobody recorded it")
    telemetry.generated(stranger, answer())
    ours = load(telemetry)
    telemetry.generated(ours, answer())
    assert not telemetry.flush()

    assert store.count_runs() == 1
    assert telemetry.dropped == 2, "the load and its generation"
    telemetry.generated(ours, answer())
    assert telemetry.flush()
    assert len(spoken(caplog)) == 1


def test_a_value_that_no_column_takes_harms_no_other(store: Store, telemetry: Telemetry) -> None:
    """An instant without a time zone is a mistake of the caller's: of that load alone."""
    load(telemetry, use_run(started_at=datetime(2026, 11, 1)))  # noqa: DTZ001
    ours = load(telemetry)
    assert not telemetry.flush()
    telemetry.generated(ours, answer())

    assert telemetry.flush()
    assert (store.count_runs(), telemetry.dropped) == (1, 1)


def test_what_could_not_be_written_until_the_end_is_counted(
    store: Store, clock: examples.Clock, broken: list[str]
) -> None:
    """A load that waited for its store in vain."""
    telemetry = Telemetry(store, now=clock, linger_s=QUICK_S)
    broken.append("SQLITE_FULL")
    load(telemetry)
    telemetry.close()

    assert telemetry.dropped == 1
