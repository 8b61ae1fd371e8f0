"""The roofline: the least time that memory and arithmetic allow.

A decoded token reads every active weight and the whole KV cache once, so its least time is bytes
over bandwidth (or FLOPs over FLOPS, whichever is longer). A prompt multiplies every active weight
once per token and reads the weights once per physical batch. Loading moves the file once.
Williams, Waterman, Patterson: "Roofline", CACM 52(4), 2009.

Everything here is exact arithmetic outside the learned part: a predictor only learns how much of
the roofline is reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from autotune.domain.config import KV_BYTES_PER_ELEMENT
from autotune.domain.machine import Probe
from autotune.domain.model import ModelFacts
from autotune.features.case import Case

Array = npt.NDArray[np.float64]

VOCABULARY_S = 1e-6
"""Seconds to enter one word into the tokeniser's tables (0.05–0.4 s for 50k–260k words)."""


@dataclass(frozen=True, slots=True)
class ModelWork:
    """What one token costs a model, whatever the configuration."""

    active_bytes: float
    """Weight bytes that decoding one token reads, the output layer included."""
    active_params: float
    body_params: float
    """Weights multiplied for every prompt token: all but the output layer."""
    output_params: float
    """Weights of the output layer, multiplied for the last prompt token only."""
    kv_elements_k: int
    """Key-cache elements of one token, over all layers."""
    kv_elements_v: int
    attention_flops: float
    """FLOPs per token and per cached token: QKᵀ and the weighted sum of values."""
    sliding_share: float
    """Share of the KV elements that live in sliding-window layers."""


@lru_cache(maxsize=256)
def model_work(model: ModelFacts) -> ModelWork:
    """The per-token work of a model; remembered, because candidates share a model."""
    output = "embedding" if model.is_tied else "output"
    output_params = sum(t.n_elements for t in model.tensors if t.group == output)
    cached = [model.cached_elements(layer) for layer in range(model.n_layers)]
    sliding = [sum(pair) for pair, slides in zip(cached, model.is_sliding, strict=False) if slides]
    width = model.key_length + model.value_length
    return ModelWork(
        active_bytes=model.active_bytes,
        active_params=model.active_params,
        body_params=max(model.active_params - output_params, 1.0),
        output_params=output_params,
        kv_elements_k=sum(key for key, _ in cached),
        kv_elements_v=sum(value for _, value in cached),
        attention_flops=2.0 * sum(model.n_heads) * width,
        sliding_share=sum(sliding) / max(sum(map(sum, cached)), 1),
    )


@dataclass(frozen=True, slots=True)
class Roofline:
    """Least times of each case in seconds; every field has shape (n_cases,)."""

    prefill_s: Array
    """The whole prompt; 0 for a workload without one."""
    decode_s: Array
    """One generated token at the workload's mean depth."""
    load_s: Array
    """The file through memory once, the vocabulary built, the KV cache cleared."""
    decode_bytes: Array
    """Bytes that one generated token reads."""
    kv_bytes: Array
    """The part of ``decode_bytes`` that is KV cache."""
    decode_is_memory: Array
    """1 where decode is bound by memory, 0 where by arithmetic."""
    prefill_is_memory: Array


def roofline(cases: Sequence[Case]) -> Roofline:
    """The roofline of each case, from its machine's probe."""
    work = [model_work(case.model) for case in cases]
    active_bytes = _column(w.active_bytes for w in work)
    kv_bytes = _kv_bytes(cases, work)
    threads = _column(case.config.n_threads for case in cases)
    threads_batch = _column(case.config.n_threads_batch for case in cases)
    decode_memory = (active_bytes + kv_bytes) / _rates(cases, threads, "read_rate")
    decode_flops = 2 * _column(w.active_params for w in work)
    decode_compute = decode_flops / _rates(cases, threads, "flops")
    prefill_memory, prefill_compute = _prefill(cases, work, threads_batch)
    return Roofline(
        prefill_s=np.maximum(prefill_memory, prefill_compute),
        decode_s=np.maximum(decode_memory, decode_compute),
        load_s=_load(cases, work),
        decode_bytes=active_bytes + kv_bytes,
        kv_bytes=kv_bytes,
        decode_is_memory=(decode_memory >= decode_compute).astype(float),
        prefill_is_memory=(prefill_memory >= prefill_compute).astype(float),
    )


