"""The roofline: the least time that memory and arithmetic allow.

A decoded token reads every active weight and the whole KV cache once, so its least time is bytes
over bandwidth or FLOPs over FLOPS, whichever is longer. A prompt multiplies every active weight
once per token and reads the weights that its tokens touch once per physical batch. Host and GPU
work one after the other, each on the layers that live there. Loading moves the file once.
Williams, Waterman, Patterson: "Roofline", CACM 52(4), 2009.

A host attends at less than the rate of its matrix products, and slower still to a quantised cache.

A host that decodes overlaps less: each core reads its part of a matrix, then multiplies it, and the
two times add up. (On an EPYC with one and two threads three models take 2.0 and 2.0, 1.5 and 1.4,
1.4 and 1.3 times as long; by the longer of the two 3.5 and 2.6, 2.2 and 1.8, 2.2 and 1.7.)

Everything here is exact arithmetic outside the learned part: a predictor only learns how much of
the roofline is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from autotune.domain.model import ModelFacts, TensorSum
from autotune.features.arrays import CaseArrays
from autotune.features.case import Array

VOCABULARY_S = 1e-6
"""Seconds to enter one word into the tokeniser's tables (0.05–0.4 s for 50k–260k words)."""
_OFFLOAD_TOKENS = 32
"""Batches from here on are computed on the GPU even for weights that live on the host
(``GGML_OP_OFFLOAD_MIN_BATCH``)."""
_SLOW_TYPES = ("Q4_1", "Q5_1")
"""Element types that ggml multiplies slowly on a processor."""
_SLOW_EFFORT = 2.0
"""How many times as long those take. (In prompts of a model whose ``ffn_down`` was in each type, on
a Xeon: Q4_1 2.0 and Q5_1 2.5 times Q8_0; F16, Q4_0, Q5_0, all K, IQ3_S, IQ4 and MXFP4 0.7 to 1.1.
On an EPYC one in Q4_1 takes 2.0 times as long as in Q8_0.)"""
_TILED_EFFORT = 2.0
"""What a processor takes for a FLOP of attention, in times of one of a matrix product, where a
prompt attends tile by tile. (On two EPYCs with one and two threads, by what 512 more cached tokens
cost, heads of 64 and of 256: 1.0 to 4.7, half of them 1.8 to 2.7, fused or not.)"""
_TILED_TOKENS = 64
"""Fused prompts attend by tiles in physical batches of at least so many (``GGML_FA_TILE_Q``)."""
_TOKEN_EFFORT = 5.0
"""The same token by token: in decode, and in fused prompts in smaller batches or over a quantised
cache. (There 2.6 to 9.9, half of them 4.4 to 6.1. With this and q8_0's a Xeon's decode is as far
from its roofline at 512 tokens as at none, within 8 %.)"""
_Q8_EFFORT = 9.0
"""The same where values are unpacked from q8_0. (6 to 11, in decode and in prompts.)"""
_Q4_EFFORT = 18.0
"""And from four or five bits. (Measured of q4_0: 13 to 21.)"""
_STATE_PASSES = 6
"""How often a token's recurrent state goes through memory: llama.cpp gathers it, computes the next
one, and copies that back, each reading and writing (ggml-org/llama.cpp, pull request 27973)."""
_MIN_S = 1e-12
_FAR = 8.0
"""Doublings from the roofline's knee beyond which it no longer matters how many they are."""


@dataclass(frozen=True, slots=True)
class ModelWork:
    """What one token costs a model, whatever the configuration."""

    active_bytes: float
    """Weight bytes that decoding one token reads, the output layer included."""
    active_params: float
    dense_bytes: float
    """Bytes of the layers that every token reads: all but experts and output layer."""
    expert_bytes: float
    """Bytes of all experts, used or not."""
    expert_share: float
    output_bytes: float
    body_params: float
    """Weights multiplied for every prompt token: all but the output layer."""
    output_params: float
    """Weights of the output layer, multiplied for the last prompt token only."""
    body_effort: float
    """What a processor takes for a weight of the body, in times of an ordinary type's."""
    output_effort: float
    kv_elements_k: int
    """Key-cache elements of one token, over all layers."""
    kv_elements_v: int
    state_bytes: float
    """What layers with a state read and write for one token."""
    attention_flops: float
    """FLOPs per token and per cached token: QKᵀ and the weighted sum of values."""
    sliding_share: float
    """Share of the KV elements that live in sliding-window layers."""
    attending_share: float
    """Share of the layers that look back at all: the others keep a state."""


