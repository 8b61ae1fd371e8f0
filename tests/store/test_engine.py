"""Addresses, and what a database that cannot be used tells a person."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from autotune.domain.errors import AutotuneError, DataError, UserError
from autotune.domain.stored import RunState
from autotune.store.engine import Database, parse_address
from autotune.store.store import Store
from tests.factories import make_run
from tests.store import examples


@pytest.mark.parametrize("address", ["some/t.db", Path("some/t.db"), "sqlite:///some/t.db"])
def test_an_address_is_a_path_or_a_url(address: str | Path) -> None:
    """Both name the same SQLite file."""
    assert parse_address(address).render_as_string() == "sqlite:///some/t.db"


def test_a_home_folder_is_understood(home: Path) -> None:
    """``~`` is expanded, as a shell would have done."""
    assert parse_address("~/t.db").database == str(home / "t.db")


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///:memory:", ":memory:", "://", "x://y"])
def test_an_address_that_no_store_can_have_is_refused(address: str) -> None:
    """One line that says what to give instead."""
    with pytest.raises(UserError):
        Database.connect(address)


def test_a_password_is_never_shown() -> None:
    """Messages name a server without its secret."""
    url = parse_address("postgresql://me:secret@server/telemetry")
    database = Database(url, None, None)  # type: ignore[arg-type]

    assert database.label == "postgresql://me:***@server/telemetry"
    assert database.file is None


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    """A first start needs no preparation."""
    with Store.open(tmp_path / "a" / "b" / "t.db", now=examples.epoch) as store:
        assert store.count_runs() == 0


def test_a_folder_is_not_a_database(tmp_path: Path) -> None:
    """The message names it."""
    with pytest.raises(UserError, match="cannot be opened"):
        Store.open(tmp_path, now=examples.epoch)


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    """No folder can be made inside a file."""
    (tmp_path / "file").write_text("")

    with pytest.raises(UserError, match="use another --db"):
        Store.open(tmp_path / "file" / "below" / "t.db", now=examples.epoch)


@contextmanager
def unprivileged() -> Iterator[None]:
    """As somebody whom file permissions bind (they do not bind root)."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked_folder(store: Store) -> Iterator[Path]:
    """A folder that nobody may write, outside pytest's own, which others may not enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        yield Path(name)
        Path(name).chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise there")
def test_a_folder_that_cannot_be_written_is_named(locked_folder: Path) -> None:
    """With the cure, for the file itself and for a folder that it would need."""
    for file in (locked_folder / "t.db", locked_folder / "new" / "t.db"):
        with (
            unprivileged(),
            pytest.raises(UserError, match=f"{locked_folder}.* another --db") as raised,
        ):
            Store.open(file, now=examples.epoch)
        assert "\n" not in str(raised.value)


@pytest.mark.skipif(os.name == "nt", reason="permissions work otherwise there")
def test_a_file_that_cannot_be_written_is_named(locked_folder: Path) -> None:
    """A store that somebody else made refuses what is recorded, and says why."""
    locked_folder.chmod(0o777)
    file = locked_folder / "t.db"
    with Store.open(file, now=examples.epoch) as store:
        examples.record_facts(store)
    file.chmod(0o444)

    with unprivileged(), Store.open(file, now=examples.epoch) as store:
        assert store.count_runs() == 0
        with pytest.raises(UserError, match=r"t\.db cannot be written: make the file"):
            examples.begin(store)


def test_a_full_disk_keeps_nothing_by_halves(store: Store) -> None:
    """The outcome of a run is written whole or not at all, and again when there is room."""
    big = make_run(log_excerpt="x" * 1_000_000)
    run_id = examples.begin(store, big.trial)
    limit_pages(store, 5)

    with pytest.raises(DataError, match=r"the disk that holds .* is full"):
        store.finish_run(run_id, big)

    (stored,) = store.list_runs()
    assert (stored.state, stored.n_reps, stored.build) == (RunState.RUNNING, 0, "")
    limit_pages(store, 10_000)
    store.finish_run(run_id, big)
    assert store.load_run(run_id).run == big


def limit_pages(store: Store, n: int) -> None:
    """Let the writing connection (the pool has one) add no more than so many pages."""
    with store.database.write() as session:
        used = session.scalar(text("PRAGMA page_count"))
        session.execute(text(f"PRAGMA max_page_count = {used + n}"))


def test_a_rule_that_a_row_breaks_is_quoted(store: Store) -> None:
    """A machine nobody recorded, a negative time: refused by the database itself."""
    with pytest.raises(DataError, match="FOREIGN KEY"):
        examples.begin(store, machine_id="unknown")
    with pytest.raises(DataError, match="not_negative"):
        examples.record(store, make_run(elapsed_s=-1.0))


def test_a_damaged_file_is_told_from_a_foreign_one(store: Store, file: Path) -> None:
    """Half of the pages gone: restore a copy."""
    examples.record(store)
    store.close()
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))

    with pytest.raises(AutotuneError, match=r"damaged|not an autotune"):
        Store.open(file, now=examples.epoch)
