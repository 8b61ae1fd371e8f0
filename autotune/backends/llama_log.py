"""What llama.cpp says in its log, read into values.

Only the tail of a line is matched: the function name in front of it changes between versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from autotune.domain.run import Buffer, EngineReport, Reason
from autotune.domain.units import MIB

_BUFFER = re.compile(r"(\S+)\s+(?:(model|KV|RS|compute|output) )?buffer size =\s*([\d.]+) MiB")
"""Builds of 2024 left the word ``model`` out."""
_KINDS = {"model": "model", "KV": "kv", "RS": "recurrent", "compute": "compute", "output": "output"}
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers")
_FLASH_ATTN = re.compile(
    r"(?:Flash Attention(?: was auto, set to)?|flash_attn\s*=) (enabled|disabled)"
)
_N_CTX = re.compile(r": n_ctx\s*= (\d+)")

_REASONS = (
    (
        Reason.UNSUPPORTED,
        ("unknown model architecture", "unsupported model", "unknown pre-tokenizer"),
    ),
    (
        Reason.OOM,
        (
            "failed to allocate",
            "unable to allocate",
            "out of memory",
            "insufficient memory",
            "bad_alloc",
        ),
    ),
    (
        Reason.CONSTRAINT,
        (
            *("requires flash", "require flash", "not supported", "does not support", "must be"),
            *("not divisible", "does not divide", "llama_split_mode"),
            *("invalid argument: -", "unknown argument: -"),
        ),
    ),
)

_STAMP = re.compile(r"\d+\.\d\d\.\d{3}\.\d{3} ([A-Z]) (.*)")
"""Time and level before what a program of llama.cpp prints, since 2024-09."""
_COMPLAINT = re.compile(r"\berror\b|fail|unable|invalid|cannot|couldn't", re.IGNORECASE)


def read_problems(text: str, levels: str = "E") -> list[str]:
    """What went wrong, oldest first: the lines of those levels; without levels, by their words."""
    lines = text.splitlines()
    stamped = [stamp.groups() for stamp in map(_STAMP.match, lines) if stamp]
    problems = [line.strip() for level, line in stamped if level in levels]
    return problems or [line.strip() for line in lines if _COMPLAINT.search(line)]


def read_report(lines: Iterable[str]) -> EngineReport:
    """Buffers, offloaded layers, flash attention and context that the log lines name."""
    text = "".join(lines)
    offloaded = _last(_OFFLOADED, text)
    flash_attn = _last(_FLASH_ATTN, text)
    n_ctx = _last(_N_CTX, text)
    return EngineReport(
        buffers=tuple(_buffers(text)),
        layers_offloaded=int(offloaded[0]) if offloaded else None,
        layers_total=int(offloaded[1]) if offloaded else None,
        flash_attn=flash_attn[0] == "enabled" if flash_attn else None,
        n_ctx=int(n_ctx[0]) if n_ctx else None,
    )


def read_reason(lines: Iterable[str], otherwise: Reason) -> Reason:
    """The failure class that the log lines are evidence for."""
    text = "".join(lines).lower()
    for reason, phrases in _REASONS:
        if any(phrase in text for phrase in phrases):
            return reason
    return otherwise


def _buffers(text: str) -> Iterable[Buffer]:
    for device, kind, mebibytes in _BUFFER.findall(text):
        yield Buffer(
            device=device, kind=_KINDS[kind or "model"], n_bytes=round(float(mebibytes) * MIB)
        )


def _last(pattern: re.Pattern[str], text: str) -> tuple[str, ...] | None:
    matches = list(pattern.finditer(text))
    return matches[-1].groups() if matches else None
