"""What is true of a GGUF language model before anyone runs it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from autotune.domain.config import KV_BLOCK_ELEMENTS

TENSOR_GROUPS = ("attention", "ffn", "experts", "embedding", "lookup", "output", "other")
"""``lookup`` is a table of which one token reads one row: per-layer and position embeddings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSum:
    """The tensors of one group and one element type, summed."""

    group: str
    """One of :data:`TENSOR_GROUPS`."""
    type: str
    """ggml type name, such as ``Q4_1``."""
    n_tensors: int
    n_elements: int
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Shape and size of one GGUF model. What the header does not say is None."""

    model_id: str
    """16 hexadecimal digits of the SHA-256 of header, tensor table and file size."""
    name: str
    """``general.name``, else the file's stem."""
    architecture: str
    """``general.architecture``, such as ``llama``."""
    quantization: str
    """The element type that holds most of the weights, such as ``Q4_1``."""
    file_bytes: int
    header_bytes: int
    """Bytes before the first tensor's data."""
    n_layers: int
    n_embd: int
    n_ff: int
    """Width of the feed-forward block (the widest layer where they differ)."""
    n_heads: tuple[int, ...]
    """Attention heads of each layer; shape (n_layers,)."""
    n_heads_kv: tuple[int, ...]
    """Key/value heads of each layer; 0 in a layer that keeps no cache; shape (n_layers,)."""
    key_length: int
    """Elements of one key head."""
    value_length: int
    """Elements of one value head."""
    n_ctx_train: int
    """Context length the model was trained for, in tokens."""
    n_vocab: int
    n_experts: int = 0
    n_experts_used: int = 0
    n_ff_expert: int = 0
    sliding_window: int = 0
    """Attention window of the sliding-window layers, in tokens; 0 where there are none."""
    is_sliding: tuple[bool, ...] = ()
    """Whether each layer slides; shape (n_layers,), or empty where none does."""
    key_length_sliding: int = 0
    """Elements of one key head in a sliding layer; 0 where they are ``key_length``."""
    value_length_sliding: int = 0
    """Elements of one value head in a sliding layer; 0 where they are ``value_length``."""
    kv_lora_rank: int = 0
    """Width of the compressed key/value (MLA) cache; 0 where the cache is not compressed."""
    rope_dimension: int = 0
    ssm_conv_kernel: int = 0
    ssm_inner_size: int = 0
    ssm_group_count: int = 0
    ssm_state_size: int = 0
    is_recurrent: tuple[bool, ...] = ()
    """Whether each layer keeps a state; shape (n_layers,), or empty where none does."""
    state_elements: int = 0
    """Float32 elements of the state that a recurrent layer keeps per sequence."""
    layer_bytes: tuple[int, ...] = ()
    """Weight bytes of each layer; shape (n_layers,), or empty where nobody counted them."""
    tensors: tuple[TensorSum, ...] = ()

    @property
    def n_params(self) -> int:
        """Elements of all tensors."""
        return sum(tensor.n_elements for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors (the file without its header)."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def can_quantise_cache(self) -> bool:
        """Whether every head divides into the blocks of a quantised cache."""
        lengths = (self.key_length, self.value_length)
        sliding = (self.key_length_sliding, self.value_length_sliding)
        return not any(length % KV_BLOCK_ELEMENTS for length in (*lengths, *sliding))

    @property
    def is_tied(self) -> bool:
        """Whether the output layer re-uses the token embedding."""
        return not any(tensor.group == "output" for tensor in self.tensors)

    @property
    def expert_share(self) -> float:
        """Share of the expert weights that one token reads; 1 for a dense model."""
        return self.n_experts_used / self.n_experts if self.n_experts else 1.0

    @property
    def active_tensors(self) -> Iterable[tuple[TensorSum, float]]:
        """Each tensor sum with the share of it that decoding one token reads.

        The embedding is a table look-up (one row), unless it is tied: then the output layer
        reads all of it.
        """
        looked_up = ("lookup",) if self.is_tied else ("lookup", "embedding")
        for tensor in self.tensors:
            if tensor.group == "experts":
                yield tensor, self.expert_share
            elif tensor.group not in looked_up:
                yield tensor, 1.0

    @property
    def active_bytes(self) -> float:
        """Weight bytes read to decode one token."""
        return sum(tensor.n_bytes * share for tensor, share in self.active_tensors)

    @property
    def active_params(self) -> float:
        """Weights multiplied to decode one token."""
        return sum(tensor.n_elements * share for tensor, share in self.active_tensors)

    @property
    def slides(self) -> bool:
        """Whether any layer has a sliding window."""
        return any(self.is_sliding)

    def __hash__(self) -> int:
        """By identity of the file: hashing every field would dominate each look-up in a cache."""
        return hash(self.model_id)

    def cached_elements(self, layer: int) -> tuple[int, int]:
        """(Key, value) elements that a layer caches per token; MLA caches one row, no values."""
        n_heads_kv = self.n_heads_kv[layer]
        key_length, value_length = self.key_length, self.value_length
        if self.is_sliding and self.is_sliding[layer]:
            key_length = self.key_length_sliding or key_length
            value_length = self.value_length_sliding or value_length
        return n_heads_kv * key_length, 0 if self.kv_lora_rank else n_heads_kv * value_length
