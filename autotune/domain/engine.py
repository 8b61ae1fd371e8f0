"""Engines: the code that computes behind a backend, and what is true of it before anything runs.

Several backends may be one engine: llama-cpp-python, llama-server, llamafile and llama-bench are
all llama.cpp, and what one of them reaches on a machine says much of the others. Another engine's
runs say nothing of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from autotune.domain.config import KV_BYTES_PER_ELEMENT
from autotune.domain.model import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTraits:
    """What sets an engine apart."""

    name: str
    unpacks: bool = False
    """Whether every weight becomes a number of the cache's own type (``type_k``); other engines
    compute with the element types of the file."""
    knobs: frozenset[str] | None = frozenset()
    """The knobs that may differ from the default; None for all of them."""
    places_all_layers: bool = False
    """Whether all layers are on a GPU, or none."""
    most_ubatch: int | None = None
    """Tokens that it can compute at once; None for as many as are asked for."""


LLAMA_CPP = EngineTraits(name="llama.cpp", knobs=None)
TRANSFORMERS = EngineTraits(
    name="transformers",
    unpacks=True,
    knobs=frozenset(
        {"n_threads", "n_threads_batch", "n_ubatch", "flash_attn", "swa_full", "n_gpu_layers"}
    ),
    places_all_layers=True,
)
CTRANSFORMERS = EngineTraits(
    name="ctransformers",
    knobs=frozenset({"n_threads", "n_threads_batch", "n_ubatch"}),
    most_ubatch=512,
)
_OF_BACKEND: Mapping[str, EngineTraits] = {
    **dict.fromkeys(("llama-cpp-python", "llama-server", "llamafile", "llama-bench"), LLAMA_CPP),
    **{engine.name: engine for engine in (TRANSFORMERS, CTRANSFORMERS)},
}


def engine_of(backend: str) -> EngineTraits:
    """The engine behind a backend; one that nobody describes is an engine of its own.

    Of such a one nothing but its default is known to run.
    """
    return _OF_BACKEND.get(backend) or EngineTraits(name=backend)


@lru_cache(maxsize=256)
def unpacked_model(model: ModelFacts, kind: str) -> ModelFacts:
    """The model with every weight of one floating type (``f32``, ``f16`` or ``bf16``)."""
    n_bytes = KV_BYTES_PER_ELEMENT[kind]
    tensors = tuple(
        dataclasses.replace(tensor, type=kind.upper(), n_bytes=round(tensor.n_elements * n_bytes))
        for tensor in model.tensors
    )
    return dataclasses.replace(model, tensors=tensors, layer_bytes=())
