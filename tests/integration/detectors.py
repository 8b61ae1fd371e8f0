"""This machine as tests tell it: two engines of which none need be asked."""

from __future__ import annotations

from autotune.backends.protocol import EngineError
from autotune.domain.machine import MachineState
from autotune.domain.run import Reason
from autotune.integration.engines import Engines
from autotune.integration.hardware import HardwareDetector
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
