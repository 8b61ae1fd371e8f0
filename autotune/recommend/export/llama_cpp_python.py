"""A configuration for llama-cpp-python: the call of ``llama_cpp.Llama``."""

from __future__ import annotations

from pathlib import Path

from autotune.domain.config import Config
from autotune.recommend.export.notes import commented, named

_SIZES = ("n_ctx", "n_batch", "n_ubatch", "n_threads", "n_threads_batch")
"""Knobs whose default in llama_cpp depends on the machine, or is too small to work with."""
_SAME = ("use_mmap", "use_mlock", "n_gpu_layers", "offload_kqv", "op_offload", "main_gpu",
         "swa_full")  # fmt: skip
"""Knobs that are, like the sizes, arguments of the same name and value."""
_BF16 = "30"
"""The one ggml type among the cache types that llama_cpp 0.3.36 has no name for."""


def python_line(model: Path, config: Config) -> str:
    """The ``llama_cpp.Llama(…)`` call in one line, without what ``Llama`` does by itself."""
    by_itself = _arguments(Config())
    arguments = ", ".join(
        f"{name}={code}"
        for name, code in _arguments(config).items()
        if name in _SIZES or code != by_itself[name]
    )
    return f"llama_cpp.Llama({str(model)!r}, {arguments})"


def python_snippet(model: Path, config: Config) -> str:
    """Code that loads the model as ``llm``, with what it cannot say as comments."""
    notes = [f"{named(config, 'n_parallel')}: a Llama decodes one sequence at a time"]
    if config.flash_attn == "auto":
        notes.append("flash_attn=auto: a Llama is told True or False")
    if "bf16" in {config.type_k, config.type_v}:
        notes.append(f"{_BF16} is bf16, a ggml type that llama_cpp has no name for")
    arguments = {"model_path": repr(str(model)), **_arguments(config)}
    lines = [f"    {name}={code}," for name, code in arguments.items()]
    return commented(
        notes, "\n".join(["import llama_cpp", "", "llm = llama_cpp.Llama(", *lines, ")"])
    )


def _arguments(config: Config) -> dict[str, str]:
    """Argument → expression."""
    return {name: repr(getattr(config, name)) for name in _SIZES + _SAME} | {
        "flash_attn": repr(config.flash_attn != "off"),
        "type_k": _ggml_type(config.type_k),
        "type_v": _ggml_type(config.type_v),
        "split_mode": f"llama_cpp.LLAMA_SPLIT_MODE_{config.split_mode.upper()}",
        "tensor_split": repr(list(config.tensor_split) if config.tensor_split else None),
    }


def _ggml_type(name: str) -> str:
    return _BF16 if name == "bf16" else f"llama_cpp.GGML_TYPE_{name.upper()}"
