"""The facts of a GGUF language model, read from its header without touching the weights."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from autotune.domain.errors import GGUFError
from autotune.domain.model import ModelFacts, TensorSum
from autotune.facts.architecture import read_layers
from autotune.facts.gguf_header import Header, Tensor, read_header
from autotune.facts.keys import Keys

_PART = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<count>\d{5})\.gguf")
_LAYER = re.compile(r"blk\.(\d+)\.")
_GROUPS = (
    (re.compile(r"token_embd\."), "embedding"),
    (re.compile(r"output\."), "output"),
    (re.compile(r"(per_layer_token_embd|position_embd|token_types)\."), "lookup"),
    (re.compile(r".*norm"), "other"),
    (re.compile(r".*_exps"), "experts"),
    (re.compile(r".*\.attn"), "attention"),
    (re.compile(r".*\.ffn"), "ffn"),
)
"""The group of a tensor by its name, the first that matches; llama.cpp's are ``blk.LAYER.PART``."""


def read_model(path: Path) -> ModelFacts:
    """Shape, size and identity of the model in ``path``; of a split model, of all its parts.

    Takes milliseconds, tens of them for a large vocabulary. Raises GGUFError with one line that
    names the file and the cure if it is missing, damaged, cut short or no language model.
    """
    header = read_header(path)
    keys = Keys(path, header)
    parts = (header, *_other_parts(path, keys))
    tensors = [tensor for part in parts for tensor in part.tensors]
    layers = read_layers(keys)
    n_embd = keys.required("embedding_length")
    n_heads = keys.per_layer("attention.head_count")
    head_length = n_embd // n_heads[0] if n_heads[0] else 0
    n_experts = keys.integer("expert_count")
    n_ff = keys.integer("feed_forward_length")
    sums = _sum_tensors(tensors)
    return ModelFacts(
        model_id=_identity(parts),
        name=str(header.values.get("general.name") or path.stem),
        architecture=keys.architecture,
        quantization=_main_type(sums),
        file_bytes=sum(part.file_bytes for part in parts),
        header_bytes=sum(part.data_offset for part in parts),
        n_layers=keys.n_layers,
        n_embd=n_embd,
        n_ff=n_ff,
        n_heads=n_heads,
        n_heads_kv=layers.n_heads_kv,
        key_length=keys.integer("attention.key_length", head_length),
        value_length=keys.integer("attention.value_length", head_length),
        n_ctx_train=keys.required("context_length"),
        n_vocab=_n_vocab(keys, tensors),
        n_experts=n_experts,
        n_experts_used=keys.integer("expert_used_count"),
        n_ff_expert=keys.integer("expert_feed_forward_length", n_ff) if n_experts else 0,
        sliding_window=layers.sliding_window,
        is_sliding=layers.is_sliding,
        key_length_sliding=keys.integer("attention.key_length_swa"),
        value_length_sliding=keys.integer("attention.value_length_swa"),
        kv_lora_rank=_compressed_width(keys),
        rope_dimension=keys.integer("rope.dimension_count"),
        ssm_conv_kernel=keys.integer("ssm.conv_kernel"),
        ssm_inner_size=keys.integer("ssm.inner_size"),
        ssm_group_count=keys.integer("ssm.group_count"),
        ssm_state_size=keys.integer("ssm.state_size"),
        is_recurrent=layers.is_recurrent,
        state_elements=layers.state_elements,
        layer_bytes=_layer_bytes(tensors, keys.n_layers),
        tensors=sums,
    )


def _other_parts(path: Path, keys: Keys) -> Iterable[Header]:
    """Headers of the second and later parts, which the engine finds by the name of the first."""
    n_parts = keys.header.values.get("split.count", 1)
    if not isinstance(n_parts, int) or n_parts < 2:
        return
    number = keys.header.values.get("split.no", 0)
    match = _PART.fullmatch(path.name)
    if match is None or int(match["part"]) != 1 or number != 0 or int(match["count"]) != n_parts:
        raise GGUFError(
            f"{path}: not the first of a model's {n_parts} parts: "
            f"give the file whose name ends in -00001-of-{n_parts:05d}.gguf"
        )
    for part in range(2, n_parts + 1):
        yield read_header(path.with_name(f"{match['stem']}-{part:05d}-of-{n_parts:05d}.gguf"))


def _identity(parts: Sequence[Header]) -> str:
    """Of a file that is not split, the beginning of its own identity."""
    if len(parts) == 1:
        return parts[0].identity[:16]
    return hashlib.sha256("".join(part.identity for part in parts).encode()).hexdigest()[:16]


def _n_vocab(keys: Keys, tensors: Iterable[Tensor]) -> int:
    """Words of the tokeniser; without one, rows of the embedding."""
    rows = next((t.shape[-1] for t in tensors if t.name == "token_embd.weight"), 0)
    words = keys.header.lengths.get("tokenizer.ggml.tokens")
    return words or keys.integer("vocab_size", rows)


def _compressed_width(keys: Keys) -> int:
    """The MLA rank where llama.cpp caches the latent; old conversions expand it into heads."""
    return keys.integer("attention.kv_lora_rank") if keys.integer("attention.key_length_mla") else 0


def _sum_tensors(tensors: Iterable[Tensor]) -> tuple[TensorSum, ...]:
    """One sum for each group and element type, in the order of the file."""
    gathered: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        gathered[_group(tensor.name), tensor.type.name].append(tensor)
    return tuple(
        TensorSum(
            group=group,
            type=type_name,
            n_tensors=len(members),
            n_elements=sum(tensor.n_elements for tensor in members),
            n_bytes=sum(tensor.n_bytes for tensor in members),
        )
        for (group, type_name), members in gathered.items()
    )


def _group(name: str) -> str:
    return next((group for pattern, group in _GROUPS if pattern.match(name)), "other")


def _layer_bytes(tensors: Iterable[Tensor], n_layers: int) -> tuple[int, ...]:
    sizes = [0] * n_layers
    for tensor in tensors:
        match = _LAYER.match(tensor.name)
        if match and int(match[1]) < n_layers:
            sizes[int(match[1])] += tensor.n_bytes
    return tuple(sizes)


def _main_type(sums: Iterable[TensorSum]) -> str:
    """The type that holds most weights; empty for a file without tensors."""
    weights: dict[str, int] = defaultdict(int)
    for item in sums:
        weights[item.type] += item.n_elements
    return max(weights, key=lambda name: weights[name], default="")
