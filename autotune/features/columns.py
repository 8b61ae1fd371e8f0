"""The features: every number a predictor sees, with its unit, its source and the reason.

Lengths and sizes enter as base-2 logarithms: performance scales by ratios. Everything is centred
so that 0 is an ordinary case, which lets a ridge shrink towards "nothing special".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from autotune.domain.config import KV_BYTES_PER_ELEMENT
from autotune.domain.model import ModelFacts
from autotune.features.case import Case
from autotune.features.physics import Array, Roofline, model_work, roofline

FEATURE_VERSION = 1
"""Number of this table. A fitted predictor of another version is refused and refitted."""


Subject = TypeVar("Subject", Case, ModelFacts)


@dataclass(frozen=True, slots=True)
class Feature(Generic[Subject]):
    """One column of X, computed from a case or from a model alone."""

    name: str
    unit: str
    reason: str
    value: Callable[[Subject], float]


_LEGACY_QUANTS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4")
_K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
_FLOATS = ("F16", "F32", "BF16")


def _log2(value: float) -> float:
    return float(np.log2(max(value, 1e-9)))


def _type_share(model: ModelFacts, prefixes: tuple[str, ...]) -> float:
    """Share of a token's weight bytes that have one of the element types."""
    read = sum(t.n_bytes * share for t, share in model.active_tensors if t.type in prefixes)
    return read / model.active_bytes if model.active_bytes else 0.0


def _depth(case: Case) -> float:
    return _log2(1 + case.workload.decode_depth / 512)


def _over_physical(case: Case, threads: int) -> float:
    return max(_log2(threads / (case.machine.n_physical or case.machine.n_logical)), 0.0)


def _over_usable(case: Case, threads: int) -> float:
    return max(_log2(threads / case.machine.n_usable), 0.0)


CONFIG_FEATURES: tuple[Feature[Case], ...] = (
    Feature("threads", "log2", "decode saturates the memory bus before the cores",
            lambda c: _log2(c.config.n_threads)),
    Feature("threads_batch", "log2", "prefill scales with cores",
            lambda c: _log2(c.config.n_threads_batch)),
    Feature("threads_over_physical", "log2", "hyper-threads share an arithmetic unit",
            lambda c: _over_physical(c, c.config.n_threads)),
    Feature("threads_batch_over_physical", "log2", "as above, for prefill",
            lambda c: _over_physical(c, c.config.n_threads_batch)),
    Feature("threads_over_usable", "log2", "beyond the quota threads wait for each other",
            lambda c: _over_usable(c, max(c.config.n_threads, c.config.n_threads_batch))),
    Feature("ubatch", "log2 / 512", "small batches re-read the weights, large ones leave the cache",
            lambda c: _log2(c.config.n_ubatch / 512)),
    Feature("ubatch_fill", "log2", "a prompt shorter than the batch cannot fill it",
            lambda c: min(_log2(max(c.workload.n_prompt, 1) / c.config.n_ubatch), 0.0)),
    Feature("flash_attn", "0 / 1", "one fused kernel instead of three",
            lambda c: float(c.config.flash_attn != "off")),
    Feature("flash_attn_depth", "log2 × 0 / 1", "fusing pays or costs by depth",
            lambda c: float(c.config.flash_attn != "off") * _depth(c)),
    Feature("kv_quantised", "ratio", "quantised caches are unpacked at each read",
            lambda c: 2 - (KV_BYTES_PER_ELEMENT[c.config.type_k]
                           + KV_BYTES_PER_ELEMENT[c.config.type_v]) / 2),
    Feature("use_mmap", "0 / 1", "mapped pages are faulted in, copied ones read",
            lambda c: float(c.config.use_mmap) - 1),
    Feature("n_ctx", "log2 / 4096", "a larger cache takes longer to clear at load",
            lambda c: _log2(c.config.n_ctx / 4096)),
    Feature("depth", "log2", "attention grows with what is cached",
            _depth),
    Feature("prompt", "log2 / 512", "long prompts amortise what short ones cannot",
            lambda c: _log2(max(c.workload.n_prompt, 1) / 512)),
    Feature("cached", "ratio", "a file in the page cache loads at memory speed",
            lambda c: (1.0 if c.cached_ratio is None else c.cached_ratio) - 1),
)  # fmt: skip
"""Columns that differ between configurations of one model on one machine."""

MODEL_FEATURES: tuple[Feature[ModelFacts], ...] = (
    Feature("active_bytes", "log2 / GB", "small models are bound by overheads, large by memory",
            lambda m: _log2(m.active_bytes / 1e9)),
    Feature("width", "log2 / 4096", "wide matrices use the hardware better",
            lambda m: _log2(m.n_embd / 4096)),
    Feature("output_share", "ratio", "a large vocabulary is one huge matrix per token",
            lambda m: model_work(m).output_params / max(m.active_params, 1)),
    Feature("legacy_quant_share", "ratio", "each element type has kernels of its own speed",
            lambda m: _type_share(m, _LEGACY_QUANTS)),
    Feature("k_quant_share", "ratio", "as above", lambda m: _type_share(m, _K_QUANTS)),
    Feature("float_share", "ratio", "as above", lambda m: _type_share(m, _FLOATS)),
    Feature("is_moe", "0 / 1", "experts are read in pieces", lambda m: float(m.n_experts > 0)),
)  # fmt: skip
"""Columns that are the same for every configuration of a model."""

CONFIG_COLUMNS = tuple(range(len(CONFIG_FEATURES)))
"""Positions of the configuration's columns in X; the model's follow."""


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features and roofline of a list of cases."""

    cases: tuple[Case, ...]
    x: Array
    """Shape (n_cases, len(CONFIG_FEATURES) + len(MODEL_FEATURES))."""
    roofline: Roofline


def build_features(cases: Sequence[Case]) -> FeatureTable:
    """Features of each case, in order; a model's own columns are computed once per model."""
    models = {id(case.model): case.model for case in cases}
    shared = {key: [f.value(model) for f in MODEL_FEATURES] for key, model in models.items()}
    rows = [[f.value(case) for f in CONFIG_FEATURES] + shared[id(case.model)] for case in cases]
    width = len(CONFIG_FEATURES) + len(MODEL_FEATURES)
    return FeatureTable(
        cases=tuple(cases),
        x=np.array(rows, dtype=float).reshape(len(cases), width),
        roofline=roofline(cases),
    )
