"""What measuring parent and child say to each other: one JSON object a line.

Commands go down (``build``, ``plan``, ``load``, ``sample``, ``generate``, ``quality``), one answer
comes up for each. An answer has ``"ok": true`` and the command's result, or ``"ok": false`` with a
reason and a message. Before it may come ``"started"``: the number of a process in which the engine
is a program; and while it generates ``"text"``: the pieces of its text as they come.

``{"do": "stop"}`` ends a ``generate`` that is under way: its answer says that it was cancelled. It
has no answer of its own, and no effect on a command that comes after it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from autotune.backends.protocol import Sample
from autotune.domain.machine import Build
from autotune.domain.plan import MemoryPlan, PlanEntry
from autotune.domain.quality import QualityCost
from autotune.domain.request import Finish, TextCompletion, TextRequest
from autotune.domain.run import Buffer, EngineReport, LoadTime
from autotune.facts.gpu import EngineDevice


def pack(value: Any) -> dict[str, Any]:
    """A frozen value as a JSON-ready dictionary."""
    return dataclasses.asdict(value)


def unpack_build(data: dict[str, Any]) -> Build:
    """The inverse of :func:`pack` for a build."""
    return Build(**{**data, "devices": tuple(data["devices"])})


def unpack_gpus(data: list[dict[str, Any]]) -> tuple[EngineDevice, ...]:
    """The inverse of :func:`pack` for an engine's GPUs."""
    return tuple(EngineDevice(**device) for device in data)


def unpack_load(data: dict[str, Any]) -> LoadTime:
    """The inverse of :func:`pack` for a load time."""
    return LoadTime(**data)


def unpack_report(data: dict[str, Any]) -> EngineReport:
    """The inverse of :func:`pack` for an engine report."""
    buffers = tuple(Buffer(**buffer) for buffer in data["buffers"])
    return EngineReport(**{**data, "buffers": buffers})


def unpack_plan(data: dict[str, Any]) -> MemoryPlan:
    """The inverse of :func:`pack` for a memory plan."""
    entries = tuple(PlanEntry(**entry) for entry in data["entries"])
    return MemoryPlan(**{**data, "entries": entries})


def unpack_quality(data: dict[str, Any]) -> QualityCost:
    """The inverse of :func:`pack` for a quality cost."""
    return QualityCost(**data)


def unpack_sample(data: dict[str, Any]) -> Sample:
    """The inverse of :func:`pack` for a sample."""
    return Sample(**{**data, "token_ns": tuple(data["token_ns"])})


def unpack_request(data: dict[str, Any]) -> TextRequest:
    """The inverse of :func:`pack` for a request. Raises UserError for one that is not valid."""
    return TextRequest(**{**data, "stop": tuple(data["stop"])})


def unpack_completion(data: dict[str, Any]) -> TextCompletion:
    """The inverse of :func:`pack` for a completion."""
    return TextCompletion(
        **{**data, "finish": Finish(data["finish"]), "token_ns": tuple(data["token_ns"])}
    )
