"""The exact memory plan of llama.cpp: its own dry run.

With ``no_alloc`` llama.cpp reads a model's metadata, places every layer, builds every graph,
refuses what it would refuse, and allocates nothing; ``common/fit.cpp`` plans its ``--fit`` in the
same way. Opening a model takes as long as its vocabulary does (0.1 to 0.5 s), each context a few
milliseconds.

The sizes are in the log, with two gaps. Weights are printed as 0, so they come from the tensor
table, put where the log says that each layer goes. Caches are printed in hundredths of a MiB, for
all devices together: bytes per layer come from the header wherever they agree with what is printed.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.backends.engine_log import EngineLog
from autotune.backends.llama_log import read_report
from autotune.backends.llama_params import context_params, model_params
from autotune.backends.protocol import EngineError
from autotune.domain.config import KV_BYTES_PER_ELEMENT, Config
from autotune.domain.model import ModelFacts
from autotune.domain.plan import MemoryPlan, PlanEntry
from autotune.domain.run import EngineReport, Reason
from autotune.domain.units import MIB
from autotune.facts.gguf import read_model
from autotune.facts.isa import normalise_isa
from autotune.facts.placement import CPU, Placement
from autotune.facts.weights import Weights, repacked_types

_LOAD_MODE_NONE = 0
_LOG_STEP_BYTES = 0.01 * MIB
_REPACKING = frozenset({"CPU_REPACK", "AMX"})
"""Buffers of weights in a layout of the processor's own."""
_F32_BYTES = 4

_TELLING = (": dev = ", " cells, ", " buffer size = ")
_ASSIGNED = re.compile(r"layer\s+\d+ assigned to device ([^\s,]+)")
_CACHED = re.compile(r"layer\s+(\d+): dev = (\S+)")
_CACHE = re.compile(
    r"size =\s*([\d.]+) MiB \(\s*(\d+) cells,\s*\d+ layers,\s*\d+(?:/(\d+))? seqs.*\), ([KR]) \("
)
_COMPONENTS = {"K": "kv", "R": "recurrent"}


class DryRun:
    """The metadata of one model, open so that contexts can be tried on it."""

    def __init__(self, llama: Any, log: EngineLog, model_path: Path, config: Config) -> None:
        self._llama, self._log = llama, log
        self._serves = (model_path, config.layer_split)
        params = model_params(llama, config)
        params.no_alloc, params.load_mode = True, _LOAD_MODE_NONE
        log.clear()
        self._model = llama.llama_model_load_from_file(os.fsencode(model_path), params)
        if not self._model:
            raise log.error(Reason.LOAD_ERROR, f"llama.cpp cannot load {model_path.name}")
        try:
            self._facts = read_model(model_path)
            self._placement = _read_placement(log.lines)
            self._weights = Weights(self._facts, self._repacks(read_report(log.lines)))
        except BaseException:
            self.close()
            raise

    def serves(self, model_path: Path, config: Config) -> bool:
        """Whether contexts of this configuration can be tried here: same file, same placement."""
        return self._serves == (model_path, config.layer_split)

    def plan(self, config: Config) -> MemoryPlan:
        """What llama.cpp would allocate. Raises EngineError in its own words if it refuses."""
        self._log.clear()
        params = context_params(self._llama, config)
        context = self._llama.llama_init_from_model(self._model, params)
        if not context:
            raise self._log.error(Reason.CONSTRAINT, "llama.cpp refuses the combination")
        self._llama.llama_free(context)
        # One in a hundred lines; to search all of them would take longer than the dry run itself.
        lines = [line for line in self._log.lines if any(word in line for word in _TELLING)]
        entries = (
            *self._weight_entries(config),
            *_cache_entries(lines, self._facts, config),
            *_buffer_entries(read_report(lines)),
        )
        return MemoryPlan(entries=entries, source="engine")

    def close(self) -> None:
        """Give the metadata back."""
        self._llama.llama_model_free(self._model)

    def _repacks(self, report: EngineReport) -> frozenset[str]:
        """Element types that are copied, if llama.cpp opened a buffer for such copies at all."""
        if _REPACKING.isdisjoint(buffer.device for buffer in report.buffers):
            return frozenset()
        features = self._llama.llama_print_system_info().decode()
        return repacked_types(normalise_isa(re.findall(r"(\w+) = 1", features)))

    def _weight_entries(self, config: Config) -> Iterator[PlanEntry]:
        sizes = self._weights.by_device(self._placement, mapped=config.use_mmap)
        yield from _entries("weights", sizes)
        yield from _entries("repack", {CPU: self._weights.repacked})


