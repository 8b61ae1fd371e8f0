"""Which GGUF files the llama.cpp of September 2023 inside ctransformers can load.

That library ends a failed load without a word, and some with the process; what it would refuse is
therefore read from the header beforehand. It takes every version of the format that
:mod:`autotune.facts.gguf_header` reads (version 3 differs in nothing that it looks at), but only
two architectures, the tensors and element types of its year, and a vocabulary with scores. Source:
``llm_load_vocab`` and ``llm_load_tensors`` of its ``models/ggml/llama.cpp``; the tests hold each
rule against the library.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from autotune.facts.gguf_header import Header, read_header

_TYPES = frozenset(
    ["F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
)  # fmt: skip
_ONCE = {
    "llama": "token_embd output_norm output",
    "falcon": "token_embd output_norm output output_norm.bias",
}
_EACH_LAYER = {
    "llama": "attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_down ffn_up",
    "falcon": "attn_norm attn_norm.bias attn_qkv attn_output ffn_down ffn_up",
}
"""Tensors of each architecture; ``.weight`` is left out."""
_PERHAPS = {"llama": "", "falcon": "attn_norm_2 attn_norm_2.bias"}
_VOCABULARIES = ("llama", "gpt2")
_MAX_SHOWN = 3


def why_not(path: Path) -> str:
    """What of a file the library does not know, in a few words; empty where it knows all of it.

    Raises GGUFError for a file that is no sound GGUF file.
    """
    header = read_header(path)
    return next(_problems(header), "")


def _problems(header: Header) -> Iterator[str]:
    """Everything that stands against a load, the plainest first."""
    architecture = str(header.values.get("general.architecture", ""))
    if architecture not in _ONCE:
        yield f"its architecture is {architecture}, known are {' and '.join(_ONCE)}"
        return
    types = {tensor.type.name for tensor in header.tensors} - _TYPES
    if types:
        yield f"weights of type {_some(types)} are newer than it"
    yield from _vocabulary_problems(header)
    yield from _tensor_problems(header, architecture)
    yield from _shape_problems(header, architecture)


def _vocabulary_problems(header: Header) -> Iterator[str]:
    kind = header.values.get("tokenizer.ggml.model", "none")
    if kind not in _VOCABULARIES:
        yield f"its vocabulary is of kind {kind}, known are {' and '.join(_VOCABULARIES)}"
    wanted = ["tokens", "scores", "token_type", *(["merges"] if kind == "gpt2" else [])]
    missing = [name for name in wanted if f"tokenizer.ggml.{name}" not in header.lengths]
    if missing:
        yield f"its vocabulary has no {_some(missing)}, which files of 2023 had"


def _tensor_problems(header: Header, architecture: str) -> Iterator[str]:
    n_layers = header.values.get(f"{architecture}.block_count", 0)
    layers = range(n_layers if isinstance(n_layers, int) else 0)
    once, perhaps = _named(_ONCE[architecture]), _named(_PERHAPS[architecture])
    each = _named(_EACH_LAYER[architecture])
    needed = {*once, *(f"blk.{layer}.{name}" for layer in layers for name in each)}
    allowed = {f"blk.{layer}.{name}" for layer in layers for name in perhaps}
    found = {tensor.name for tensor in header.tensors}
    if needed - found:
        yield f"it has no tensor {_some(needed - found)}"
    if found - needed - allowed:
        yield f"it has a tensor that is newer: {_some(found - needed - allowed)}"


def _shape_problems(header: Header, architecture: str) -> Iterator[str]:
    """Keys that it would pass over, and compute something else."""
    for key in ("rope.scaling.type", "attention.sliding_window"):
        value = header.values.get(f"{architecture}.{key}")
        if value not in (None, 0, "none"):
            yield f"it would pass over {key}={value}"


def _named(names: str) -> list[str]:
    return [name if name.endswith(".bias") else f"{name}.weight" for name in names.split()]


def _some(names: Iterable[str]) -> str:
    """The first few, in order."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _MAX_SHOWN} more" if len(ordered) > _MAX_SHOWN else ""
    return ", ".join(ordered[:_MAX_SHOWN]) + more
