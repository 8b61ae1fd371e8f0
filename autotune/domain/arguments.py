"""Arguments of the public API, held to their kind and range in one line each."""

from __future__ import annotations

import math
from typing import Any

from autotune.domain.errors import UserError


def require_whole(name: str, value: Any, *, low: int, high: int) -> None:
    """Raise UserError unless a value is a whole number from ``low`` to ``high``."""
    # bool is an int to Python, and a mistake to whoever typed it.
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise UserError(f"{name}={value!r} is not valid: give a whole number, {low} to {high}")


def require_number(name: str, value: Any, *, low: float, high: float = math.inf) -> None:
    """Raise UserError unless a value is a number from ``low`` to ``high``; NaN is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        wanted = f"{low:g} or more" if math.isinf(high) else f"{low:g} to {high:g}"
        raise UserError(f"{name}={value!r} is not valid: give a number, {wanted}")