def _prefill(
    cases: Sequence[Case], work: Sequence[ModelWork], threads: Array
) -> tuple[Array, Array]:
    """(memory seconds, arithmetic seconds) of the whole prompt."""
    n_prompt = _column(case.workload.n_prompt for case in cases)
    n_ubatch = _column(case.config.n_ubatch for case in cases)
    depth = _column(case.workload.n_depth for case in cases) + n_prompt / 2
    passes = np.ceil(n_prompt / n_ubatch)
    memory = passes * _column(w.active_bytes for w in work)
    flops = n_prompt * (
        2 * _column(w.body_params for w in work) + depth * _column(w.attention_flops for w in work)
    ) + 2 * passes * _column(w.output_params for w in work)
    return memory / _rates(cases, threads, "read_rate"), flops / _rates(cases, threads, "flops")


def _load(cases: Sequence[Case], work: Sequence[ModelWork]) -> Array:
    """Seconds to read the file once and to clear the KV cache, plus the vocabulary's tables.

    What is in the page cache comes at its rate, the rest at the disk's; where nobody probed them,
    both come at the memory's.
    """
    memory_rate = _rates(cases, np.ones(len(cases)), "read_rate")
    cached_rate, disk_rate = _file_rates(cases, memory_rate)
    cached = _column(1.0 if c.cached_ratio is None else c.cached_ratio for c in cases)
    file_bytes = _column(case.model.file_bytes for case in cases)
    cleared = _column(case.config.n_ctx for case in cases) * _cell_bytes(cases, work)
    vocabulary = _column(case.model.n_vocab for case in cases) * VOCABULARY_S
    read = file_bytes * (cached / cached_rate + (1 - cached) / disk_rate)
    return read + cleared / memory_rate + vocabulary


def _file_rates(cases: Sequence[Case], memory_rate: Array) -> tuple[Array, Array]:
    """(page-cache rate, disk rate) of each case's file, in bytes per second."""
    cached = _column((c.disk and c.disk.cached_bytes_per_s) or np.nan for c in cases)
    cached = np.where(np.isnan(cached), memory_rate, cached)
    disk = _column((c.disk and c.disk.disk_bytes_per_s) or np.nan for c in cases)
    return cached, np.where(np.isnan(disk), cached, disk)


def _kv_bytes(cases: Sequence[Case], work: Sequence[ModelWork]) -> Array:
    """KV-cache bytes that one token reads at the workload's mean decode depth."""
    depth = _column(case.workload.decode_depth for case in cases)
    window = _column(case.model.sliding_window or np.inf for case in cases)
    sliding = _column(w.sliding_share for w in work)
    cells = (1 - sliding) * depth + sliding * np.minimum(depth, window)
    return cells * _cell_bytes(cases, work)


def _cell_bytes(cases: Sequence[Case], work: Sequence[ModelWork]) -> Array:
    """KV-cache bytes of one token over all layers."""
    return _column(
        w.kv_elements_k * KV_BYTES_PER_ELEMENT[case.config.type_k]
        + w.kv_elements_v * KV_BYTES_PER_ELEMENT[case.config.type_v]
        for case, w in zip(cases, work, strict=True)
    )


def _rates(cases: Sequence[Case], threads: Array, name: str) -> Array:
    """A probe's rate at each case's thread count; looked up once per (probe, count)."""
    known: dict[tuple[int, float], float] = {}
    return _column(
        _remember(known, case.probe, name, count)
        for case, count in zip(cases, threads, strict=True)
    )


def _remember(
    known: dict[tuple[int, float], float], probe: Probe, name: str, count: float
) -> float:
    key = (id(probe), count)
    if key not in known:
        known[key] = getattr(probe, name)(count)
    return known[key]


def _column(values: object) -> Array:
    return np.fromiter(values, dtype=np.float64)  # type: ignore[call-overload, no-any-return]
