"""What is true of a machine. A fact that the system does not give is None, never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUFacts:
    """One GPU, seen by its driver (NVML), by the inference engine, or by both."""

    name: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    uuid: str | None = None
    """The driver's identity of the device; joins what NVML and the engine say of it."""
    device: str | None = None
    """The engine's name of the device, such as ``CUDA0``; None where the engine cannot use it."""
    driver: str | None = None
    compute_capability: str | None = None
    """Such as ``9.0``."""
    pcie_generation: int | None = None
    pcie_width: int | None = None
    clock_mhz: int | None = None
    """Highest graphics clock."""
    memory_clock_mhz: int | None = None
    temperature_celsius: float | None = None
    power_limit_w: float | None = None
    is_mig: bool | None = None
    """Whether the device is cut into instances (seen and left alone)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """One machine, as far as it decides how fast a model runs.

    Of this machine nearly everything is known, of one in somebody's table hardly more than names.
    """

    cpu: str
    """Marketing name of the processor."""
    n_logical: int | None = None
    """Processors the system counts, hyper-threads included."""
    n_physical: int | None = None
    n_performance: int | None = None
    """Physical cores of the fastest kind; None where all are alike or nobody says."""
    n_usable: int | None = None
    """Processors this process may really use: affinity ∩ cgroup quota, rounded down, at least 1."""
    cpu_quota: float | None = None
    """Processors' worth of time per second that the cgroup allows; None without a quota."""
    isa: tuple[str, ...] = ()
    """Instruction-set extensions that llama.cpp has kernels for, such as ``avx2``; sorted."""
    cache_l2_bytes: int | None = None
    cache_l3_bytes: int | None = None
    n_numa_nodes: int | None = None
    ram_bytes: int | None = None
    ram_limit_bytes: int | None = None
    """Memory limit of the cgroup; None without one."""
    system: str | None = None
    """``Linux``, ``Darwin`` or ``Windows``."""
    os_version: str | None = None
    kernel: str | None = None
    gpus: tuple[GPUFacts, ...] = ()

    @property
    def usable_ram_bytes(self) -> int | None:
        """The smaller of installed memory and the cgroup's limit; None where both are unknown."""
        return min(filter(None, (self.ram_bytes, self.ram_limit_bytes)), default=None)

    @property
    def n_processors(self) -> int:
        """Processors to plan with: the usable ones, else what is known of them; at least 1."""
        return self.n_usable or self.n_physical or self.n_logical or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """What changes from minute to minute on a machine."""

    ram_available_bytes: int
    """Memory a new process can take without swapping, the cgroup's limit included."""
    on_ac: bool | None = None
    """None on a machine without a battery that the system can see."""
    load_1m: float | None = None
    """Mean number of runnable processes over the last minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a machine can do, measured: the ceilings of the roofline.

    Sequences run parallel to ``n_threads``; shape (len(n_threads),).
    """

    n_threads: tuple[int, ...]
    read_bytes_per_s: tuple[float, ...]
    """Memory read rate with that many threads; median of the repeats."""
    read_spread_ratio: tuple[float, ...]
    """(max − min) / median over the repeats."""
    flops_per_s: tuple[float, ...]
    """Single-precision matrix-multiply rate with that many threads; median of the repeats."""
    flops_spread_ratio: tuple[float, ...]
    elapsed_s: float

    def read_rate(self, n_threads: float) -> float:
        """Bytes per second at a thread count; between measured counts by interpolation."""
        return _interpolate(n_threads, self.n_threads, self.read_bytes_per_s)

    def flops(self, n_threads: float) -> float:
        """Floating-point operations per second at a thread count; as :meth:`read_rate`."""
        return _interpolate(n_threads, self.n_threads, self.flops_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskFacts:
    """The disk that a model file lies on."""

    mount: str | None = None
    """The folder it is mounted on."""
    device: str | None = None
    filesystem: str | None = None
    kind: str | None = None
    """``ssd``, ``hdd``, ``network`` or ``memory``."""
    free_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskProbe:
    """How fast a model's folder is read, in bytes per second: the ceilings of loading."""

    cached_bytes_per_s: float | None
    """From the page cache."""
    disk_bytes_per_s: float | None
    """Past the page cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build of one inference engine."""

    backend: str
    """Name of the backend, such as ``llama-cpp-python``."""
    version: str
    """The library's own version."""
    commit: str | None = None
    """Revision of llama.cpp (or ggml) inside it."""
    devices: tuple[str, ...] = ()
    """Devices it can compute on, such as ``CPU`` and ``CUDA0``."""
    system_info: str = ""
    """The features it says it was compiled with."""

    @property
    def api(self) -> str:
        """What it computes with: that of its first GPU, else ``CPU``."""
        return next(filter(None, map(gpu_api, self.devices)), "CPU")

    @property
    def label(self) -> str:
        """Version and commit as one word, such as ``0.3.36+0c1e57098``."""
        return f"{self.version}+{self.commit}" if self.commit else self.version


_GPU_APIS: Mapping[str, str] = {
    "cuda": "CUDA", "rocm": "ROCm", "hip": "ROCm", "vulkan": "Vulkan", "metal": "Metal",
    "mtl": "Metal", "sycl": "SYCL", "opencl": "OpenCL", "kompute": "Kompute", "cann": "CANN",
    "musa": "MUSA",
}  # fmt: skip


def gpu_api(name: str) -> str | None:
    """What computes behind llama.cpp's name of a device or backend, such as ``CUDA0``.

    None for what is no GPU: ``CPU``, ``BLAS``, ``RPC``.
    """
    words = name.lower()
    return next((api for part, api in _GPU_APIS.items() if part in words), None)


def _interpolate(x: float, xs: tuple[float, ...], ys: tuple[float, ...]) -> float:
    """Piecewise linear through (xs, ys), held constant outside."""
    if x <= xs[0]:
        return ys[0]
    for left, right, low, high in zip(xs, xs[1:], ys, ys[1:], strict=False):
        if x <= right:
            return low + (high - low) * (x - left) / (right - left)
    return ys[-1]
