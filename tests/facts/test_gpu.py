"""GPUs through a driver that is played here, and joined with the engine's devices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autotune.domain.machine import GPUFacts
from autotune.domain.units import GIB
from autotune.facts.devices import lookup
from autotune.facts.gpu import EngineDevice, merge_devices, read_gpus


class NVMLError(Exception):
    """What every getter of the library raises when it cannot answer."""


class FakeNVML:
    """A driver with GPUs that answer to the getters given, and to nothing else."""

    NVMLError = NVMLError
    NVML_CLOCK_GRAPHICS, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 0, 2, 0

    def __init__(self, *gpus: dict[str, Any], starts: bool = True) -> None:
        self.gpus, self.starts = gpus, starts
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.starts:
            raise NVMLError("driver not loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        return self.gpus[index]

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "570.86"

    def __getattr__(self, getter: str) -> Any:
        if not getter.startswith("nvmlDeviceGet"):
            raise AttributeError(getter)

        def get(handle: dict[str, Any], *args: int) -> Any:
            key = getter.removeprefix("nvmlDeviceGet")
            if key not in handle:
                raise NVMLError("not supported")
            return handle[key][args[0]] if args and key == "MaxClockInfo" else handle[key]

        return get


H100 = {
    "Name": "NVIDIA H100 80GB HBM3",
    "MemoryInfo": SimpleNamespace(total=80 * GIB, free=79 * GIB, used=GIB),
    "UUID": "GPU-5c1c",
    "CudaComputeCapability": (9, 0),
    "MaxPcieLinkGeneration": 5,
    "MaxPcieLinkWidth": 16,
    "MaxClockInfo": {0: 1980, 2: 2619},
    "Temperature": 34,
    "PowerManagementLimit": 700_000,
    "MigMode": (1, 1),
}


def test_a_gpu_tells_everything_it_knows() -> None:
    """Bytes, capability, link, clocks, temperature, watts and whether it is cut up."""
    nvml = FakeNVML(H100)
    assert read_gpus(nvml) == (
        GPUFacts(
            name="NVIDIA H100 80GB HBM3",
            total_bytes=80 * GIB,
            free_bytes=79 * GIB,
            uuid="GPU-5c1c",
            driver="570.86",
            compute_capability="9.0",
            pcie_generation=5,
            pcie_width=16,
            clock_mhz=1980,
            memory_clock_mhz=2619,
            temperature_celsius=34,
            power_limit_w=700.0,
            is_mig=True,
        ),
    )
    assert nvml.open == 0


def test_what_a_gpu_does_not_know_is_none() -> None:
    """Old boards and old libraries lack getters, and return names as bytes."""
    bare = {"Name": b"Tesla K80", "MemoryInfo": H100["MemoryInfo"]}
    (gpu,) = read_gpus(FakeNVML(bare))
    assert gpu == GPUFacts(
        name="Tesla K80", total_bytes=80 * GIB, free_bytes=79 * GIB, driver="570.86"
    )


def test_a_gpu_without_memory_of_its_own_is_left_to_the_engine() -> None:
    """Integrated boards do not support the question; others beside them are still read."""
    gpus = read_gpus(FakeNVML({"Name": "NVIDIA GB10"}, H100))
    assert [gpu.name for gpu in gpus] == ["NVIDIA H100 80GB HBM3"]


def test_no_driver_and_no_library_mean_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Absence is an answer, not an error."""
    monkeypatch.setattr("autotune.facts.gpu.load_nvml", lambda: None)
    assert read_gpus() == ()
    assert read_gpus(FakeNVML(H100, starts=False)) == ()
    assert read_gpus(FakeNVML()) == ()


def test_the_real_library_can_be_asked() -> None:
    """With or without a GPU in this machine."""
    assert isinstance(read_gpus(), tuple)


def nvml_gpu(name: str, uuid: str, gib: float = 24.0) -> GPUFacts:
    """A GPU as the driver sees it."""
    return GPUFacts(name=name, uuid=uuid, total_bytes=int(gib * GIB), free_bytes=int(gib * GIB))


def engine_gpu(name: str, description: str, gib: float = 23.5) -> EngineDevice:
    """A GPU as the engine sees it."""
    return EngineDevice(
        name=name, description=description, total_bytes=int(gib * GIB), free_bytes=int(gib * GIB)
    )


