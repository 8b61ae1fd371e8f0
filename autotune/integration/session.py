"""What one manager has done since it was made: counted in memory, beside the rows."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from autotune.domain import stats
from autotune.domain.run import Generation
from autotune.integration.benchmark import response_s

_KEPT = 1000
"""Latest generations that medians are taken over."""


@dataclass(slots=True)
class SessionStats:
    """Counts and times of one manager. Safe to use from several threads."""

    models_loaded: int = 0
    loads_failed: int = 0
    backend_switches: int = 0
    generations_failed: int = 0
    total_generations: int = 0
    total_tokens: int = 0
    generation_s: float = 0.0
    _decode_tps: list[float] = field(default_factory=list)
    _ttft_s: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def loaded(self, *, ok: bool, switched: bool) -> None:
        """A load ended."""
        with self._lock:
            self.models_loaded += ok
            self.loads_failed += not ok
            self.backend_switches += switched

    def generated(self, generation: Generation | None, n_tokens: int) -> None:
        """A generation ended with an answer."""
        if generation is None:  # nothing was computed
            return
        with self._lock:
            self.total_generations += 1
            self.total_tokens += n_tokens
            self.generation_s += response_s(generation)
            _keep(self._decode_tps, generation.decode_tps)
            _keep(self._ttft_s, generation.ttft_s)

    def failed(self) -> None:
        """A generation ended with an error."""
        with self._lock:
            self.generations_failed += 1

    def to_dict(self) -> dict[str, Any]:
        """Counts; ``avg_generation_time`` and ``median_first_token_latency`` in seconds.

        Rates and times are None as long as nothing was generated, but for the average, which
        applications format as a number: 0.0.
        """
        with self._lock:
            n = self.total_generations
            return {
                "models_loaded": self.models_loaded,
                "loads_failed": self.loads_failed,
                "backend_switches": self.backend_switches,
                "total_generations": n,
                "generations_failed": self.generations_failed,
                "total_tokens": self.total_tokens,
                "avg_generation_time": self.generation_s / n if n else 0.0,
                "median_tokens_per_second": _median(self._decode_tps),
                "median_first_token_latency": _median(self._ttft_s),
            }


def _keep(values: list[float], value: float | None) -> None:
    if value is not None:
        values.append(value)
        del values[:-_KEPT]


def _median(values: list[float]) -> float | None:
    return stats.median(values) if values else None