@lru_cache(maxsize=1024)
def model_work(model: ModelFacts) -> ModelWork:
    """The per-token work of a model; remembered, because candidates share a model."""
    output = "embedding" if model.is_tied else "output"
    output_params = sum(t.n_elements for t in model.tensors if t.group == output)
    output_bytes = sum(t.n_bytes for t in model.tensors if t.group == output)
    experts = sum(t.n_bytes for t in model.tensors if t.group == "experts")
    cached = [model.cached_elements(layer) for layer in range(model.n_layers)]
    sliding = [sum(pair) for pair, slides in zip(cached, model.is_sliding, strict=False) if slides]
    attending = sum(bool(sum(pair)) for pair in cached)
    return ModelWork(
        active_bytes=model.active_bytes,
        active_params=model.active_params,
        dense_bytes=model.active_bytes - output_bytes - experts * model.expert_share,
        expert_bytes=experts,
        expert_share=model.expert_share,
        output_bytes=output_bytes,
        body_params=max(model.active_params - output_params, 1.0),
        output_params=output_params,
        body_effort=_effort((t, share) for t, share in model.active_tensors if t.group != output),
        output_effort=_effort((t, 1.0) for t in model.tensors if t.group == output),
        kv_elements_k=sum(key for key, _ in cached),
        kv_elements_v=sum(value for _, value in cached),
        state_bytes=_STATE_PASSES * 4.0 * sum(model.is_recurrent) * model.state_elements,
        attention_flops=2.0 * sum(model.n_heads) * (model.key_length + model.value_length),
        sliding_share=sum(sliding) / max(sum(map(sum, cached)), 1),
        attending_share=attending / max(model.n_layers, 1),
    )


def _effort(tensors: Iterable[tuple[TensorSum, float]]) -> float:
    """What a processor takes for one of these weights, in times of an ordinary type's."""
    weights = [(tensor.type in _SLOW_TYPES, tensor.n_elements * share) for tensor, share in tensors]
    n_params = sum(n for _, n in weights)
    slow = sum(n for is_slow, n in weights if is_slow)
    return 1 + (_SLOW_EFFORT - 1) * slow / max(n_params, 1)


@dataclass(frozen=True, slots=True)
class Roofline:
    """Times of each case at full use of its hardware, in seconds; fields have shape (n_cases,)."""

    prefill_s: Array
    """The whole prompt; 0 for a workload without one."""
    decode_s: Array
    """One generated token at the workload's mean depth."""
    load_s: Array
    """The file through memory once, the vocabulary built, the KV cache cleared."""
    decode_bytes: Array
    """Bytes that one generated token moves."""
    kv_bytes: Array
    """The part of ``decode_bytes`` that is KV cache and recurrent state."""
    decode_is_memory: Array
    """1 where decode is bound by memory, 0 where by arithmetic."""
    prefill_balance: Array
    """Base-2 logarithm of the time for memory over the time for arithmetic, on the device that
    takes longer: above 0 memory binds. Within ±8."""
    attention_share: Array
    """Of a prompt's FLOPs the part that looks back: QKᵀ and the weighted sum of values."""


@dataclass(frozen=True, slots=True)
class _Share:
    """What of a model lives on the GPU; the rest is the host's."""

    layers: Array
    output: Array
    kv: Array


def roofline(arrays: CaseArrays) -> Roofline:
    """The roofline of each case, from what its hardware can do."""
    work = _Work(arrays)
    share = _shares(arrays, work)
    decode, decode_bytes, kv_bytes, decode_memory = _decode(arrays, work, share)
    prefill, balance, attention_share = _prefill(arrays, work, share)
    return Roofline(
        prefill_s=prefill,
        decode_s=decode,
        load_s=_load(arrays, work, share),
        decode_bytes=decode_bytes,
        kv_bytes=kv_bytes,
        decode_is_memory=decode_memory,
        prefill_balance=balance,
        attention_share=attention_share,
    )


