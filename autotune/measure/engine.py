"""What an installed engine says of itself, asked in a process of its own."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from autotune.backends.protocol import EngineError
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


def ask_engines(backends: Iterable[str]) -> dict[str, Engine | str]:
    """The engine behind each backend, else why it cannot be used, with the cure.

    They are asked at the same time: most of it is waiting for their libraries to be read.
    """
    names = tuple(backends)
    with ThreadPoolExecutor(max_workers=len(names) or 1) as pool:
        return dict(zip(names, pool.map(_engine_or_problem, names), strict=True))


def _engine_or_problem(backend: str) -> Engine | str:
    try:
        return ask_engine(backend)
    except EngineError as error:
        return str(error)
