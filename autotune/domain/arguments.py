"""Arguments of the public API, held to their kind and range in one line each."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from autotune.domain.errors import UserError


def require_whole(name: str, value: Any, *, low: int, high: int | None = None) -> None:
    """Raise UserError unless a value is a whole number from ``low`` on, to ``high`` if given."""
    # bool is an int to Python, and a mistake to whoever typed it.
    is_whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_whole or value < low or (high is not None and value > high):
        wanted = f" from {low}" if high is None else f", {low} to {high}"
        raise UserError(f"{name}={value!r} is not valid: give a whole number{wanted}")


def require_number(name: str, value: Any, *, low: float, high: float = math.inf) -> None:
    """Raise UserError unless a value is a finite number from ``low`` to ``high``."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not _is_finite(value) or not low <= value <= high:
        wanted = f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"
        raise UserError(f"{name}={value!r} is not valid: give a number, {wanted}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number with hundreds of digits
        return False