class _Work:
    """:class:`ModelWork` by column; every array has shape (n_cases,)."""

    def __init__(self, arrays: CaseArrays) -> None:
        for name in ModelWork.__dataclass_fields__:
            setattr(self, name, arrays.of_model(_reader(name)))
        self.window = arrays.of_model(lambda m: float(m.sliding_window or np.inf))
        self.n_layers = arrays.of_model(lambda m: m.n_layers)
        # What unpacks the file multiplies floats.
        is_packed = arrays.unpacked_bytes == 0
        self.body_on_host = self.body_params * np.where(is_packed, self.body_effort, 1.0)
        self.output_on_host = self.output_params * np.where(is_packed, self.output_effort, 1.0)
        self.token_effort, self.prompt_effort = _attention_efforts(arrays)

    dense_bytes: Array
    expert_bytes: Array
    expert_share: Array
    output_bytes: Array
    active_params: Array
    body_params: Array
    output_params: Array
    body_effort: Array
    output_effort: Array
    kv_elements_k: Array
    kv_elements_v: Array
    state_bytes: Array
    attention_flops: Array
    sliding_share: Array
    attending_share: Array

    def seen(self, depth: Array) -> Array:
        """Cached tokens that a token attends to, on average over the layers."""
        sliding = np.minimum(depth, self.window)
        return depth * (1 - self.sliding_share) + sliding * self.sliding_share

    def cell_bytes(self, arrays: CaseArrays) -> Array:
        """KV-cache bytes of one token."""
        return np.asarray(self.kv_elements_k * arrays.bytes_k + self.kv_elements_v * arrays.bytes_v)


def _attention_efforts(arrays: CaseArrays) -> tuple[Array, Array]:
    """What a processor takes for a FLOP of attention, in decode and in a prompt."""
    kinds = [arrays.bytes_v >= 2, arrays.bytes_v >= 1]
    token = np.select(kinds, [_TOKEN_EFFORT, _Q8_EFFORT], _Q4_EFFORT)
    width = np.minimum(arrays.n_prompt, arrays.n_ubatch)
    is_plain = (np.minimum(arrays.bytes_k, arrays.bytes_v) >= 2) & (width >= _TILED_TOKENS)
    return token, np.where((arrays.flash_attn > 0) & ~is_plain, token, _TILED_EFFORT)


def _reader(name: str) -> Callable[[ModelFacts], float]:
    return lambda model: float(getattr(model_work(model), name))


def _shares(arrays: CaseArrays, work: _Work) -> _Share:
    layers = np.minimum(arrays.gpu_layers / work.n_layers, 1.0)
    return _Share(
        layers=layers,
        output=(arrays.gpu_layers > work.n_layers).astype(float),
        kv=layers * arrays.offload_kqv,
    )


def _decode(arrays: CaseArrays, work: _Work, share: _Share) -> tuple[Array, Array, Array, Array]:
    """(seconds, bytes, KV bytes, whether memory binds) of one generated token."""
    kv_bytes = work.seen(arrays.decode_depth) * work.cell_bytes(arrays) + work.state_bytes
    layer_bytes = work.dense_bytes + work.expert_bytes * work.expert_share
    weights_on_host = work.body_on_host + work.output_on_host
    attention = work.seen(arrays.decode_depth) * work.attention_flops * work.attending_share
    gpu_bytes = layer_bytes * share.layers + work.output_bytes * share.output + kv_bytes * share.kv
    total = layer_bytes + work.output_bytes + kv_bytes
    on_gpu = gpu_bytes / np.maximum(total, 1)
    memory = (total - gpu_bytes) / arrays.read_rate(arrays.n_threads)
    gpu_flops = (2 * work.active_params + attention) * on_gpu
    host_flops = (2 * weights_on_host + attention * work.token_effort) * (1 - on_gpu)
    arithmetic = host_flops / arrays.flops(arrays.n_threads)
    gpu = _over(gpu_bytes, arrays.gpu_read), _over(gpu_flops, arrays.gpu_flops)
    on_host = memory + arithmetic
    on_gpu_s = np.maximum(*gpu)
    seconds = np.maximum(on_gpu_s + on_host, _MIN_S)
    gpu_is_longer = on_gpu_s > on_host
    is_memory = np.where(gpu_is_longer, gpu[0] >= gpu[1], memory >= arithmetic)
    return seconds, total, kv_bytes, is_memory.astype(float)


