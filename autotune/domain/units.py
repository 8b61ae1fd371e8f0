"""Units for people: numbers in, short text out, and back.

Inside the program a unit lives in the name of the value (``_s _ms _ns _bytes _tps _ratio _at``);
only the edges of the program (tables, reports, arguments) use this file.
"""

from __future__ import annotations

import re

from autotune.domain.errors import UserError

KIB = 1024
MIB = 1024**2
GIB = 1024**3

_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?P<amount>\d{1,15}(?:\.\d+)?)(?P<unit>ms|[smh]?)")
_BYTES = {"": 1, "k": KIB, "m": MIB, "g": GIB}
_SIZE = re.compile(r"(?P<amount>\d{1,15}(?:\.\d+)?)\s*(?P<unit>[kmg]?)i?b?", re.IGNORECASE)


def human_bytes(n_bytes: float | None) -> str:
    """``98566144`` → ``"94 MiB"``; an unknown size is ``"–"``."""
    if n_bytes is None:
        return "–"
    if n_bytes < KIB:
        return f"{n_bytes:.0f} B"
    if n_bytes < MIB:
        return f"{n_bytes / KIB:.0f} KiB"
    if n_bytes < GIB:
        return f"{n_bytes / MIB:.0f} MiB"
    return f"{n_bytes / GIB:.2f} GiB"


def human_rate(rate_tps: float | None) -> str:
    """Tokens per second with three significant digits; an unknown rate is ``"–"``."""
    if rate_tps is None:
        return "–"
    return f"{rate_tps:.0f} tok/s" if rate_tps >= 100 else f"{rate_tps:.3g} tok/s"


def human_seconds(seconds: float | None) -> str:
    """``0.0123`` → ``"12 ms"``, ``75`` → ``"1m15s"``; an unknown time is ``"–"``."""
    if seconds is None:
        return "–"
    if seconds < 0.9995:  # what is nearer to 1000 ms is 1 s
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def counted(count: int, thing: str) -> str:
    """``"1 trial"``, ``"2 trials"``."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def parse_seconds(text: str) -> float:
    """Seconds in ``"90"``, ``"500ms"``, ``"90s"`` or ``"5m"``. Raises UserError otherwise, also
    for no time at all."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not float(match["amount"]):
        raise UserError(f"{text!r} is not a duration: write 500ms, 90s or 5m")
    return float(match["amount"]) * _SECONDS[match["unit"] or "s"]


def parse_bytes(text: str) -> int:
    """Bytes in ``"4096"``, ``"512M"`` or ``"2GiB"``. Raises UserError for anything else, also for
    nothing."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or not float(match["amount"]):
        raise UserError(f"{text!r} is not a size: write 512M or 2G")
    return int(float(match["amount"]) * _BYTES[match["unit"].lower()])
