"""Arguments as applications give them, checked: absurd ones say what would be valid."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from autotune.domain.arguments import require_number, require_whole
from autotune.domain.errors import UserError

Word = TypeVar("Word", bound=enum.StrEnum)


def count(value: float | None, name: str) -> float | None:
    """A time, an amount or a rate; None where it is not known, which 0 means as well."""
    return amount(value, name) or None if value is not None else None


def amount(value: float, name: str) -> float:
    """A number from 0. Raises UserError."""
    require_number(name, value, low=0)
    return float(value)


def whole(value: int, name: str, *, least: int = 0) -> int:
    """A whole number, also one that came as 4.0. Raises UserError."""
    found = int(value) if isinstance(value, float) and float.is_integer(value) else value
    require_whole(name, found, low=least)
    return int(found)


def share(value: float, name: str) -> float:
    """A share between 0 and 1. Raises UserError."""
    require_number(name, value, low=0, high=1)
    return float(value)


def word(value: str, kind: type[Word], name: str) -> Word:
    """One of a closed set of words. Raises UserError that lists them."""
    try:
        return kind(value)
    except ValueError:
        raise UserError(f"{name}={value!r} is not valid: give one of {', '.join(kind)}") from None


def plain_mapping(value: Mapping[str, Any] | None, name: str) -> dict[str, Any]:
    """A mapping that JSON can say. Raises UserError for another."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(value or {})))
    except (TypeError, ValueError):
        raise UserError(f"{name} is not valid: give names with numbers or texts") from None
    return plain
