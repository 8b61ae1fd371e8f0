"""NVIDIA's management library, asked so that what it does not know is None."""

from __future__ import annotations

from typing import Any


def load_nvml() -> Any:
    """The module ``pynvml``; None where it is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    return pynvml


def ask_nvml(nvml: Any, getter: str, *args: Any) -> Any:
    """The answer; None if this driver, library or device does not know."""
    try:
        function = getattr(nvml, getter, None)
        return function(*args) if function else None
    except nvml.NVMLError:
        return None


def nvml_text(value: str | bytes | None) -> str | None:
    """Old releases of the library return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
