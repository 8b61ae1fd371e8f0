"""GGUF files as they were in 2023: version 2, a vocabulary with scores, an output layer."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

N_EMBD, N_FF, N_HEADS, N_HEADS_KV, N_LAYERS = 64, 192, 4, 2, 2
_KEYS: Mapping[str, int | float] = {
    "context_length": 2048,
    "embedding_length": N_EMBD,
    "block_count": N_LAYERS,
    "feed_forward_length": N_FF,
    "rope.dimension_count": N_EMBD // N_HEADS,
    "attention.head_count": N_HEADS,
    "attention.head_count_kv": N_HEADS_KV,
    "attention.layer_norm_rms_epsilon": 1e-5,
    "attention.layer_norm_epsilon": 1e-5,
}
_LAYERS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "llama": {
        "attn_norm.weight": (N_EMBD,),
        "attn_q.weight": (N_EMBD, N_EMBD),
        "attn_k.weight": (N_EMBD * N_HEADS_KV // N_HEADS, N_EMBD),
        "attn_v.weight": (N_EMBD * N_HEADS_KV // N_HEADS, N_EMBD),
        "attn_output.weight": (N_EMBD, N_EMBD),
        "ffn_norm.weight": (N_EMBD,),
        "ffn_gate.weight": (N_FF, N_EMBD),
        "ffn_up.weight": (N_FF, N_EMBD),
        "ffn_down.weight": (N_EMBD, N_FF),
    },
    "falcon": {
        "attn_norm.weight": (N_EMBD,),
        "attn_norm.bias": (N_EMBD,),
        "attn_qkv.weight": (2 * N_EMBD, N_EMBD),
        "attn_output.weight": (N_EMBD, N_EMBD),
        "ffn_up.weight": (N_FF, N_EMBD),
        "ffn_down.weight": (N_EMBD, N_FF),
    },
}


def write_old_model(
    path: Path,
    *,
    architecture: str = "llama",
    named: str = "",
    version: int = 2,
    vocabulary: str = "llama",
    type_name: str = "F16",
    without: Collection[str] = (),
    extra: Mapping[str, tuple[int, ...]] | None = None,
    keys: Mapping[str, str] | None = None,
) -> Path:
    """A tiny model with random weights that knows bytes and a few words.

    ``named`` is what the file calls the architecture; ``without`` names tensors and tables of the
    vocabulary that are left out, ``extra`` tensors that are added, ``keys`` texts.
    """
    named = named or architecture
    writer = GGUFWriter(path, named)
    for key, value in _KEYS.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{named}.{key}", value)
    for key, text in (keys or {}).items():
        writer.add_string(f"{named}.{key}", text)
    _write_vocabulary(writer, vocabulary, without)
    random = np.random.default_rng(0)
    type_ = GGMLQuantizationType[type_name]
    for name, shape in (_shapes(architecture) | dict(extra or {})).items():
        if name in without:
            continue
        if len(shape) == 1:
            writer.add_tensor(name, np.full(shape, name.endswith("weight"), np.float32))
            continue
        weights = random.normal(0, shape[1] ** -0.5, shape).astype(np.float32)
        writer.add_tensor(name, quants.quantize(weights, type_), raw_dtype=type_)
    return _finish(writer, path, version)


def _shapes(architecture: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(_words()), N_EMBD),
        "output_norm.weight": (N_EMBD,),
        "output.weight": (len(_words()), N_EMBD),
    }
    if architecture == "falcon":
        shapes["output_norm.bias"] = (N_EMBD,)
    for layer in range(N_LAYERS):
        for name, shape in _LAYERS[architecture].items():
            shapes[f"blk.{layer}.{name}"] = shape
    return shapes


def _words(kind: str = "llama") -> list[tuple[bytes, int]]:
    """Words with their kinds: 1 ordinary, 2 unknown, 3 control, 6 a byte."""
    raw = [(bytes([byte]), 1) for byte in range(256)]
    named = [(f"<0x{byte:02X}>".encode(), 6) for byte in range(256)]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    plain = ["▁", *letters, *(f"▁{letter}" for letter in letters), "th", "▁th", "▁the"]
    return [
        (b"<unk>", 2),
        (b"<s>", 3),
        (b"</s>", 3),
        *(raw if kind == "gpt2" else named),
        *((word.encode(), 1) for word in plain),
    ]


def _write_vocabulary(writer: GGUFWriter, kind: str, without: Collection[str]) -> None:
    words = _words(kind)
    writer.add_tokenizer_model(kind)
    if "tokens" not in without:
        writer.add_token_list([word for word, _ in words])
    if "scores" not in without:
        writer.add_token_scores([-float(i) for i in range(len(words))])
    if "token_type" not in without:
        writer.add_token_types([of for _, of in words])
    if kind == "gpt2" and "merges" not in without:
        writer.add_token_merges(["t h", "Ġ th"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def write_smollm2_of_2023(source: Path, path: Path) -> Path:
    """SmolLM2 as a converter of 2023 would have written it: same weights, same words.

    The words are text, not bytes in disguise; the output layer is a copy of the embedding.
    """
    reader = GGUFReader(source)
    fields = reader.fields
    writer = GGUFWriter(path, "llama")
    for name, field in fields.items():
        if name.startswith("llama."):
            writer.add_key_value(name, field.contents(), field.types[0])
    words: Any = fields["tokenizer.ggml.tokens"].contents()
    kinds: Any = fields["tokenizer.ggml.token_type"].contents()
    writer.add_tokenizer_model("gpt2")
    pairs = zip(words, kinds, strict=True)
    writer.add_token_list([_plain(word) if kind == 1 else word.encode() for word, kind in pairs])
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types(kinds)
    writer.add_token_merges(fields["tokenizer.ggml.merges"].contents())
    writer.add_bos_token_id(fields["tokenizer.ggml.bos_token_id"].contents())
    writer.add_eos_token_id(fields["tokenizer.ggml.eos_token_id"].contents())
    writer.add_add_bos_token(False)
    for tensor in reader.tensors:
        names = [tensor.name, *(["output.weight"] if tensor.name == "token_embd.weight" else [])]
        for name in names:
            writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    return _finish(writer, path, 2)


def _plain(word: str) -> bytes:
    """The bytes that a word of GPT-2's alphabet stands for."""
    return bytes(_ALPHABET[letter] for letter in word)


def _alphabet() -> dict[str, int]:
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


_ALPHABET = _alphabet()


def _finish(writer: GGUFWriter, path: Path, version: int) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.seek(4)
        file.write(struct.pack("<I", version))
    return path
