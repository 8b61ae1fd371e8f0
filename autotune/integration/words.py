"""Arguments as applications give them, checked: absurd ones say what would be valid."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from autotune.domain.errors import UserError

Word = TypeVar("Word", bound=enum.StrEnum)


def count(value: float | None, name: str) -> float | None:
    """A time, an amount or a rate; None where it is not known, which 0 means as well."""
    return amount(value, name) or None if value is not None else None


def amount(value: float, name: str) -> float:
    """A number from 0. Raises UserError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(f"{name}={value!r} is not valid: give a number, 0 or more")
    return float(value)


def whole(value: int, name: str, *, least: int = 0) -> int:
    """A whole number. Raises UserError."""
    if isinstance(value, bool) or value != value or value < least or int(value) != value:  # noqa: PLR0124
        raise UserError(f"{name}={value!r} is not valid: give a whole number from {least}")
    return int(value)


def share(value: float, name: str) -> float:
    """A share between 0 and 1. Raises UserError."""
    if not 0 <= amount(value, name) <= 1:
        raise UserError(f"{name}={value!r} is not valid: give a share from 0 to 1")
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