def _prefill(arrays: CaseArrays, work: _Work, share: _Share) -> tuple[Array, Array, Array]:
    """(seconds, balance, share of attention) of the whole prompt."""
    n_prompt = arrays.n_prompt
    batch = np.maximum(np.minimum(arrays.n_ubatch, n_prompt), 1)
    passes = np.ceil(n_prompt / arrays.n_ubatch)
    # Each token draws its experts: more tokens at once touch more of them.
    touched = 1 - (1 - work.expert_share) ** batch
    layer_bytes = passes * (work.dense_bytes + work.expert_bytes * touched)
    depth = work.seen(arrays.n_depth + n_prompt / 2)
    attention = depth * work.attention_flops * work.attending_share
    layer_flops = n_prompt * (2 * work.body_params + attention)
    layer_flops_on_host = n_prompt * (2 * work.body_on_host + attention * work.prompt_effort)
    kv_bytes = passes * (depth * work.cell_bytes(arrays) + work.state_bytes)
    output_bytes, output_flops = work.output_bytes, 2 * work.output_params
    # Large batches are sent to the GPU together with the weights that live on the host.
    lent = (
        (arrays.gpu_layers >= 0)
        * (arrays.gpu_read > 0)
        * arrays.op_offload
        * (batch >= _OFFLOAD_TOKENS)
    )
    flops_on_gpu = np.maximum(share.layers, lent)
    gpu_bytes = layer_bytes * share.layers + output_bytes * share.output + kv_bytes * share.kv
    sent = layer_bytes * (1 - share.layers) * lent
    host_bytes = layer_bytes * (1 - share.layers) * (1 - lent) + (
        output_bytes * (1 - share.output) + kv_bytes * (1 - share.kv)
    )
    gpu_flops = layer_flops * flops_on_gpu + output_flops * share.output
    host_flops = layer_flops_on_host * (1 - flops_on_gpu) + (
        2 * work.output_on_host * (1 - share.output)
    )
    threads = arrays.n_threads_batch
    gpu = _over(gpu_bytes, arrays.gpu_read), _over(gpu_flops, arrays.gpu_flops)
    host = host_bytes / arrays.read_rate(threads), host_flops / arrays.flops(threads)
    on_gpu_s, on_host_s = np.maximum(*gpu), np.maximum(*host)
    seconds = np.maximum(on_gpu_s + on_host_s, _MIN_S) + sent / arrays.link
    memory, arithmetic = np.where(on_gpu_s > on_host_s, gpu, host)
    balance = np.log2(np.maximum(memory, _MIN_S) / np.maximum(arithmetic, _MIN_S))
    looking_back = attention / (2 * work.body_params + attention)
    return np.where(n_prompt > 0, seconds, 0.0), np.clip(balance, -_FAR, _FAR), looking_back


def _over(amount: Array, rate: Array) -> Array:
    """Seconds; none where there is no such device."""
    return np.divide(amount, rate, out=np.zeros(len(amount)), where=rate > 0)


def _load(arrays: CaseArrays, work: _Work, share: _Share) -> Array:
    """Seconds to read the file once and to clear the KV cache, plus the vocabulary's tables.

    What is in the page cache comes at its rate, the rest at the disk's; where nobody probed them,
    both come at the memory's. What lives on a GPU is sent there. An engine that unpacks the file
    writes all of it.
    """
    memory_rate = arrays.read_rate(np.ones(len(arrays)))
    cached_rate = arrays.of_file(lambda c: (c.disk and c.disk.cached_bytes_per_s) or np.nan)
    cached_rate = np.where(np.isnan(cached_rate), memory_rate, cached_rate)
    disk_rate = arrays.of_file(lambda c: (c.disk and c.disk.disk_bytes_per_s) or np.nan)
    disk_rate = np.where(np.isnan(disk_rate), cached_rate, disk_rate)
    file_bytes = arrays.of_model(lambda m: m.file_bytes)
    cleared = arrays.n_ctx * work.cell_bytes(arrays)
    vocabulary = arrays.of_model(lambda m: m.n_vocab) * VOCABULARY_S
    read = file_bytes * (arrays.cached / cached_rate + (1 - arrays.cached) / disk_rate)
    unpacked = arrays.unpacked_bytes
    sent = np.where(unpacked > 0, unpacked, file_bytes) * share.layers / arrays.link
    written = (cleared + unpacked) / memory_rate
    return np.asarray(read + sent + written + vocabulary)
