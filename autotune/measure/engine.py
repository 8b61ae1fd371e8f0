"""What an installed engine says of itself, asked in a process of its own."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.domain.machine import Build
from autotune.facts.gpu import EngineDevice
from autotune.measure.messages import unpack_build, unpack_gpus
from autotune.measure.process import WorkerProcess

_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An installed engine."""

    build: Build
    gpus: tuple[EngineDevice, ...]


def ask_engine(backend: str) -> Engine:
    """The engine behind a backend. Raises EngineError where there is none that works."""
    with WorkerProcess(backend, deadline_s=_DEADLINE_S) as worker:
        answer = worker.ask("build")
    return Engine(build=unpack_build(answer["build"]), gpus=unpack_gpus(answer["gpus"]))
