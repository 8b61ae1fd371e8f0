"""What the hardware of a case could do at best: probed where it was, published where it was not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autotune.domain.machine import GPUFacts, MachineFacts, Probe
from autotune.facts.device_names import words_of
from autotune.facts.devices import DeviceConstants, lookup, typical_intensity
from autotune.facts.hosts import HostConstants, lookup_host
from autotune.facts.integrated import SharedCore, shared_core
from autotune.features.case import Array

TYPICAL_HOST = (50e9, 0.6e12)
"""Bytes and floating-point operations per second of a desktop processor nobody measured."""
TYPICAL_GPU = (450e9, 40e12)
"""The same of a GPU that nobody lists: of the cards that people have."""
_LINK_BYTES_PER_S = 16e9
"""PCI Express 4.0 × 8, or 3.0 × 16: between host and GPU where nobody says."""
_LANE_BYTES_PER_S = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.97e9, 5: 3.94e9, 6: 7.56e9}
"""Of one PCI Express lane, by generation, after line coding (PCI-SIG)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Rates in bytes and floating-point operations per second."""

    probe: Probe | None
    host_read: float
    """Of the host's memory, where it was not probed."""
    host_flops: float
    gpu_read: float = 0.0
    """0 without a GPU that the engine uses."""
    gpu_flops: float = 0.0
    link: float = _LINK_BYTES_PER_S
    n_physical: int | None = None
    n_usable: int | None = None
    is_known: bool = True
    """Whether the device that computes was probed or is listed."""

    def read_rate(self, n_threads: Array) -> Array:
        """Host memory read rate with so many threads; same shape."""
        if self.probe is None:
            return np.full(n_threads.shape, self.host_read)
        return _interpolate(n_threads, self.probe.n_threads, self.probe.read_bytes_per_s)

    def flops(self, n_threads: Array) -> Array:
        """Host arithmetic rate with so many threads; same shape."""
        if self.probe is None:
            share = np.minimum(n_threads / (self.n_physical or 8), 1.0)
            return np.asarray(self.host_flops * share)
        return _interpolate(n_threads, self.probe.n_threads, self.probe.flops_per_s)


def find_ceilings(machine: MachineFacts, probe: Probe | None, api: str) -> Ceilings:
    """The ceilings of a machine whose engine computes with ``api``."""
    host, chip = lookup_host(machine.cpu), lookup(machine.cpu)
    gpu = None if api == "CPU" else _gpu_constants(machine)
    core = None if gpu else _shared_core(machine, api)
    read, flops = _rates(host, TYPICAL_HOST)
    if host is None and chip is not None:
        # Its cores read the memory of the graphics core beside them.
        read = chip.read_bytes_per_s
    is_host_known = any(known is not None for known in (probe, host, chip))
    gpu_read, gpu_flops = (0.0, 0.0) if api == "CPU" else _rates(gpu, TYPICAL_GPU)
    if core is not None:
        gpu_read = max(probe.read_bytes_per_s) if probe else read
        gpu_flops = core.flops_per_s
    return Ceilings(
        probe=probe,
        host_read=read,
        host_flops=flops,
        gpu_read=gpu_read,
        gpu_flops=gpu_flops,
        link=_link(machine.gpus),
        n_physical=machine.n_physical or (host.n_cores if host else None),
        n_usable=machine.n_usable,
        is_known=gpu is not None or (is_host_known and (api == "CPU" or core is not None)),
    )


def _gpu_constants(machine: MachineFacts) -> DeviceConstants | None:
    """Of the first GPU that is listed; a graphics core without a name has its processor's."""
    names = [gpu.name for gpu in machine.gpus] + [machine.cpu]
    return next(filter(None, map(lookup, names)), None)


def _shared_core(machine: MachineFacts, api: str) -> SharedCore | None:
    """The graphics core that computes in the processor's memory; None where a card may do it.

    One without a name is what the processor's name says.
    """
    if api in ("CPU", "CUDA"):
        return None
    names = [gpu.name for gpu in machine.gpus if words_of(gpu.name) or shared_core(gpu.name)]
    cores = [shared_core(name) for name in names or [machine.cpu]]
    return cores[0] if all(cores) else None


def _rates(
    constants: DeviceConstants | HostConstants | None, typical: tuple[float, float]
) -> tuple[float, float]:
    if constants is None:
        return typical
    read = constants.read_bytes_per_s
    return read, constants.flops_per_s or read * typical_intensity(constants.name)


def _link(gpus: Sequence[GPUFacts]) -> float:
    for gpu in gpus:
        if gpu.pcie_generation and gpu.pcie_width:
            return _LANE_BYTES_PER_S.get(gpu.pcie_generation, 1.97e9) * gpu.pcie_width
    return _LINK_BYTES_PER_S


def _interpolate(x: Array, xs: Sequence[float], ys: Sequence[float]) -> Array:
    """Piecewise linear through (xs, ys), held constant outside."""
    return np.asarray(np.interp(x, np.asarray(xs, float), np.asarray(ys, float)))
