"""Cells of one row by name: text, numbers and words, or nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeVar

from autotune.domain.errors import DataError

_EMPTY = frozenset({"", "None", "null", "NULL", "<NA>"})
"""``none`` is none of them: it is a word of llama-bench."""
_NO_NUMBER = frozenset({"nan", "-nan", "nan(ind)", "-nan(ind)", "n/a"})
"""What pandas, C and people write where a number is missing; case says nothing."""
_POINTED = re.compile(r"(-?\d+)\.0+")
"""How pandas writes a whole number of a column that has a gap somewhere."""
_MOST = 2**62
"""No count in a table is larger; databases cannot keep what is."""

Meaning = TypeVar("Meaning")


class Columns:
    """The cells of one row by any of their names; an empty cell is None."""

    def __init__(self, row: Mapping[str, object]) -> None:
        self._row = {name.strip(): value for name, value in row.items() if name}

    def text(self, *names: str) -> str | None:
        """The first of the named cells that is filled; what no database encodes as ``?``."""
        name = self._filled(names)
        if name is None:
            return None
        return str(self._row[name]).strip().replace("\0", "").encode("utf-8", "replace").decode()

    def whole(self, *names: str) -> str | None:
        """As :meth:`text`, but ``1`` for pandas' ``1.0``."""
        text = self.text(*names)
        pointed = _POINTED.fullmatch(text or "")
        return pointed[1] if pointed else text

    def _filled(self, names: tuple[str, ...]) -> str | None:
        return next(filter(self._is_filled, names), None)

    def _is_filled(self, name: str) -> bool:
        text = str(self._row.get(name, "")).strip()
        return text not in _EMPTY and text.lower() not in _NO_NUMBER

    def has(self, *names: str) -> bool:
        """Whether the row has one of these columns at all."""
        return any(name in self._row for name in names)

    def number(self, *names: str) -> float | None:
        """The first filled cell as a number. Raises DataError for anything else."""
        name = self._filled(names)
        if name is None:
            return None
        text = str(self._row[name]).strip()
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{name} is {text[:40]!r}, not a number")
        return value

    def integer(self, *names: str) -> int | None:
        """The first filled cell as a whole number. Raises DataError for anything else."""
        value = self.number(*names)
        if value is not None and (value != int(value) or abs(value) > _MOST):
            raise DataError(f"{self._filled(names)} is {value:g}, not a whole number")
        return None if value is None else int(value)

    def count(self, *names: str) -> int | None:
        """A whole number that cannot be negative."""
        value = self.integer(*names)
        if value is not None and value < 0:
            raise DataError(f"{self._filled(names)} is {value}, below 0")
        return value

    def numbers(self, name: str) -> tuple[float, ...]:
        """A cell that is a list; empty for one without numbers only."""
        values = self._row.get(name)
        if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
            return ()
        return tuple(float(v) for v in values if 0 < v < _MOST)

    def word(self, meanings: Mapping[str, Meaning], *names: str) -> Meaning | None:
        """The meaning of the first filled cell; None for a word without one."""
        text = self.whole(*names)
        return None if text is None else meanings.get(text.lower())
