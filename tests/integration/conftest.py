"""An optimizer on a store of its own, and engines that need not be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autotune.domain.config import Config
from autotune.integration import engine
from autotune.integration.manager import PerformanceIntegratedBackendManager
from autotune.integration.optimizer import PerformanceOptimizer
from tests.integration.detectors import LIBRARY, make_detector
from tests.integration.fake_model import FakeModel
from tests.integration.managers import (
    Make,
    children,
    load,
    make,
)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[FakeModel]:
    """Every model that was loaded, the latest last; none has an engine."""
    made: list[FakeModel] = []

    def load(*_: Any, **__: Any) -> FakeModel:
        made.append(FakeModel())
        return made[-1]

    monkeypatch.setattr(engine, "LoadedModel", SimpleNamespace(load=load))
    monkeypatch.setattr(engine, "chosen_knobs", lambda *_, **__: Config())
    return made


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture(scope="session")
def probed_db(tmp_path_factory: pytest.TempPathFactory, smollm2_path: Path) -> Path:
    """A store that has met this machine and SmolLM2: the probe takes seconds, once."""
    file = tmp_path_factory.mktemp("probed") / "probed.db"
    optimizer = PerformanceOptimizer(make_detector(), file)
    optimizer.get_dynamic_batch_size(smollm2_path, LIBRARY, 4096)
    optimizer.stop()
    return file


@pytest.fixture
def make_optimizer(
    probed_db: Path, cache_file: Path
) -> Iterator[Callable[[], PerformanceOptimizer]]:
    """Makes optimizers that share a store which has met this machine, but no run."""
    cache_file.write_bytes(probed_db.read_bytes())
    made: list[PerformanceOptimizer] = []

    def make() -> PerformanceOptimizer:
        made.append(PerformanceOptimizer(make_detector(), cache_file))
        return made[-1]

    yield make
    for optimizer in made:
        optimizer.stop()


@pytest.fixture
def optimizer(make_optimizer: Callable[[], PerformanceOptimizer]) -> PerformanceOptimizer:
    return make_optimizer()


@pytest.fixture
def make_manager(probed_db: Path, cache_file: Path) -> Iterator[Make]:
    """Makes managers of one store that has met this machine; no process outlives the test."""
    cache_file.write_bytes(probed_db.read_bytes())
    before, made = children(), []

    def new(file: str | Path = cache_file, **options: Any) -> PerformanceIntegratedBackendManager:
        made.append(make(file, **options))
        return made[-1]

    yield new
    for manager in made:
        manager.close()
    assert children() <= before


@pytest.fixture
def idle(make_manager: Make) -> PerformanceIntegratedBackendManager:
    """A manager without a model."""
    return make_manager()


@pytest.fixture(scope="module")
def manager(
    probed_db: Path, smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PerformanceIntegratedBackendManager]:
    """A manager with SmolLM2, for tests after which it is as good as before."""
    file = tmp_path_factory.mktemp("manager") / "used.db"
    file.write_bytes(probed_db.read_bytes())
    with make(file) as manager:
        load(manager, smollm2_path)
        yield manager
