"""Stores in every state that a test may want."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune.store.store import Store
from autotune.store.telemetry import Telemetry
from tests.store.examples import Clock, epoch, record_facts
from tests.store.uses import QUICK_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the test's database lies, or will lie."""
    return tmp_path / "telemetry.db"


@pytest.fixture
def empty_store(file: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(file, now=clock) as store:
        yield store


@pytest.fixture
def store(empty_store: Store) -> Store:
    """A store that knows the machine and the model of tests.store.examples."""
    record_facts(empty_store)
    return empty_store


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One store for all examples of a property test; it only grows."""
    with Store.open(tmp_path_factory.mktemp("shared") / "t.db", now=epoch) as store:
        record_facts(store)
        yield store


@pytest.fixture
def telemetry(store: Store, clock: Clock) -> Iterator[Telemetry]:
    with Telemetry(store, now=clock, linger_s=QUICK_S) as telemetry:
        yield telemetry
