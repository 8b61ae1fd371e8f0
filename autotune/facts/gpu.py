"""GPUs as NVIDIA's driver (NVML) and the inference engine see them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from autotune.domain.machine import GPUFacts
from autotune.facts.nvml import ask_nvml, load_nvml, nvml_text

_SAME_SIZE = 0.1
"""The engine reports what it may allocate, up to a few percent below what the driver counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineDevice:
    """One GPU as the inference engine lists it (``ggml_backend_dev_get`` and its getters)."""

    name: str
    """Such as ``CUDA0``, ``Vulkan1`` or ``Metal``."""
    description: str
    """Such as ``NVIDIA GeForce RTX 4090``."""
    total_bytes: int
    free_bytes: int | None = None

    @property
    def family(self) -> str:
        """The name without its number: the engine's backend."""
        return self.name.rstrip("0123456789")


def read_gpus(nvml: Any = None) -> tuple[GPUFacts, ...]:
    """The GPUs that NVML lists, in its order; none without the library, the driver or a GPU.

    ``nvml`` is the module ``pynvml`` or one that looks like it.
    """
    nvml = nvml or load_nvml()
    if nvml is None:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        return tuple(filter(None, (_gpu(nvml, index) for index in range(_count(nvml)))))
    finally:
        nvml.nvmlShutdown()


def merge_devices(nvml: Sequence[GPUFacts], engine: Sequence[EngineDevice]) -> tuple[GPUFacts, ...]:
    """One entry for each GPU: what the driver says, joined with how the engine calls it.

    Devices are the same if one name contains the other and their memory is about equal. A GPU that
    the engine lists under several backends (CUDA and Vulkan) keeps the first; one that only the
    engine knows is added. ``engine`` lists GPUs only, no processors. They are in its order, in
    which splits are counted: the driver goes by slots, CUDA begins with the fastest.
    """
    gpus = list(nvml)
    for device in engine:
        twins = [index for index, gpu in enumerate(gpus) if _same(gpu, device)]
        unnamed = [index for index in twins if gpus[index].device is None]
        if unnamed:
            gpus[unnamed[0]] = _named(gpus[unnamed[0]], device)
        elif not any(_other_family(gpus[index], device) for index in twins):
            gpus.append(_engine_only(device))
    place = {device.name: number for number, device in enumerate(engine)}
    return tuple(sorted(gpus, key=lambda gpu: place.get(gpu.device or "", -1)))


def _count(nvml: Any) -> int:
    return ask_nvml(nvml, "nvmlDeviceGetCount") or 0


def _gpu(nvml: Any, index: int) -> GPUFacts | None:
    """None for a device that does not say how much memory it has: nothing can be planned on it."""

    def ask(getter: str, *args: Any) -> Any:
        return ask_nvml(nvml, getter, *args)

    handle = ask("nvmlDeviceGetHandleByIndex", index)
    memory = ask("nvmlDeviceGetMemoryInfo", handle) if handle is not None else None
    if memory is None:
        return None
    capability = ask("nvmlDeviceGetCudaComputeCapability", handle)
    mig_mode = ask("nvmlDeviceGetMigMode", handle)
    power_mw = ask("nvmlDeviceGetPowerManagementLimit", handle)
    return GPUFacts(
        name=nvml_text(ask("nvmlDeviceGetName", handle)) or f"GPU {index}",
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        uuid=nvml_text(ask("nvmlDeviceGetUUID", handle)),
        driver=nvml_text(ask("nvmlSystemGetDriverVersion")),
        compute_capability=".".join(map(str, capability)) if capability else None,
        # The largest link, not the present one: an idle GPU slows its link down.
        pcie_generation=ask("nvmlDeviceGetMaxPcieLinkGeneration", handle),
        pcie_width=ask("nvmlDeviceGetMaxPcieLinkWidth", handle),
        clock_mhz=ask("nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_GRAPHICS),
        memory_clock_mhz=ask("nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_MEM),
        temperature_celsius=ask("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
        power_limit_w=power_mw / 1000 if power_mw is not None else None,
        is_mig=bool(mig_mode[0]) if mig_mode is not None else None,
    )


def _same(gpu: GPUFacts, device: EngineDevice) -> bool:
    ours, theirs = _plain(gpu.name), _plain(device.description)
    if not ours or not theirs or (ours not in theirs and theirs not in ours):
        return False
    if gpu.total_bytes is None:
        return True
    larger = max(gpu.total_bytes, device.total_bytes)
    return abs(gpu.total_bytes - device.total_bytes) <= _SAME_SIZE * larger


def _plain(name: str) -> str:
    """A name without what drivers add to it: ``(RADV NAVI31)``, ``(TM)``, capitals, spaces."""
    return re.sub(r"\(.*?\)|[^a-z0-9]", "", name.lower())


def _named(gpu: GPUFacts, device: EngineDevice) -> GPUFacts:
    free_bytes = gpu.free_bytes if device.free_bytes is None else device.free_bytes
    return replace(gpu, device=device.name, free_bytes=free_bytes)


def _other_family(gpu: GPUFacts, device: EngineDevice) -> bool:
    return gpu.device is not None and gpu.device.rstrip("0123456789") != device.family


def _engine_only(device: EngineDevice) -> GPUFacts:
    return GPUFacts(
        name=device.description,
        total_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        device=device.name,
    )
