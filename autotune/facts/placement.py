"""Which device holds which layer.

Source: ``llama_model_base::load_tensors`` of llama.cpp. Layers go to GPUs from the last one down,
the output layer first; several GPUs take consecutive runs in proportion to ``tensor_split`` or, by
default, to their free memory.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from autotune.domain.config import Config
from autotune.domain.machine import GPUFacts

CPU = "CPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Layers ``first`` to ``end`` − 1, all on ``device``."""

    device: str
    first: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A home for every layer."""

    runs: tuple[Run, ...]
    output: str
    """Device of the output layer."""

    @classmethod
    def of(cls, devices: Sequence[str]) -> Placement:
        """From the device of each layer and, last, of the output layer; shape (n_layers + 1,)."""
        return cls(runs=tuple(_runs(devices[:-1])), output=devices[-1])

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device that holds something; the CPU, which always holds the embedding, first."""
        return tuple(dict.fromkeys((CPU, *(run.device for run in self.runs), self.output)))


def place_layers(config: Config, n_layers: int, *, gpus: Sequence[GPUFacts] = ()) -> Placement:
    """The home of each layer under ``config``; GPUs that the engine cannot use are left out."""
    gpus = [gpu for gpu in gpus if gpu.device is not None]
    n_slots = n_layers + 1  # the output layer counts as one more
    n_offloaded = n_slots if config.n_gpu_layers < 0 else min(config.n_gpu_layers, n_slots)
    if not gpus or not n_offloaded:
        return Placement(runs=(Run(device=CPU, first=0, end=n_layers),), output=CPU)
    if config.split_mode == "none":
        gpus = [gpus[min(config.main_gpu, len(gpus) - 1)]]
    bounds = _bounds(config, gpus)
    offloaded = (gpus[bisect_right(bounds, slot / n_offloaded)] for slot in range(n_offloaded))
    devices = [CPU] * (n_slots - n_offloaded) + [gpu.device or CPU for gpu in offloaded]
    return Placement.of(devices)


def _bounds(config: Config, gpus: Sequence[GPUFacts]) -> Sequence[float]:
    """The share of the offloaded layers at which each next GPU begins; shape (n_gpus − 1,)."""
    shares = (config.tensor_split or ())[: len(gpus)]
    if not any(shares):
        shares = tuple(float(gpu.free_bytes or gpu.total_bytes or 1) for gpu in gpus)
    total = sum(shares)
    return [reached / total for reached in accumulate(shares)][: len(gpus) - 1]


def _runs(devices: Sequence[str]) -> Sequence[Run]:
    runs, first = [], 0
    for device, members in groupby(devices):
        end = first + len(list(members))
        runs.append(Run(device=device, first=first, end=end))
        first = end
    return runs
