"""The features: every number a predictor sees, with its unit, its source and the reason.

Lengths and sizes enter as base-2 logarithms: performance scales by ratios. Everything is centred
so that 0 is an ordinary case, which lets a ridge shrink towards "nothing special". Each phase has
its own columns: what decode does not depend on cannot mislead it, and candidates that agree on a
phase's columns are predicted once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autotune.domain.model import ModelFacts
from autotune.features.arrays import CaseArrays
from autotune.features.case import Array, Case
from autotune.features.physics import Roofline, model_work, roofline

FEATURE_VERSION = 10
"""Number of this table. A fitted predictor of another version is refused and refitted."""

PHASES = ("prefill", "decode", "load")
SUCCESS = "success"
_LEGACY_QUANTS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")
_K_QUANTS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
_FINE_K_QUANTS = ("Q2_K", "Q3_K", "Q6_K")
"""With a scale for 16 weights; the others have one for 32 (``ggml-common.h``)."""
_INTEGER_TOKENS = 8, 63
"""Batches that ggml-cuda, on HIP too, multiplies as integers. Smaller ones are read like vectors (8
itself, where there are no experts: ``MMVQ_MAX_BATCH_SIZE``); larger ones unpacked to halves, where
there are units for those (``MMQ_DP4A_MAX_BATCH_SIZE``)."""
_SMALL_QUANTS = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS")
_FLOATS = ("F16", "F32", "BF16")
_OFFLOAD_TOKENS = 32
_LEAST_SHARE = 3e-4
"""Of attention in a prompt's FLOPs: less of it is nothing."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One column of X."""

    name: str
    unit: str
    source: str
    """Where it comes from: ``config``, ``workload``, ``model``, ``machine``, ``context``."""
    reason: str
    phases: str
    """First letters of those that see it: prefill, decode, load and success."""
    value: Callable[[CaseArrays, Roofline], Array]

    def is_of(self, phase: str) -> bool:
        """Whether a phase sees this column."""
        return phase[0] in self.phases


def _log2(values: Array) -> Array:
    return np.asarray(np.log2(np.maximum(values, 1e-9)))


def _type_share(model: ModelFacts, types: tuple[str, ...]) -> float:
    """Share of a token's weight bytes that have one of the element types."""
    read = sum(t.n_bytes * share for t, share in model.active_tensors if t.type in types)
    return read / model.active_bytes if model.active_bytes else 0.0


def _share_of(types: tuple[str, ...]) -> Callable[[CaseArrays, Roofline], Array]:
    return lambda a, _: a.of_model(lambda m: _type_share(m, types))


def _is_api(api: str) -> Callable[[CaseArrays, Roofline], Array]:
    return lambda a, _: a.of_place(lambda c: float(c.api == api))


def _depth(a: CaseArrays) -> Array:
    return _log2(1 + a.decode_depth / 512)


def _over_physical(a: CaseArrays, threads: Array) -> Array:
    physical = a.of_place(lambda c: c.machine.n_physical or c.machine.n_logical or np.inf)
    return np.maximum(_log2(threads / physical), 0.0)


def _over_usable(a: CaseArrays, threads: Array) -> Array:
    usable = a.of_place(lambda c: c.machine.n_usable or np.inf)
    return np.maximum(_log2(threads / usable), 0.0)


def _on_host(a: CaseArrays) -> Array:
    """Share of the layers on the host although there is a GPU."""
    everything = a.of_model(lambda m: m.n_layers) + 1
    return np.where(a.gpu_read > 0, 1 - a.gpu_layers / everything, 0.0)


def _batch(a: CaseArrays) -> Array:
    """Tokens computed at once."""
    return np.asarray(np.maximum(np.minimum(a.n_prompt, a.n_ubatch), 1))


def _n_batches(a: CaseArrays) -> Array:
    """Physical batches that a prompt is split into."""
    return np.asarray(np.ceil(np.maximum(a.n_prompt, 1) / np.maximum(a.n_ubatch, 1)))


def _by_integers(a: CaseArrays, floor: Roofline) -> Array:
    """Whether a GPU multiplies a prompt's matrices as integers."""
    least, most = _INTEGER_TOKENS
    is_cuda = _is_api("CUDA")(a, floor) + _is_api("ROCm")(a, floor)
    return np.asarray(is_cuda * (_batch(a) >= least) * (_batch(a) <= most))


