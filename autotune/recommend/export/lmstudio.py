"""A configuration for LM Studio: a preset with the fields that it loads a model with.

Keys and shapes are those of lmstudio-js, ``packages/lms-kv-config``. LM Studio ignores a key that
its version does not know. A preset lies in ``~/.lmstudio/config-presets/NAME.preset.json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from autotune.domain.config import Config
from autotune.domain.model import ModelFacts
from autotune.recommend.export.notes import named

_NO_CACHE_TYPE = "bf16"
_NO_FIELD = ("n_threads_batch", "op_offload", "split_mode", "main_gpu", "swa_full")


def preset(path: Path, config: Config, model: ModelFacts, *, notes: Sequence[str] = ()) -> str:
    """A preset as JSON; ``note`` holds the notes and names what LM Studio has no field for."""
    fields = [{"key": key, "value": value} for key, value in _fields(config, model.n_layers)]
    document = {
        "identifier": f"@local:autotune-{model.model_id}",
        "name": f"autotune {model.name}",
        "changed": False,
        "operation": {"fields": []},
        "load": {"fields": fields},
        "model": str(path),
        "note": [*notes, *_notes(config)],
    }
    return json.dumps(document, indent=2) + "\n"


def _fields(config: Config, n_layers: int) -> Iterator[tuple[str, object]]:
    """(Key, value) of every field."""
    yield "llm.load.contextLength", config.n_ctx
    yield "llm.load.numParallelSessions", config.n_parallel
    yield "llm.load.offloadKVCacheToGpu", config.offload_kqv
    # Off, or the share of layers is not read.
    yield "llm.load.llama.autoFit", False
    yield "llm.load.llama.acceleration.offloadRatio", _offload_ratio(config, n_layers)
    yield "llm.load.llama.cpuThreadPoolSize", config.n_threads
    yield "llm.load.llama.evalBatchSize", config.n_batch
    yield "llm.load.llama.physicalBatchSize", config.n_ubatch
    yield "llm.load.llama.flashAttention", config.flash_attn != "off"
    for key, name in (("k", config.type_k), ("v", config.type_v)):
        if name != _NO_CACHE_TYPE:
            value = {"checked": True, "value": name}
            yield f"llm.load.llama.{key}CacheQuantizationType", value
    yield "llm.load.llama.tryMmap", config.use_mmap
    yield "llm.load.llama.keepModelInMemory", config.use_mlock
    if config.tensor_split:
        shares = {"strategy": "custom", "disabledGpus": [], "priority": []}
        yield "load.gpuSplitConfig", shares | {"customRatio": list(config.tensor_split)}


def _offload_ratio(config: Config, n_layers: int) -> float:
    """Share of the layers on the GPU, the output layer included."""
    if config.n_gpu_layers == -1:
        return 1.0
    return min(config.n_gpu_layers / (n_layers + 1), 1.0)


def _notes(config: Config) -> Iterator[str]:
    yield f"no field: {named(config, *_NO_FIELD)}"
    if config.n_gpu_layers > 0:
        yield f"{named(config, 'n_gpu_layers')}: offloadRatio is a share of the layers"
    if config.flash_attn == "auto":
        yield "flash_attn=auto: flashAttention is true or false"
    for knob in ("type_k", "type_v"):
        if getattr(config, knob) == _NO_CACHE_TYPE:
            yield f"{named(config, knob)}: not among LM Studio's cache types, f16 is used"
    if not config.tensor_split:
        yield f"{named(config, 'tensor_split')}: LM Studio splits as it is set up to"
