"""What an installed engine says of itself, asked in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autotune.backends.llamafile import with_own_program
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


def ask_engine(backend: str, model_path: Path | None = None) -> Engine:
    """The engine behind a backend, which may be the model itself.

    Raises EngineError where there is none that works.
    """
    environ = with_own_program(os.environ, model_path)
    with WorkerProcess(backend, deadline_s=_DEADLINE_S, environ=environ) as worker:
        answer = worker.ask("build")
    return Engine(build=unpack_build(answer["build"]), gpus=unpack_gpus(answer["gpus"]))


def ask_engines(backends: Iterable[str], model_path: Path | None = None) -> dict[str, Engine | str]:
    """The engine behind each backend, else why it cannot be used, with the cure.

    They are asked at the same time: most of it is waiting for their libraries to be read.
    """
    names, ask = tuple(backends), partial(_engine_or_problem, model_path=model_path)
    with ThreadPoolExecutor(max_workers=len(names) or 1) as pool:
        return dict(zip(names, pool.map(ask, names), strict=True))


def _engine_or_problem(backend: str, model_path: Path | None) -> Engine | str:
    try:
        return ask_engine(backend, model_path)
    except EngineError as error:
        return str(error)
