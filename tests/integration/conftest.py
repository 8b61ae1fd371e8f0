"""An optimizer on a store of its own, and engines that need not be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autotune.backends.protocol import EngineError
from autotune.domain.machine import MachineState
from autotune.domain.run import Reason
from autotune.integration.engines import Engines
from autotune.integration.hardware import HardwareDetector
from autotune.integration.optimizer import PerformanceOptimizer
from autotune.measure.engine import Engine
from tests.factories import make_build

LIBRARY = "llama-cpp-python"
SERVER = "llama-server"
FREE_BYTES = 8 * 1024**3


def ask(name: str) -> Engine:
    """Two engines of four are installed."""
    if name not in (LIBRARY, SERVER):
        raise EngineError(Reason.UNSUPPORTED, f"{name} is missing")
    return Engine(build=make_build(backend=name), gpus=())


def make_detector() -> HardwareDetector:
    """This machine with 8 GiB free and two engines."""
    return HardwareDetector(
        engines=Engines(ask=ask), state=lambda: MachineState(ram_available_bytes=FREE_BYTES)
    )


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