def _layers(a: CaseArrays) -> Array:
    return np.maximum(a.of_model(lambda m: m.n_layers), 1)


def _rows_per_matrix(a: CaseArrays) -> Array:
    """Tokens that each matrix multiplies at once: those that the router sends to one expert."""
    return _batch(a) * a.of_model(lambda m: m.expert_share)


def _doublings_beyond(a: CaseArrays, n_bytes: float) -> Array:
    """Of the file's size; 0 of a smaller one."""
    return np.maximum(_log2(a.of_model(lambda m: m.file_bytes) / n_bytes), 0)


def _large_prompt(a: CaseArrays) -> Array:
    """Doublings of the file beyond 20 GB, times doublings of the prompt beyond 128 tokens."""
    return np.asarray(_doublings_beyond(a, 2e10) * np.maximum(_log2(1 + a.n_prompt) - 7, 0))


def _large_on_rocm(a: CaseArrays, floor: Roofline) -> Array:
    return _is_api("ROCm")(a, floor) * _doublings_beyond(a, 1e10)


FEATURES: tuple[Feature, ...] = (
    Feature("threads", "log2", "config", "decode saturates the memory bus before the cores",
            "d", lambda a, _: _log2(a.n_threads) * (a.gpu_read == 0)),
    Feature("threads_batch", "log2", "config", "prefill scales with cores",
            "p", lambda a, _: _log2(a.n_threads_batch) * (a.gpu_read == 0)),
    Feature("threads_over_physical", "log2", "config", "hyper-threads share an arithmetic unit",
            "d", lambda a, _: _over_physical(a, a.n_threads)),
    Feature("threads_batch_over_physical", "log2", "config", "as above, for prefill",
            "p", lambda a, _: _over_physical(a, a.n_threads_batch)),
    Feature("threads_over_usable", "log2", "config",
            "beyond the quota threads wait for each other",
            "d", lambda a, _: _over_usable(a, a.n_threads)),
    Feature("threads_batch_over_usable", "log2", "config", "as above, for prefill",
            "p", lambda a, _: _over_usable(a, a.n_threads_batch)),
    Feature("ubatch", "log2 / 512", "config",
            "small batches re-read the weights, large ones leave the cache",
            "p", lambda a, _: _log2(a.n_ubatch / 512)),
    Feature("batch", "log2 / 512", "config", "a logical batch is split into physical ones",
            "p", lambda a, _: _log2(np.minimum(a.n_batch, np.maximum(a.n_prompt, 1)) / 512)),
    Feature("tokens_at_once", "log2 / 512", "workload",
            "matrices need width to be multiplied fast", "p", lambda a, _: _log2(_batch(a) / 512)),
    Feature("rows_per_matrix", "log2 / 512", "model",
            "experts share the tokens: each multiplies few of them",
            "p", lambda a, _: _log2(_rows_per_matrix(a) / 512)),
    Feature("is_tiny_batch", "0 / 1", "workload", "a few tokens run the kernels of decode",
            "p", lambda a, _: (_batch(a) <= 8).astype(float)),
    Feature("is_small_batch", "0 / 1", "workload", "below this, host weights stay on the host",
            "p", lambda a, _: (_batch(a) < _OFFLOAD_TOKENS).astype(float)),
    Feature("prompt", "log2 / 512", "workload", "long prompts amortise what short ones cannot",
            "p", lambda a, _: _log2(np.maximum(a.n_prompt, 1) / 512)),
    Feature("prompt_tokens", "log2", "workload", "long prompts need more scratch memory",
            "s", lambda a, _: _log2(1 + a.n_prompt)),
    Feature("has_prompt", "0 / 1", "workload", "prefill runs other kernels than decode",
            "s", lambda a, _: (a.n_prompt > 0).astype(float)),
    Feature("large_prompt", "log2 × log2", "workload", "long prompts of large models fail together",
            "s", lambda a, _: _large_prompt(a)),
    Feature("flash_attn", "0 / 1", "config", "one fused kernel instead of three",
            "pds", lambda a, _: a.flash_attn),
    Feature("flash_attn_depth", "log2 × 0 / 1", "config", "fusing pays or costs by depth",
            "pd", lambda a, _: a.flash_attn * _depth(a)),
    Feature("kv_quantised", "ratio", "config", "quantised caches are unpacked at each read",
            "pd", lambda a, _: 2 - (a.bytes_k + a.bytes_v) / 2),
    Feature("attention_share", "log4 / 3 %", "model",
            "what looking back takes of a prompt, its kernels make or break",
            "p", lambda _, r: _log2(np.maximum(r.attention_share, _LEAST_SHARE) / 0.03) / 2),
    Feature("depth", "log2", "workload", "attention grows with what is cached",
            "pd", lambda a, _: _depth(a)),
    Feature("generated", "log2 / 128", "workload", "the first tokens still warm the caches up",
            "d", lambda a, _: np.minimum(_log2(np.maximum(a.n_gen, 1) / 128), 0.0)),
    Feature("use_mmap", "0 / 1", "config", "mapped pages are faulted in, copied ones read",
            "l", lambda a, _: a.use_mmap - 1),
    Feature("n_ctx", "log2 / 4096", "config", "a larger cache takes longer to clear",
            "l", lambda a, _: _log2(a.n_ctx / 4096)),
    Feature("cached", "ratio", "context", "a file in the page cache loads at memory speed",
            "l", lambda a, _: a.cached - 1),
    Feature("on_host", "ratio", "config", "layers left on the host run at its pace",
            "pdls", lambda a, _: _on_host(a)),
    Feature("any_on_host", "0 / 1", "config", "each change of device synchronises",
            "pd", lambda a, _: (_on_host(a) > 0).astype(float)),
    Feature("kv_on_host", "0 / 1", "config", "attention then runs where the cache lies",
            "pd", lambda a, _: (a.gpu_read > 0) * (1 - a.offload_kqv)),
    Feature("kv_share", "ratio", "workload", "caches are read less evenly than weights",
            "d", lambda _, r: r.kv_bytes / np.maximum(r.decode_bytes, 1)),
    Feature("decode_floor", "log2 / ms", "machine",
            "each layer launches and waits: little work in it is bound by that",
            "d", lambda a, r: _log2(r.decode_s / _layers(a) / 1e-3)),
    Feature("prefill_floor", "log2 / ms", "machine", "as above, in each physical batch",
            "p", lambda a, r: _log2(r.prefill_s / _n_batches(a) / _layers(a) / 1e-3)),
    Feature("prefill_balance", "log2", "machine", "which of the two ceilings binds, and how far",
            "p", lambda _, r: r.prefill_balance),
    Feature("decode_is_memory", "0 / 1", "machine", "as above",
            "d", lambda _, r: r.decode_is_memory - 1),
    Feature("active_bytes", "log2 / GB", "model",
            "small models are bound by overheads, large by memory",
            "pdls", lambda a, _: _log2(a.of_model(lambda m: m.active_bytes) / 1e9)),
    Feature("file_bytes", "log2 / 10 GB", "model", "large models meet limits that nobody documents",
            "s", lambda a, _: _log2(a.of_model(lambda m: m.file_bytes) / 1e10)),
    Feature("large_on_rocm", "log2 / 10 GB", "machine", "those limits are the interface's",
            "s", _large_on_rocm),
    Feature("width", "log2 / 4096", "model", "wide matrices use the hardware better",
            "pd", lambda a, _: _log2(a.of_model(lambda m: m.n_embd) / 4096)),
    Feature("layers", "log2 / 32", "model", "each layer launches its kernels",
            "pd", lambda a, _: _log2(_layers(a) / 32)),
    Feature("output_share", "ratio", "model", "a large vocabulary is one huge matrix per token",
            "pd", lambda a, _: a.of_model(
                lambda m: model_work(m).output_params / max(m.active_params, 1))),
    Feature("legacy_quant_share", "ratio", "model",
            "each element type has kernels of its own speed", "pdl", _share_of(_LEGACY_QUANTS)),
    Feature("k_quant_share", "ratio", "model", "as above", "pdl", _share_of(_K_QUANTS)),
    Feature("small_quant_share", "ratio", "model", "as above", "pdl", _share_of(_SMALL_QUANTS)),
    Feature("float_share", "ratio", "model", "as above", "pdl", _share_of(_FLOATS)),
    Feature("fine_integer_share", "ratio", "model", "twice the scales in products of integers",
            "p", lambda a, r: _share_of(_FINE_K_QUANTS)(a, r) * _by_integers(a, r)),
    Feature("bits_per_weight", "bits − 5", "model", "unpacking costs by the weight, not the byte",
            "pd", lambda a, _: a.of_model(
                lambda m: 8 * m.active_bytes / max(m.active_params, 1)) - 5),
    Feature("active_share", "log2", "model", "experts are read in pieces",
            "pd", lambda a, _: _log2(a.of_model(
                lambda m: m.active_params / max(m.n_params, 1)))),
    Feature("is_moe", "0 / 1", "model", "as above",
            "pds", lambda a, _: a.of_model(lambda m: float(m.n_experts > 0))),
    Feature("expert_width", "log2 / 2048", "model", "narrow experts are badly multiplied",
            "pd", lambda a, _: a.of_model(
                lambda m: float(np.log2((m.n_ff_expert or 2048) / 2048)))),
    Feature("experts_used", "log2 / 4", "model", "each expert is a launch of its own",
            "pd", lambda a, _: a.of_model(
                lambda m: float(np.log2((m.n_experts_used or 4) / 4)))),
    Feature("is_cuda", "0 / 1", "machine", "each interface has kernels of its own speed",
            "pdl", _is_api("CUDA")),
    Feature("is_rocm", "0 / 1", "machine", "as above", "pdl", _is_api("ROCm")),
    Feature("is_vulkan", "0 / 1", "machine", "as above", "pdl", _is_api("Vulkan")),
    Feature("is_metal", "0 / 1", "machine", "as above", "pdl", _is_api("Metal")),
    Feature("bandwidth", "log2 / 500 GB/s", "machine", "the faster the memory, the less is reached",
            "pd", lambda a, _: np.where(a.gpu_read > 0, _log2(a.gpu_read / 5e11), 0.0)),
    Feature("balance", "log2 / 100", "machine", "arithmetic per byte that the GPU can do",
            "pd", lambda a, _: np.where(
                a.gpu_read > 0, _log2(a.gpu_flops / np.maximum(a.gpu_read, 1) / 100), 0.0)),
)  # fmt: skip
"""Every column, in order."""

