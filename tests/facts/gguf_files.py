"""Small GGUF files, written with the reference library."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.constants import GGML_QUANT_SIZES

HEADER_BYTES = 24
LLAMA: Mapping[str, Any] = {
    "block_count": 2,
    "context_length": 512,
    "embedding_length": 64,
    "feed_forward_length": 128,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
}
TENSORS: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("token_embd.weight", (64, 96), "Q8_0"),
    ("blk.0.attn_q.weight", (64, 64), "Q4_0"),
    ("blk.0.ffn_up.weight", (64, 128), "Q4_0"),
    ("blk.1.attn_norm.weight", (64,), "F32"),
)


class QuickReader(GGUFReader):
    """The reference reader without its slow slices; four times as fast on a large vocabulary."""

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        plain = self.__dict__.setdefault("plain", self.data.view(np.ndarray))
        return plain[offset : offset + np.dtype(dtype).itemsize * int(count)].view(dtype)


def write_gguf(
    path: Path,
    *,
    architecture: str = "llama",
    keys: Mapping[str, Any] = LLAMA,
    plain_keys: Mapping[str, Any] | None = None,
    tensors: Sequence[tuple[str, tuple[int, ...], str]] = TENSORS,
) -> Path:
    """Write ``keys`` under the architecture, ``plain_keys`` as they are, and empty tensors."""
    writer = GGUFWriter(path, architecture)
    for key, value in keys.items():
        _add(writer, f"{architecture}.{key}", value)
    for key, value in (plain_keys or {}).items():
        _add(writer, key, value)
    for name, shape, type_name in tensors:
        type_ = GGMLQuantizationType[type_name]
        block, size = GGML_QUANT_SIZES[type_]
        rows = (*reversed(shape[1:]), shape[0] // block * size)
        writer.add_tensor(name, np.zeros(rows, dtype=np.uint8), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def patched(path: Path, offset: int, form: str, *values: int) -> Path:
    """The file with some bytes replaced."""
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, offset, *values)
    path.write_bytes(data)
    return path