def test_driver_and_engine_speak_of_the_same_gpu() -> None:
    """One entry: the driver's facts with the engine's name and free memory."""
    (gpu,) = merge_devices(
        [nvml_gpu("NVIDIA GeForce RTX 4090", "GPU-1")],
        [engine_gpu("CUDA0", "NVIDIA GeForce RTX 4090")],
    )
    assert (gpu.uuid, gpu.device, gpu.free_bytes) == ("GPU-1", "CUDA0", int(23.5 * GIB))


def test_twins_are_named_one_by_one() -> None:
    """Two equal boards, each with one CUDA name; Vulkan's names for them add nothing."""
    boards = [nvml_gpu("NVIDIA GeForce RTX 3090", f"GPU-{n}") for n in range(2)]
    listed = [engine_gpu(f"CUDA{n}", "NVIDIA GeForce RTX 3090") for n in range(2)]
    listed += [engine_gpu(f"Vulkan{n}", "NVIDIA GeForce RTX 3090") for n in range(2)]
    assert [gpu.device for gpu in merge_devices(boards, listed)] == ["CUDA0", "CUDA1"]


def test_gpus_are_in_the_engines_order() -> None:
    """Splits are counted in it: CUDA begins with the fastest, the driver with the first slot."""
    slots = [nvml_gpu("NVIDIA GeForce RTX 3060", "GPU-1", 12), nvml_gpu("NVIDIA T4", "GPU-3", 16)]
    slots += [nvml_gpu("NVIDIA GeForce RTX 3090", "GPU-2")]
    listed = [engine_gpu("CUDA0", "NVIDIA GeForce RTX 3090")]
    listed += [engine_gpu("CUDA1", "NVIDIA GeForce RTX 3060", 11.7)]
    merged = merge_devices(slots, listed)

    assert [(gpu.uuid, gpu.device) for gpu in merged if gpu.device] == [
        ("GPU-2", "CUDA0"),
        ("GPU-1", "CUDA1"),
    ]


def test_a_gpu_that_only_the_engine_knows_is_added() -> None:
    """Apple's and AMD's GPUs have no NVML; two equal ones are two."""
    listed = [engine_gpu("Vulkan0", "AMD Radeon RX 7900 XTX (RADV NAVI31)")] * 2
    merged = merge_devices([nvml_gpu("NVIDIA T4", "GPU-1", 16)], listed)
    assert [(gpu.name[:10], gpu.device) for gpu in merged] == [
        ("NVIDIA T4", None),
        ("AMD Radeon", "Vulkan0"),
        ("AMD Radeon", "Vulkan0"),
    ]


def test_equal_names_with_other_memory_are_other_gpus() -> None:
    """A slice of a cut-up GPU carries the name of the whole."""
    merged = merge_devices(
        [nvml_gpu("NVIDIA A100", "GPU-1", 40)], [engine_gpu("CUDA0", "NVIDIA A100 MIG 1g", 4.8)]
    )
    assert len(merged) == 2


def test_constants_belong_to_whole_names() -> None:
    """A laptop's chip of the same number is another one; makers' names do not matter."""
    desktop = lookup("NVIDIA GeForce RTX 4090")
    assert desktop is not None
    assert (desktop.read_bytes_per_s, desktop.flops_per_s) == (1008e9, 165.2e12)
    assert desktop.source.startswith("NVIDIA Ada")
    laptop = lookup("NVIDIA GeForce RTX 4090 Laptop GPU")
    assert laptop is not None
    assert laptop.read_bytes_per_s < desktop.read_bytes_per_s
    assert lookup("Tesla T4") == lookup("NVIDIA T4") == lookup("T4")
    radeon = lookup("AMD Radeon RX 7900 XTX (RADV NAVI31)")
    assert radeon is not None
    assert radeon.name == "RX 7900 XTX"


def test_unpublished_constants_are_none() -> None:
    """Apple states the bandwidth of its later chips, but not their arithmetic."""
    chip = lookup("Apple M4 Pro")
    assert chip is not None
    assert (chip.read_bytes_per_s, chip.flops_per_s) == (273e9, None)
