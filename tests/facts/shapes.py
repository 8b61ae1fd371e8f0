"""Models of real shapes without weights: sparse files of a header and a hole.

The engine's dry run needs no weights, so a model of eight billion parameters takes a few kilobytes
of disk. Only as many layers are written as there are kinds of layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES

Shape = tuple[str, tuple[int, ...], str]
Q, F = "Q4_0", "F32"


def write_shape(
    path: Path, architecture: str, *, keys: Mapping[str, Any], tensors: Iterator[Shape]
) -> Path:
    """A file with every key and the tensor table, its data a hole."""
    writer = GGUFWriter(path, architecture)
    writer.add_tokenizer_model("no_vocab")
    for key, value in keys.items():
        _add(writer, f"{architecture}.{key}", value)
    for name, shape, type_name in tensors:
        type_ = GGMLQuantizationType[type_name]
        block, size = GGML_QUANT_SIZES[type_]
        n_bytes = int(np.prod(shape)) // block * size
        rows = (*reversed(shape[1:]), shape[0] // block * size)
        writer.add_tensor_info(name, rows, np.dtype(np.uint8), n_bytes, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    data = sum(-(-info.nbytes // 32) * 32 for part in writer.tensors for info in part.values())
    with path.open("r+b") as file:
        file.truncate(-(-file.seek(0, 2) // 32) * 32 + data)
    return path


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        writer.add_array(key, value)


def _keys(n_layers: int, n_embd: int, n_vocab: int, n_ff: int, **more: Any) -> dict[str, Any]:
    return {
        "block_count": n_layers,
        "context_length": 131_072,
        "embedding_length": n_embd,
        "feed_forward_length": n_ff,
        "vocab_size": n_vocab,
        "attention.layer_norm_rms_epsilon": 1e-5,
        **{name.replace("__", "."): value for name, value in more.items()},
    }


def _ends(n_embd: int, n_vocab: int, *, tied: bool = False) -> Iterator[Shape]:
    yield "token_embd.weight", (n_embd, n_vocab), Q
    yield "output_norm.weight", (n_embd,), F
    if not tied:
        yield "output.weight", (n_embd, n_vocab), Q


def _attention(p: str, n_embd: int, query: int, key: int) -> Iterator[Shape]:
    yield f"{p}attn_q.weight", (n_embd, query), Q
    yield f"{p}attn_k.weight", (n_embd, key), Q
    yield f"{p}attn_v.weight", (n_embd, key), Q
    yield f"{p}attn_output.weight", (query, n_embd), Q


def _feed(p: str, n_embd: int, n_ff: int, suffix: str = "", *more: int) -> Iterator[Shape]:
    yield f"{p}ffn_gate{suffix}.weight", (n_embd, n_ff, *more), Q
    yield f"{p}ffn_up{suffix}.weight", (n_embd, n_ff, *more), Q
    yield f"{p}ffn_down{suffix}.weight", (n_ff, n_embd, *more), Q


def _norms(p: str, n_embd: int, *names: str) -> Iterator[Shape]:
    for name in ("attn_norm", "ffn_norm", *names):
        yield f"{p}{name}.weight", (n_embd,), F


def dense(
    path: Path,
    architecture: str = "llama",
    *,
    n_layers: int = 3,
    n_embd: int = 4096,
    n_heads: int = 32,
    n_heads_kv: int = 8,
    head: int = 128,
    n_ff: int = 14336,
    n_vocab: int = 128_256,
    n_experts: int = 0,
    n_used: int = 0,
    **more: Any,
) -> Path:
    """Llama 3 8B and its relatives: Qwen 3, Gemma 3, Mixtral."""

    def tensors() -> Iterator[Shape]:
        yield from _ends(n_embd, n_vocab)
        for layer in range(n_layers):
            p = f"blk.{layer}."
            post = ("post_attention_norm", "post_ffw_norm") if architecture == "gemma3" else ()
            yield from _norms(p, n_embd, *post)
            yield from _attention(p, n_embd, n_heads * head, n_heads_kv * head)
            if architecture != "llama":
                yield f"{p}attn_q_norm.weight", (head,), F
                yield f"{p}attn_k_norm.weight", (head,), F
            if n_experts:
                yield f"{p}ffn_gate_inp.weight", (n_embd, n_experts), F
                yield from _feed(p, n_embd, n_ff, "_exps", n_experts)
            else:
                yield from _feed(p, n_embd, n_ff)

    experts = {"expert_count": n_experts, "expert_used_count": n_used} if n_experts else {}
    keys = _keys(
        n_layers,
        n_embd,
        n_vocab,
        n_ff,
        attention__head_count=n_heads,
        attention__head_count_kv=n_heads_kv,
        attention__key_length=head,
        attention__value_length=head,
        rope__dimension_count=head,
        expert_feed_forward_length=n_ff,
        **experts,
        **more,
    )
    return write_shape(path, architecture, keys=keys, tensors=tensors())


def jamba(path: Path) -> Path:
    """Three recurrent layers and one with attention."""
    n_embd, n_vocab, n_ff, heads = 1024, 65_536, 4096, [0, 0, 2, 0]
    inner, state, rank, kernel = 2 * n_embd, 16, 64, 4

    def tensors() -> Iterator[Shape]:
        yield from _ends(n_embd, n_vocab, tied=True)
        for layer, n_heads_kv in enumerate(heads):
            p = f"blk.{layer}."
            yield from _norms(p, n_embd)
            yield from _feed(p, n_embd, n_ff)
            if n_heads_kv:
                yield from _attention(p, n_embd, n_embd, n_heads_kv * n_embd // 8)
                continue
            yield f"{p}ssm_in.weight", (n_embd, 2 * inner), Q
            yield f"{p}ssm_conv1d.weight", (kernel, inner), F
            yield f"{p}ssm_conv1d.bias", (inner,), F
            yield f"{p}ssm_x.weight", (inner, rank + 2 * state), Q
            yield f"{p}ssm_dt_norm.weight", (rank,), F
            yield f"{p}ssm_b_norm.weight", (state,), F
            yield f"{p}ssm_c_norm.weight", (state,), F
            yield f"{p}ssm_dt.weight", (rank, inner), Q
            yield f"{p}ssm_dt.bias", (inner,), F
            yield f"{p}ssm_a", (state, inner), F
            yield f"{p}ssm_d", (inner,), F
            yield f"{p}ssm_out.weight", (inner, n_embd), Q

    keys = _keys(
        4,
        n_embd,
        n_vocab,
        n_ff,
        attention__head_count=8,
        attention__head_count_kv=heads,
        ssm__conv_kernel=kernel,
        ssm__inner_size=inner,
        ssm__state_size=state,
        ssm__time_step_rank=rank,
    )
    return write_shape(path, "jamba", keys=keys, tensors=tensors())


def deepseek(path: Path) -> Path:
    """DeepSeek V2 Lite with a compressed cache: one dense layer, two with experts."""
    n_embd, n_vocab, n_ff, n_heads = 2048, 102_400, 10_944, 16
    rank, rope, query_rank, key, value = 512, 64, 1536, 192, 128
    n_experts, n_ff_expert = 64, 1408

    def tensors() -> Iterator[Shape]:
        yield from _ends(n_embd, n_vocab)
        for layer in range(3):
            p = f"blk.{layer}."
            yield from _norms(p, n_embd)
            yield f"{p}attn_q_a_norm.weight", (query_rank,), F
            yield f"{p}attn_kv_a_norm.weight", (rank,), F
            yield f"{p}attn_q_a.weight", (n_embd, query_rank), Q
            yield f"{p}attn_q_b.weight", (query_rank, n_heads * key), Q
            yield f"{p}attn_kv_a_mqa.weight", (n_embd, rank + rope), Q
            yield f"{p}attn_k_b.weight", (key - rope, rank, n_heads), Q
            yield f"{p}attn_v_b.weight", (rank, value, n_heads), Q
            yield f"{p}attn_output.weight", (n_heads * value, n_embd), Q
            if layer == 0:
                yield from _feed(p, n_embd, n_ff)
                continue
            yield f"{p}ffn_gate_inp.weight", (n_embd, n_experts), F
            yield from _feed(p, n_embd, n_ff_expert, "_exps", n_experts)
            yield from _feed(p, n_embd, 2 * n_ff_expert, "_shexp")

    keys = _keys(
        3,
        n_embd,
        n_vocab,
        n_ff,
        attention__head_count=n_heads,
        attention__head_count_kv=1,
        attention__key_length=rank + rope,
        attention__value_length=rank,
        attention__key_length_mla=key,
        attention__value_length_mla=value,
        attention__kv_lora_rank=rank,
        attention__q_lora_rank=query_rank,
        rope__dimension_count=rope,
        leading_dense_block_count=1,
        expert_count=n_experts,
        expert_used_count=6,
        expert_feed_forward_length=n_ff_expert,
        expert_shared_count=2,
        expert_weights_scale=1.0,
    )
    return write_shape(path, "deepseek2", keys=keys, tensors=tensors())
