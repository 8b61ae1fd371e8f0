"""Limits: what an answer must keep, however fast something else would be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard constraints beside those of the machine; None is no limit."""

    memory_bytes: int | None = None
    """Peak memory of the process, by the 95 % quantile of the prediction."""
    ttft_s: float | None = None
    """Time to first token, in seconds."""
