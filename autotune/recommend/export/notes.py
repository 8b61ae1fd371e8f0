"""What a program has no word for: said beside the configuration, never dropped."""

from __future__ import annotations

from collections.abc import Iterable

from autotune.domain.config import Config


def named(config: Config, *knobs: str) -> str:
    """``"n_batch=512, swa_full=true"``: knobs as ``--set`` takes them."""
    return ", ".join(f"{knob}={_spelled(getattr(config, knob))}" for knob in knobs)


def commented(notes: Iterable[str], text: str) -> str:
    """The text with its notes above it, in lines that start with ``#``."""
    return "".join(f"# {note}\n" for note in notes) + text


def _spelled(value: object) -> str:
    if isinstance(value, tuple):
        return "/".join(map(str, value)) or "none"
    return str(value).lower()
