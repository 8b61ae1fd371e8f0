"""What the performance cache answers with.

The guide shows these values as mappings, its application used attributes: both work. As in the
guide, MB are mebibytes.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autotune.domain import stats
from autotune.domain.model import ModelFacts
from autotune.domain.units import MIB
from autotune.store.usage import Usage


class Readable(Mapping[str, Any]):
    """A dataclass that is read by name, as a mapping is."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> tuple[str, ...]:
        fields: Any = self
        return tuple(f.name for f in dataclasses.fields(fields))

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, JSON-ready."""
        plain: Any = self
        return dataclasses.asdict(plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProfile(Readable):
    """One model, as its own header describes it."""

    model_path: str
    model_hash: str
    """16 hexadecimal digits of the file's content: a moved or renamed file keeps its history."""
    size_mb: int
    """The file, MB."""
    parameter_count: int
    quantization: str
    """Element type of most weights, such as ``Q4_0``."""
    architecture: str
    context_length: int
    """Tokens that the model was trained for."""
    layer_count: int

    @classmethod
    def of(cls, model: ModelFacts, path: str) -> ModelProfile:
        """From the facts of a model file."""
        return cls(
            model_path=path,
            model_hash=model.model_id,
            size_mb=round(model.file_bytes / MIB),
            parameter_count=model.n_params,
            quantization=model.quantization,
            architecture=model.architecture,
            context_length=model.n_ctx_train,
            layer_count=model.n_layers,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPerformanceProfile(Readable):
    """What one backend did with one model on this machine. What nobody knows is None, never 0.

    Figures are medians over our own clean measurements, where there is one; else over our spoilt
    ones; else over what applications told: the three are never mixed.
    """

    backend_name: str
    model_hash: str
    load_time_ms: float | None
    memory_usage_mb: float | None
    """Highest resident memory, MB."""
    tokens_per_second: float | None
    """Generated tokens per second, the prompt not counted."""
    prompt_tokens_per_second: float | None
    success_rate: float | None
    """Share of uses that succeeded, 0 to 1, measured and told."""
    usage_count: int
    """Uses, measured and told."""
    reported_count: int
    """Of these told by applications."""
    last_updated: float
    """Seconds since 1970."""
    hardware_config: Mapping[str, Any] = field(default_factory=dict)
    """What the application said of the machine with its latest report."""


def profiles_of(usages: Iterable[Usage]) -> dict[str, BackendPerformanceProfile]:
    """One profile for each backend, by its name; the uses are of one model."""
    by_backend: dict[str, list[Usage]] = defaultdict(list)
    for usage in usages:
        by_backend[usage.backend].append(usage)
    return {name: _profile(name, found) for name, found in sorted(by_backend.items())}


def _profile(name: str, usages: Sequence[Usage]) -> BackendPerformanceProfile:
    weights = [(u.success_ratio, u.n_uses) for u in usages if u.success_ratio is not None]
    total = sum(n for _, n in weights)
    load_s, memory_bytes = typical(usages, "load_s"), typical(usages, "memory_bytes")
    return BackendPerformanceProfile(
        backend_name=name,
        model_hash=usages[0].model_id,
        load_time_ms=None if load_s is None else load_s * 1000,
        memory_usage_mb=None if memory_bytes is None else memory_bytes / MIB,
        tokens_per_second=typical(usages, "decode_tps"),
        prompt_tokens_per_second=typical(usages, "prefill_tps"),
        success_rate=sum(r * n for r, n in weights) / total if total else None,
        usage_count=sum(usage.n_uses for usage in usages),
        reported_count=sum(usage.n_uses for usage in usages if usage.is_reported),
        last_updated=max(usage.started_at for usage in usages).timestamp(),
        hardware_config=next((dict(u.hardware) for u in usages if u.hardware), {}),
    )


def typical(usages: Iterable[Usage], name: str) -> float | None:
    """Median of a figure over the most trustworthy uses that have it; None where none has."""
    tiers: dict[int, list[float]] = defaultdict(list)
    for usage in usages:
        if (value := getattr(usage, name)) is not None and usage.reason is None:
            tiers[_distrust(usage)].append(float(value))
    return stats.median(tiers[min(tiers)]) if tiers else None


def _distrust(usage: Usage) -> int:
    """0 for our own clean measurement, 1 for a spoilt one, 2 for what somebody told."""
    return 2 if usage.is_reported else int(usage.is_spoilt)
