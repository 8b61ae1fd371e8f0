"""The memory plan of an engine that de-quantises: transformers.

All weights, and the cache with them, are numbers of one floating type.
"""

from __future__ import annotations

from collections.abc import Iterator

from autotune.domain.config import KV_BYTES_PER_ELEMENT, LOSSLESS_KV_TYPES, Config
from autotune.domain.model import ModelFacts
from autotune.domain.plan import MemoryPlan, PlanEntry


def refuse(config: Config) -> Iterator[str]:
    """One line for each thing that such an engine cannot obey, to be said of its name."""
    for name in ("type_k", "type_v"):
        if getattr(config, name) not in LOSSLESS_KV_TYPES:
            kind = getattr(config, name)
            yield f"has no quantised cache: use f32, f16 or bf16 instead of {name}={kind}"
    if config.type_k != config.type_v:
        yield f"computes in one type: use type_v={config.type_k} with type_k={config.type_k}"
    if config.n_gpu_layers > 0:
        yield "puts all layers on the GPU or none: use n_gpu_layers=-1 or 0"
    if runs_on_gpu(config) and not config.offload_kqv:
        yield "keeps the cache where the layers are: use offload_kqv=true"
    if config.n_parallel > 1:
        yield "serves one sequence here: use n_parallel=1"


def runs_on_gpu(config: Config) -> bool:
    """Whether a GPU is wanted."""
    return config.n_gpu_layers != 0


def plan_dequantised(model: ModelFacts, config: Config) -> MemoryPlan:
    """What ``config`` will allocate, by component and device."""
    device = f"CUDA{config.main_gpu}" if runs_on_gpu(config) else "CPU"
    n_bytes = KV_BYTES_PER_ELEMENT[config.type_k]
    sizes = {
        "weights": model.n_params * n_bytes,
        "kv": _cached_elements(model, config) * n_bytes,
    }
    entries = (
        PlanEntry(component=component, device=device, n_bytes=int(size))
        for component, size in sizes.items()
    )
    return MemoryPlan(entries=tuple(entries), source="analytic")


def _cached_elements(model: ModelFacts, config: Config) -> int:
    """Of a full context; a layer with a window keeps one token less than it."""
    slides = model.is_sliding or (False,) * model.n_layers
    window = min(config.n_ctx, max(model.sliding_window - 1, 0))
    return sum(
        sum(model.cached_elements(layer))
        * (window if slides[layer] and not config.swa_full else config.n_ctx)
        for layer in range(model.n_layers)
    )