def _read_placement(lines: Iterable[str]) -> Placement:
    """The home that llama.cpp gave to each layer; the output layer's is the last."""
    devices = _ASSIGNED.findall("".join(lines))
    if not devices:
        raise EngineError(Reason.UNSUPPORTED, "this llama.cpp does not say where layers go")
    return Placement.of(devices)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cache:
    """One of a context's caches, as logged."""

    component: str
    n_bytes: float
    """Within half of _LOG_STEP_BYTES."""
    n_cells: int
    """Of all sequences together."""
    homes: tuple[tuple[int, str], ...]
    """(layer, device) of every layer in it."""

    def by_device(self, cell_bytes: Mapping[int, float]) -> Mapping[str, int]:
        """Its bytes on each device, given the bytes of one cell of each layer."""
        sizes: dict[str, float] = {}
        for layer, device in self.homes:
            sizes[device] = sizes.get(device, 0.0) + self.n_cells * cell_bytes[layer]
        counted = sum(sizes.values())
        agrees = math.isclose(counted, self.n_bytes, rel_tol=1e-6, abs_tol=0.51 * _LOG_STEP_BYTES)
        scale = 1.0 if agrees else self.n_bytes / counted
        return {device: round(n_bytes * scale) for device, n_bytes in sizes.items()}


def _read_caches(lines: Iterable[str]) -> Iterator[_Cache]:
    homes: list[tuple[int, str]] = []
    for line in lines:
        if home := _CACHED.search(line):
            homes.append((int(home[1]), home[2]))
        elif size := _CACHE.search(line):
            if not homes:
                raise EngineError(Reason.UNSUPPORTED, "this llama.cpp does not say where caches go")
            yield _Cache(
                component=_COMPONENTS[size[4]],
                n_bytes=float(size[1]) * MIB,
                n_cells=int(size[2]) * int(size[3] or 1),
                homes=tuple(homes),
            )
            homes.clear()


def _cache_entries(lines: Iterable[str], model: ModelFacts, config: Config) -> Iterator[PlanEntry]:
    sizes: dict[tuple[str, str], int] = {}
    for cache in _read_caches(lines):
        cell_bytes = {
            layer: _cell_bytes(model, config, layer, cache.component) for layer, _ in cache.homes
        }
        for device, n_bytes in cache.by_device(cell_bytes).items():
            key = cache.component, device
            sizes[key] = sizes.get(key, 0) + n_bytes
    for (component, device), n_bytes in sizes.items():
        yield from _entries(component, {device: n_bytes})


def _cell_bytes(model: ModelFacts, config: Config, layer: int, component: str) -> float:
    """Bytes of one cell of a layer by the header; at least 1, so that layers can be weighed."""
    if component == "recurrent":
        return max(model.state_elements * _F32_BYTES, 1)
    key, value = model.cached_elements(layer)
    n_bytes = (
        key * KV_BYTES_PER_ELEMENT[config.type_k] + value * KV_BYTES_PER_ELEMENT[config.type_v]
    )
    return max(n_bytes, 1.0)


def _buffer_entries(report: EngineReport) -> Iterator[PlanEntry]:
    """Compute and output buffers: the ones whose lines are right."""
    for component in ("compute", "output"):
        sizes: dict[str, int] = {}
        for buffer in report.buffers:
            if buffer.kind == component:
                home = _home(buffer.device)
                sizes[home] = sizes.get(home, 0) + buffer.n_bytes
        yield from _entries(component, sizes)


def _home(buffer: str) -> str:
    """The device whose memory a buffer is in: ``CPU_Mapped`` and ``CUDA_Host`` are the CPU's."""
    if buffer.startswith(CPU) or buffer.endswith("_Host"):
        return CPU
    return buffer.partition("_")[0]


def _entries(component: str, sizes: Mapping[str, int]) -> Iterator[PlanEntry]:
    for device, n_bytes in sizes.items():
        if n_bytes:
            yield PlanEntry(component=component, device=device, n_bytes=n_bytes)
