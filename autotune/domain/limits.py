"""Limits: what an answer must keep, however fast something else would be."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.domain.run import Measurement
from autotune.domain.units import human_bytes, human_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Hard constraints beside those of the machine; None is no limit."""

    memory_bytes: int | None = None
    """Peak memory of the process, by the 95 % quantile of the prediction."""
    ttft_s: float | None = None
    """Time to first token, in seconds."""

    def keeps(self, measured: Measurement) -> bool:
        """Whether what was measured stays within; what was not measured does."""
        peak, ttft = measured.peak_memory_bytes, measured.ttft_s
        is_small = self.memory_bytes is None or (peak or 0) <= self.memory_bytes
        return is_small and (self.ttft_s is None or ttft is None or ttft.median <= self.ttft_s)

    def __str__(self) -> str:
        """As it is said on the command line."""
        memory = f"--max-memory {human_bytes(self.memory_bytes)}" if self.memory_bytes else ""
        ttft = f"--max-ttft {human_seconds(self.ttft_s)}" if self.ttft_s else ""
        return " ".join(filter(None, (memory, ttft)))
