"""The memory plan of an engine that de-quantises: transformers.

All weights, and the cache with them, are numbers of one floating type. Measured with transformers
5.23: SmolLM2 (49k words) peaks at 1167 MiB in f32 and 921 MiB in f16, gemma-3 270m (262k words) at
2553 MiB in f32, each while it loads: the process with its libraries (386 MiB), the weights, and the
file's header, whose every word becomes Python objects.
"""

from __future__ import annotations

from collections.abc import Iterator

from autotune.domain.config import KV_BYTES_PER_ELEMENT, LOSSLESS_KV_TYPES, Config
from autotune.domain.model import ModelFacts
from autotune.domain.plan import MemoryPlan, PlanEntry

READ_BYTES_PER_WORD = 5 * 1024
"""Of Python objects while a file is read: about 1.1 KiB for each number and two for each text of
the tokeniser's lists, which are 4 or 5 a word (5.6 KiB measured for SmolLM2, 4.5 for gemma-3)."""
_COPIES_OF_ODDS = 3
"""Scores, odds, and odds in the type of the values."""


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
    """What ``config`` will allocate, by component and device.

    ``compute`` is the most that is needed beside weights and a full cache: while it computes, or,
    on the processor, while it loads. A model for a GPU is put together in the machine's memory.
    """
    n_bytes = KV_BYTES_PER_ELEMENT[config.type_k]
    weights = int(model.n_params * n_bytes)
    cache = int(_cached_elements(model, config) * n_bytes)
    scratch = int(_computed_elements(model, config) * n_bytes)
    loading = model.n_vocab * READ_BYTES_PER_WORD
    if runs_on_gpu(config):
        device = f"CUDA{config.main_gpu}"
        return _plan(
            ("weights", device, weights),
            ("kv", device, cache),
            ("compute", device, scratch),
            ("compute", "CPU", weights + loading),
        )
    return _plan(
        ("weights", "CPU", weights),
        ("kv", "CPU", cache),
        ("compute", "CPU", max(scratch, loading - cache)),
    )


def _plan(*entries: tuple[str, str, int]) -> MemoryPlan:
    return MemoryPlan(
        entries=tuple(
            PlanEntry(component=component, device=device, n_bytes=n_bytes)
            for component, device, n_bytes in entries
        ),
        source="analytic",
    )


def _cached_elements(model: ModelFacts, config: Config) -> int:
    """Of a full context; a layer with a window keeps one token less than it."""
    slides = model.is_sliding or (False,) * model.n_layers
    window = min(config.n_ctx, max(model.sliding_window - 1, 0))
    return sum(
        sum(model.cached_elements(layer))
        * (window if slides[layer] and not config.swa_full else config.n_ctx)
        for layer in range(model.n_layers)
    )


def _computed_elements(model: ModelFacts, config: Config) -> int:
    """Intermediate numbers of one layer over a piece of the prompt, and the last token's logits.

    Attention step by step keeps its odds for every head; fused, it needs a mask.
    """
    widest = max(model.n_ff, model.n_experts_used * model.n_ff_expert)
    attended = config.n_ctx
    if config.flash_attn == "off":
        attended *= _COPIES_OF_ODDS * max(model.n_heads)
    return config.n_ubatch * (3 * widest + 4 * model.n_embd + attended) + model.n_vocab
