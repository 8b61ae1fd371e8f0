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

from autotune.domain.model import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTraits:
    """What sets an engine apart."""

    name: str
    host_weight_bytes: float | None = None
    """Bytes of every weight in the host's memory where the engine unpacks the file; None where it
    computes with the file's own element types."""
    gpu_weight_bytes: float | None = None
    """The same on a GPU."""
    grows_cache: bool = False
    """Whether the KV cache grows with what is in it, instead of being there for the whole
    context."""

    def weight_bytes(self, api: str) -> float | None:
        """Bytes of every weight where the engine computes with ``api``; None for the file's."""
        return self.host_weight_bytes if api == "CPU" else self.gpu_weight_bytes


LLAMA_CPP = EngineTraits(name="llama.cpp")
_OF_BACKEND: Mapping[str, EngineTraits] = {
    **dict.fromkeys(("llama-cpp-python", "llama-server", "llamafile", "llama-bench"), LLAMA_CPP),
    "transformers": EngineTraits(
        name="transformers", host_weight_bytes=4.0, gpu_weight_bytes=2.0, grows_cache=True
    ),
}


def engine_of(backend: str) -> EngineTraits:
    """The engine behind a backend; one that nobody describes is an engine of its own."""
    return _OF_BACKEND.get(backend) or EngineTraits(name=backend)


@lru_cache(maxsize=256)
def held_model(model: ModelFacts, weight_bytes: float) -> ModelFacts:
    """The model as an engine holds it that unpacks the file: so many bytes in each weight."""
    tensors = tuple(
        dataclasses.replace(
            tensor,
            type="F32" if weight_bytes == 4 else "F16",
            n_bytes=round(tensor.n_elements * weight_bytes),
        )
        for tensor in model.tensors
    )
    return dataclasses.replace(model, tensors=tensors, layer_bytes=())