COLUMNS = {phase: tuple(f.name for f in FEATURES if f.is_of(phase)) for phase in (*PHASES, SUCCESS)}
"""Names of the columns of each phase and of success, in order."""
KNOB_SOURCES = ("config", "workload", "context")
KNOB_COLUMNS = {
    phase: tuple(
        i
        for i, feature in enumerate(f for f in FEATURES if f.is_of(phase))
        if feature.source in KNOB_SOURCES
    )
    for phase in PHASES
}
"""Positions of the columns that differ between configurations of one model on one machine."""


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """Features and roofline of a list of cases."""

    cases: tuple[Case, ...]
    x: dict[str, Array]
    """Of each phase; shape (n_cases, len(COLUMNS[phase]))."""
    roofline: Roofline
    is_supported: Array
    """1 where the device that computes was probed or is listed; shape (n_cases,)."""
    arrays: CaseArrays

    def at_depth(self, rows: npt.NDArray[np.intp], n_depth: Array) -> tuple[Array, Array]:
        """Decode of some of the cases with other numbers of cached tokens.

        (columns, shape (n, len(COLUMNS["decode"])); roofline seconds of a token, shape (n,)).
        """
        arrays = self.arrays.at_depth(rows, n_depth)
        floor = roofline(arrays)
        return _columns("decode", arrays, floor), floor.decode_s


def build_features(cases: Sequence[Case]) -> FeatureTable:
    """Features of each case, in order."""
    arrays = CaseArrays(cases)
    floor = roofline(arrays)
    values = {feature.name: feature.value(arrays, floor) for feature in FEATURES}
    return FeatureTable(
        cases=tuple(cases),
        x={
            phase: np.stack([values[name] for name in names], axis=1).reshape(-1, len(names))
            for phase, names in COLUMNS.items()
        },
        roofline=floor,
        is_supported=arrays.is_known,
        arrays=arrays,
    )


def _columns(phase: str, arrays: CaseArrays, floor: Roofline) -> Array:
    return np.stack([f.value(arrays, floor) for f in FEATURES if f.is_of(phase)], axis=1)
