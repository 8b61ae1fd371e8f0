"""What NVIDIA GPUs are doing right now, through the driver's library NVML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from autotune.domain.conditions import GPUState
from autotune.facts.nvml import ask_nvml, load_nvml, nvml_text

_REASONS = {
    0x001: "gpu_idle",
    0x002: "applications_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
}
"""``nvmlClocksEventReasons`` of ``nvml.h``."""
_AT_REST = 0x001
"""A GPU without work is not held back."""


def decode_reasons(bits: int) -> tuple[str, ...]:
    """Names of the reasons for which a GPU does not run at full clock; of unknown ones the bit."""
    held_back = bits & ~_AT_REST
    return tuple(
        _REASONS.get(1 << place, f"bit_{place}")
        for place in range(held_back.bit_length())
        if held_back & (1 << place)
    )


class GPUSensors:
    """An open line to the driver. Close it, or use it as a context manager."""

    def __init__(self, nvml: Any, handles: Iterable[Any]) -> None:
        self._nvml = nvml
        self._handles = tuple(handles)

    @classmethod
    def open(cls, nvml: Any = None) -> GPUSensors | None:
        """All GPUs of the driver; None without the library, the driver or a GPU.

        ``nvml`` is the module ``pynvml`` or one that looks like it.
        """
        nvml = nvml or load_nvml()
        if nvml is None:
            return None
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return None
        count = ask_nvml(nvml, "nvmlDeviceGetCount") or 0
        found = (ask_nvml(nvml, "nvmlDeviceGetHandleByIndex", index) for index in range(count))
        sensors = cls(nvml, [handle for handle in found if handle is not None])
        if sensors._handles:
            return sensors
        sensors.close()
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; a second time does nothing."""
        if self._nvml is not None:
            ask_nvml(self._nvml, "nvmlShutdown")
        self._nvml, self._handles = None, ()

    def read(self, pid: int) -> tuple[GPUState, ...]:
        """One look at every GPU, and at what a process holds on it."""
        return tuple(
            _state(self._nvml, handle, index, pid) for index, handle in enumerate(self._handles)
        )


def _state(nvml: Any, handle: Any, index: int, pid: int) -> GPUState:
    def ask(getter: str, *args: Any) -> Any:
        return ask_nvml(nvml, getter, handle, *args)

    memory, load = ask("nvmlDeviceGetMemoryInfo"), ask("nvmlDeviceGetUtilizationRates")
    power_mw, energy_mj = ask("nvmlDeviceGetPowerUsage"), ask("nvmlDeviceGetTotalEnergyConsumption")
    bits = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if bits is None:  # the name before driver 535
        bits = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    return GPUState(
        device=nvml_text(ask("nvmlDeviceGetUUID")) or f"GPU {index}",
        used_bytes=None if memory is None else int(memory.used),
        process_bytes=_process_bytes(nvml, handle, pid),
        utilisation_ratio=None if load is None else load.gpu / 100,
        power_w=None if power_mw is None else power_mw / 1000,
        energy_j=None if energy_mj is None else energy_mj / 1000,
        clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        temperature_celsius=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        throttle=None if bits is None else decode_reasons(bits),
    )


def _process_bytes(nvml: Any, handle: Any, pid: int) -> int | None:
    """None also where the driver sees other process numbers than we do, as in a container."""
    for kind in ("Compute", "Graphics"):
        for process in ask_nvml(nvml, f"nvmlDeviceGet{kind}RunningProcesses", handle) or ():
            if process.pid == pid and process.usedGpuMemory is not None:
                return int(process.usedGpuMemory)
    return None
