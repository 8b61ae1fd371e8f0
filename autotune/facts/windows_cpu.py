"""The processor as Windows describes it: its registry key and ``IsProcessorFeaturePresent``."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from autotune.facts.isa import normalise_isa
from autotune.facts.processor import Processor

_KEY = r"HKLM\HARDWARE\DESCRIPTION\System\CentralProcessor\0"
_NAME = re.compile(r"ProcessorNameString\s+REG_SZ\s+(.+)")
_FEATURES: Mapping[int, str] = {
    13: "sse3",
    19: "neon",
    36: "ssse3",
    39: "avx",
    40: "avx2",
    41: "avx512f",
    43: "dotprod",
    46: "sve",
    66: "i8mm",
}
"""``PF_…`` numbers of ``winnt.h``. Windows does not tell the other extensions."""


def read_windows_cpu() -> Processor:
    """The processor of this Windows machine; cores are left to be counted by psutil."""
    return Processor(
        name=parse_registry_name(_query_registry()) or platform.processor() or None,
        isa=parse_features(_feature_present()),
    )


def parse_registry_name(text: str) -> str | None:
    """The marketing name in the output of ``reg query`` for the processor's key."""
    match = _NAME.search(text)
    return " ".join(match[1].split()) if match else None


def parse_features(is_present: Callable[[int], bool]) -> tuple[str, ...]:
    """The extensions whose numbers ``is_present`` confirms."""
    return normalise_isa(name for number, name in _FEATURES.items() if is_present(number))


def _query_registry() -> str:
    tool = Path(os.environ.get("SYSTEMROOT", r"C:\Windows")) / "System32" / "reg.exe"
    try:
        command = [str(tool), "query", _KEY, "/v", "ProcessorNameString"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout


def _feature_present() -> Callable[[int], bool]:
    windll = getattr(ctypes, "windll", None)
    if windll is None:
        return lambda _: False
    return lambda number: bool(windll.kernel32.IsProcessorFeaturePresent(number))
