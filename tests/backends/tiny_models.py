"""Whole models of a few kilobytes, with random weights and a vocabulary of bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter

N_EMBD, N_FF, N_HEADS, N_HEADS_KV, HEAD = 64, 128, 4, 2, 16
N_WORDS = 259
"""256 bytes, the two ends of a text, and one word of two letters."""

_SHAPES: Mapping[str, tuple[int, ...]] = {
    "attn_norm": (N_EMBD,),
    "attn_q": (N_HEADS * HEAD, N_EMBD),
    "attn_k": (N_HEADS_KV * HEAD, N_EMBD),
    "attn_v": (N_HEADS_KV * HEAD, N_EMBD),
    "attn_output": (N_EMBD, N_HEADS * HEAD),
    "ffn_norm": (N_EMBD,),
    "ffn_gate": (N_FF, N_EMBD),
    "ffn_up": (N_FF, N_EMBD),
    "ffn_down": (N_EMBD, N_FF),
}
_GEMMA3_NORMS: Mapping[str, tuple[int, ...]] = {
    "attn_q_norm": (HEAD,),
    "attn_k_norm": (HEAD,),
    "post_attention_norm": (N_EMBD,),
    "post_ffw_norm": (N_EMBD,),
}


def write_tiny_model(
    path: Path,
    *,
    architecture: str = "llama",
    n_layers: int = 2,
    window: int = 0,
    dtype: type[np.floating[Any]] = np.float32,
    without: Collection[str] = (),
) -> Path:
    """Write a model of ``architecture``, its weights of ``dtype``, norms of float32.

    ``without`` names tensors that are left out of the file.
    """
    writer = GGUFWriter(path, architecture)
    _describe(writer, n_layers, window)
    shapes = {"token_embd": (N_WORDS, N_EMBD), "output_norm": (N_EMBD,)}
    kinds = _SHAPES | (_GEMMA3_NORMS if architecture == "gemma3" else {})
    for layer in range(n_layers):
        shapes |= {f"blk.{layer}.{kind}": shape for kind, shape in kinds.items()}
    random = np.random.default_rng(0)
    for name, shape in shapes.items():
        weights = random.normal(0, 0.3, shape).astype(np.float32)
        if name not in without:
            is_norm = name.endswith("norm")
            writer.add_tensor(f"{name}.weight", weights + 1 if is_norm else weights.astype(dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: GGUFWriter, n_layers: int, window: int) -> None:
    writer.add_name("tiny")
    writer.add_block_count(n_layers)
    writer.add_context_length(256)
    writer.add_embedding_length(N_EMBD)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_HEADS_KV)
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HEAD)
    if window:
        writer.add_sliding_window(window)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*_byte_names(), "<s>", "</s>", "th"])
    writer.add_token_types([1] * 256 + [3, 3, 1])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)


def _byte_names() -> list[str]:
    """GPT-2's letter for each byte: itself where it can be printed, else one past Latin."""
    printed = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printed else chr(next(others)) for byte in range(256)]
