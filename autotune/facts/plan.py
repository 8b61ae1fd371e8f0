"""The analytic memory plan: what llama.cpp will allocate for a configuration, without asking it.

Source: llama.cpp at revision 0c1e57098, ``llama_kv_cache``, ``llama_kv_cache_iswa``,
``llama_memory_recurrent`` and ``llama_context``. On the CPU the figures are those of the engine's
own dry run. On GPUs the compute buffers are an estimate, and what driver and libraries take for
themselves is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from autotune.domain.config import KV_BYTES_PER_ELEMENT, Config
from autotune.domain.machine import GPUFacts
from autotune.domain.model import ModelFacts
from autotune.domain.plan import MemoryPlan, PlanEntry
from autotune.facts.compute_buffer import Attention, ComputeBuffer
from autotune.facts.placement import CPU, Placement, place_layers
from autotune.facts.weights import Weights

_F32_BYTES = 4
_COPIES_FROM_BATCH = 32
"""Batches from which the engine copies host weights to a GPU (GGML_OP_OFFLOAD_MIN_BATCH)."""


def plan_memory(
    model: ModelFacts,
    config: Config,
    *,
    repacks: frozenset[str] = frozenset(),
    gpus: tuple[GPUFacts, ...] = (),
) -> MemoryPlan:
    """What ``config`` will allocate, by component and device.

    ``repacks`` are the element types that the engine copies (:func:`weights.repacked_types`),
    ``gpus`` the devices that it may use; a build that sees one repacks nothing. For thousands of
    configurations keep a :class:`MemoryPlanner`.
    """
    return _planner(model, repacks, gpus).plan(config)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cached:
    """Elements that the layers on one device cache per token."""

    device: str
    key: int
    value: int
    key_sliding: int
    value_sliding: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """What depends on the placement of the layers only, ready to be multiplied."""

    placement: Placement
    weights: Mapping[bool, Sequence[PlanEntry]]
    """By ``use_mmap``; repacked copies included."""
    cached: Mapping[bool, Sequence[_Cached]]
    """By whether flash attention is on."""
    state_bytes: Mapping[str, int]
    """Of one sequence, by device."""


class MemoryPlanner:
    """Plans of one model on one machine. What many configurations share is computed once."""

    def __init__(
        self,
        model: ModelFacts,
        *,
        repacks: frozenset[str] = frozenset(),
        gpus: Sequence[GPUFacts] = (),
    ) -> None:
        self._model = model
        self._gpus = tuple(gpu for gpu in gpus if gpu.device is not None)
        # The host buffer of a GPU comes before the repacking one when a home is sought.
        self._weights = Weights(model, frozenset() if self._gpus else repacks)
        self._compute = ComputeBuffer(model)
        self._layouts: dict[object, _Layout] = {}

    def plan(self, config: Config, attention: Attention | None = None) -> MemoryPlan:
        """What ``config`` will allocate, by component and device.

        ``attention`` is that of the configuration, where it is known already.
        """
        layout = self._layout(config)
        attention = attention or Attention.of(self._model, config)
        entries = (
            *layout.weights[config.use_mmap],
            *self._cache_entries(config, layout, attention),
            *_entries("compute", self._compute_bytes(config, layout.placement, attention)),
            PlanEntry(
                component="output",
                device=CPU,
                n_bytes=config.n_parallel * self._model.n_vocab * _F32_BYTES,
            ),
        )
        return MemoryPlan(entries=entries, source="analytic")

    def _layout(self, config: Config) -> _Layout:
        key = config.layer_split if self._gpus else None  # without a GPU there is one layout
        if key not in self._layouts:
            self._layouts[key] = self._new_layout(config)
        return self._layouts[key]

    def _new_layout(self, config: Config) -> _Layout:
        placement = place_layers(config, self._model.n_layers, gpus=self._gpus)
        repacked = tuple(_entries("repack", {CPU: self._weights.repacked}))
        return _Layout(
            placement=placement,
            weights={
                mapped: (
                    *_entries("weights", self._weights.by_device(placement, mapped=mapped)),
                    *repacked,
                )
                for mapped in (False, True)
            },
            cached={
                flash: tuple(_cached(self._model, placement, flash=flash))
                for flash in (False, True)
            },
            state_bytes=_state_bytes(self._model, placement),
        )

    def _cache_entries(
        self, config: Config, layout: _Layout, attention: Attention
    ) -> list[PlanEntry]:
        cells = config.n_parallel * attention.cells
        cells_sliding = config.n_parallel * attention.cells_sliding
        bytes_k, bytes_v = KV_BYTES_PER_ELEMENT[config.type_k], KV_BYTES_PER_ELEMENT[config.type_v]
        sizes: dict[str, int] = {}
        for cached in layout.cached[attention.flash]:
            full = cells * (cached.key * bytes_k + cached.value * bytes_v)
            sliding = cached.key_sliding * bytes_k + cached.value_sliding * bytes_v
            device = cached.device if config.offload_kqv else CPU
            sizes[device] = sizes.get(device, 0) + int(full + cells_sliding * sliding)
        entries = _entries("kv", sizes)
        for device, n_bytes in layout.state_bytes.items():
            home = device if config.offload_kqv else CPU
            entries += _entries("recurrent", {home: config.n_parallel * n_bytes})
        return entries

    def _compute_bytes(
        self, config: Config, placement: Placement, attention: Attention
    ) -> Mapping[str, int]:
        buffer, n_tokens = self._compute, config.n_ubatch
        if not self._gpus:
            return {CPU: buffer.n_bytes(attention, n_tokens)}
        sizes = {CPU: buffer.input_bytes(attention, n_tokens)}
        for device in {*(run.device for run in placement.runs), placement.output}:
            with_logits = device == placement.output
            sizes[device] = buffer.n_bytes(attention, n_tokens, with_logits=with_logits)
        if placement.runs[0].device == CPU and config.op_offload and n_tokens >= _COPIES_FROM_BATCH:
            first = self._gpus[0].device or CPU
            sizes[first] = sizes.get(first, 0) + self._weights.largest_copy(placement)
        return sizes


@lru_cache(maxsize=64)
def _planner(
    model: ModelFacts, repacks: frozenset[str], gpus: tuple[GPUFacts, ...]
) -> MemoryPlanner:
    return MemoryPlanner(model, repacks=repacks, gpus=gpus)


def _cached(model: ModelFacts, placement: Placement, *, flash: bool) -> Iterator[_Cached]:
    """Without flash attention V is stored transposed, padded to the widest layer."""
    elements = [model.cached_elements(layer) for layer in range(model.n_layers)]
    widest = max(value for _, value in elements)
    sliding = model.is_sliding or (False,) * model.n_layers
    for run in placement.runs:
        sums = {False: [0, 0], True: [0, 0]}
        for layer in range(run.first, run.end):
            key, value = elements[layer]
            sums[sliding[layer]][0] += key
            sums[sliding[layer]][1] += value if flash or not value else widest
        yield _Cached(
            device=run.device,
            key=sums[False][0],
            value=sums[False][1],
            key_sliding=sums[True][0],
            value_sliding=sums[True][1],
        )


def _state_bytes(model: ModelFacts, placement: Placement) -> Mapping[str, int]:
    sizes: dict[str, int] = {}
    for run in placement.runs:
        n_recurrent = sum(model.is_recurrent[run.first : run.end])
        if n_recurrent:
            n_bytes = n_recurrent * model.state_elements * _F32_BYTES
            sizes[run.device] = sizes.get(run.device, 0) + n_bytes
    return sizes


def _entries(component: str, sizes: Mapping[str, int]) -> list[PlanEntry]:
    return [
        PlanEntry(component=component, device=device, n_bytes=n_bytes)
        for device, n_bytes in sizes.items()
        if n_bytes
    ]
