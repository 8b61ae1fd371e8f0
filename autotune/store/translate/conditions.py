"""Conditions and what spoils a measurement."""

from __future__ import annotations

import dataclasses
from typing import Any

from autotune.domain.conditions import Conditions, Contamination
from autotune.store.codec import from_json, to_json
from autotune.store.tables import Observed

_NAMES = tuple(field.name for field in dataclasses.fields(Conditions))


def condition_columns(conditions: Conditions) -> dict[str, Any]:
    """The columns of :class:`Observed` by name; :func:`conditions_value` reads them."""
    columns = {name: getattr(conditions, name) for name in _NAMES}
    told = conditions.throttle
    return columns | {"throttle": None if told is None else to_json(told)}


def conditions_value(row: Observed) -> Conditions:
    """The conditions that a row was measured under."""
    columns = {name: getattr(row, name) for name in _NAMES}
    told = row.throttle
    throttle = None if told is None else from_json(tuple[str, ...], told)
    return Conditions(**columns | {"throttle": throttle})


def contamination_text(contamination: tuple[Contamination, ...]) -> str:
    """Its words; empty for what is clean. :func:`contamination_value` reads it."""
    return " ".join(contamination)


def contamination_value(text: str | None) -> tuple[Contamination, ...]:
    """What spoils a measurement; nothing for one that has not reported."""
    return tuple(Contamination(word) for word in (text or "").split())
