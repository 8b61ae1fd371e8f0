"""Published constants of GPUs that cannot be probed from here.

Bandwidth is the memory's, arithmetic the dense half-precision matrix rate with float32
accumulation (without the factor 2 that sparsity gives on paper). Under each vendor stands where the
figures were published. Of boards that share a name the most common one is meant; what a vendor did
not publish is None.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

GB, TERA = 1e9, 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConstants:
    """The ceilings of one GPU on paper."""

    name: str
    read_bytes_per_s: float
    flops_per_s: float | None
    """Dense FP16 multiply-add operations, each counted as two."""
    source: str
    """The document that states both."""


_AMPERE = "NVIDIA Ampere GA102 GPU Architecture whitepaper, appendix A"
_ADA = "NVIDIA Ada GPU Architecture whitepaper, appendix A and B"
_BLACKWELL = "NVIDIA RTX Blackwell GPU Architecture whitepaper, appendix A"
_TABLE: tuple[tuple[str, float, float | None, str], ...] = (
    ("GTX 1080 Ti", 484, 11.3, "NVIDIA GeForce GTX 1080 Ti specifications (FP32 rate)"),
    ("P40", 347, 11.8, "NVIDIA Tesla P40 datasheet (FP32 rate)"),
    ("P100-PCIE-16GB", 732, 18.7, "NVIDIA Tesla P100 datasheet"),
    ("RTX 2060", 336, 51.6, "NVIDIA Turing GPU Architecture whitepaper, appendix"),
    ("RTX 2070", 448, 59.7, "NVIDIA Turing GPU Architecture whitepaper, appendix"),
    ("RTX 2080", 448, 80.5, "NVIDIA Turing GPU Architecture whitepaper, appendix"),
    ("RTX 2080 Ti", 616, 107.6, "NVIDIA Turing GPU Architecture whitepaper, appendix"),
    ("RTX 3060", 360, 25.5, "NVIDIA GeForce RTX 3060 specifications (2 × FP32 rate)"),
    ("RTX 3060 Ti", 448, 32.4, "NVIDIA GeForce RTX 3060 Ti specifications (2 × FP32 rate)"),
    ("RTX 3070", 448, 40.6, _AMPERE),
    ("RTX 3070 Ti", 608, 43.5, "NVIDIA GeForce RTX 3070 Ti specifications (2 × FP32 rate)"),
    ("RTX 3080", 760, 59.5, _AMPERE),
    ("RTX 3080 Ti", 912, 68.2, "NVIDIA GeForce RTX 3080 Ti specifications (2 × FP32 rate)"),
    ("RTX 3090", 936, 71.2, _AMPERE),
    ("RTX 3090 Ti", 1008, 80.0, "NVIDIA GeForce RTX 3090 Ti specifications (2 × FP32 rate)"),
    ("RTX A4000", 448, 76.7, "NVIDIA RTX A4000 datasheet"),
    ("RTX A4500", 640, 94.6, "NVIDIA RTX A4500 datasheet"),
    ("RTX A5000", 768, 111.1, "NVIDIA RTX A5000 datasheet"),
    ("RTX A6000", 768, 154.8, _AMPERE),
    ("RTX 4060", 272, 30.2, "NVIDIA GeForce RTX 4060 specifications (2 × FP32 rate)"),
    ("RTX 4060 Ti", 288, 44.1, "NVIDIA GeForce RTX 4060 Ti specifications (2 × FP32 rate)"),
    ("RTX 4070", 504, 58.3, "NVIDIA GeForce RTX 4070 specifications (2 × FP32 rate)"),
    ("RTX 4070 Ti", 504, 80.2, "NVIDIA GeForce RTX 4070 Ti specifications (2 × FP32 rate)"),
    ("RTX 4070 SUPER", 504, 71.0, "NVIDIA GeForce RTX 4070 SUPER specifications (2 × FP32 rate)"),
    ("RTX 4070 Ti SUPER", 672, 88.2, "NVIDIA GeForce RTX 4070 Ti SUPER specifications"),
    ("RTX 4080", 716.8, 97.5, _ADA),
    ("RTX 4080 SUPER", 736, 104.4, "NVIDIA GeForce RTX 4080 SUPER specifications"),
    ("RTX 4000 Ada Generation", 360, 213, "NVIDIA RTX 4000 Ada Generation datasheet"),
    ("RTX 5000 Ada Generation", 576, 261, "NVIDIA RTX 5000 Ada Generation datasheet"),
    ("RTX 4090", 1008, 165.2, _ADA),
    ("RTX 6000 Ada Generation", 960, 364.2, _ADA),
    ("L4", 300, 121, "NVIDIA L4 datasheet"),
    ("L40S", 864, 362, "NVIDIA L40S datasheet"),
    ("RTX 5070", 672, 61.7, _BLACKWELL),
    ("RTX 5070 Ti", 896, 87.9, _BLACKWELL),
    ("RTX 5080", 960, 112.6, _BLACKWELL),
    ("RTX 5090", 1792, 209.5, _BLACKWELL),
    ("T4", 320, 65, "NVIDIA T4 datasheet"),
    ("V100-SXM2-16GB", 900, 125, "NVIDIA V100 datasheet"),
    ("V100-SXM2-32GB", 900, 125, "NVIDIA V100 datasheet"),
    ("A10", 600, 125, "NVIDIA A10 datasheet"),
    ("A10G", 600, 125, "NVIDIA A10 datasheet; Amazon EC2 G5 instances"),
    ("A30", 933, 165, "NVIDIA A30 datasheet"),
    ("A40", 696, 149.7, "NVIDIA A40 datasheet"),
    ("L40", 864, 181, "NVIDIA L40 datasheet"),
    ("A100-PCIE-40GB", 1555, 312, "NVIDIA A100 datasheet"),
    ("A100-SXM4-40GB", 1555, 312, "NVIDIA A100 datasheet"),
    ("A100-SXM4-80GB", 2039, 312, "NVIDIA A100 datasheet"),
    ("A100 80GB PCIe", 1935, 312, "NVIDIA A100 datasheet"),
    ("H100 PCIe", 2000, 756, "NVIDIA H100 datasheet"),
    ("H100 80GB HBM3", 3350, 989, "NVIDIA H100 datasheet (SXM)"),
    ("H200", 4800, 989, "NVIDIA H200 datasheet"),
    ("Instinct MI300X", 5300, 1307.4, "AMD Instinct MI300X datasheet"),
    ("Instinct MI50", 1024, 26.5, "AMD Radeon Instinct MI50 datasheet"),
    ("Instinct MI60", 1024, 29.5, "AMD Radeon Instinct MI60 datasheet"),
    ("Instinct MI100", 1228.8, 184.6, "AMD Instinct MI100 datasheet"),
    ("Instinct MI210", 1638, 181, "AMD Instinct MI210 datasheet"),
    ("RX 6700 XT", 384, 26.4, "AMD Radeon RX 6700 XT specifications"),
    ("RX 6800", 512, 32.3, "AMD Radeon RX 6800 specifications"),
    ("RX 6800 XT", 512, 41.5, "AMD Radeon RX 6800 XT specifications"),
    ("RX 6900 XT", 512, 46.1, "AMD Radeon RX 6900 XT specifications"),
    ("RX 7600", 288, 43.5, "AMD Radeon RX 7600 specifications"),
    ("RX 7800 XT", 624, 74.7, "AMD Radeon RX 7800 XT specifications"),
    ("RX 7900 XT", 800, 103, "AMD Radeon RX 7900 XT specifications"),
    ("RX 9070", 640, 145, "AMD Radeon RX 9070 specifications"),
    ("RX 9070 XT", 640, 195, "AMD Radeon RX 9070 XT specifications"),
    ("8060S", 256, 59.4, "AMD Ryzen AI Max+ 395 specifications (256-bit LPDDR5X-8000)"),
    ("8050S", 256, 46, "AMD Ryzen AI Max 390 specifications (256-bit LPDDR5X-8000)"),
    ("Arc A770", 560, 137.6, "Intel Arc A770 specifications"),
    ("Arc B580", 456, 116.7, "Intel Arc B580 specifications"),
    ("GB10", 273, 125, "NVIDIA DGX Spark specifications (dense FP16)"),
    ("RX 7900 XTX", 960, 122.8, "AMD Radeon RX 7900 XTX specifications"),
    ("Apple M1", 68.25, 2.6, "Apple M1 press release and MacBook Air (M1) specifications"),
    ("Apple M1 Pro", 200, 5.2, "Apple M1 Pro and M1 Max press release"),
    ("Apple M1 Max", 400, 10.4, "Apple M1 Pro and M1 Max press release"),
    ("Apple M1 Ultra", 800, 21, "Apple M1 Ultra press release"),
    ("Apple M2", 100, 3.6, "Apple M2 press release"),
    ("Apple M2 Pro", 200, None, "Apple M2 Pro and M2 Max press release"),
    ("Apple M2 Max", 400, None, "Apple M2 Pro and M2 Max press release"),
    ("Apple M2 Ultra", 800, None, "Apple M2 Ultra press release"),
    ("Apple M3", 100, None, "Apple MacBook Air (M3) specifications"),
    ("Apple M3 Pro", 150, None, "Apple MacBook Pro (M3 Pro) specifications"),
    ("Apple M3 Max", 400, None, "Apple MacBook Pro (M3 Max) specifications"),
    ("Apple M3 Ultra", 819, None, "Apple Mac Studio (M3 Ultra) specifications"),
    ("Apple M4 Max", 546, None, "Apple M4 Pro and M4 Max press release"),
    ("Apple M4", 120, None, "Apple M4 press release"),
    ("Apple M4 Pro", 273, None, "Apple M4 Pro and M4 Max press release"),
)
"""Name without the maker's, GB/s, TFLOPS, source."""

_MAKERS = re.compile(r"\b(nvidia|amd|intel|geforce|radeon|tesla|graphics)\b|\(.*?\)")
_INSIDE = re.compile(r"\bw/\s*(.+)$")
"""How a processor names the graphics core that it contains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConstants:
    """The ceilings of one processor on paper."""

    name: str
    n_cores: int
    read_bytes_per_s: float
    """Of its memory channels at the fastest speed that the vendor supports."""
    flops_per_s: float
    """Single-precision rate of all cores at base clock."""
    source: str


_HOSTS: tuple[tuple[str, int, float, float, str], ...] = (
    ("i7-10700K", 8, 45.8, 0.97, "Intel Core i7-10700K specifications (2 × DDR4-2933, AVX2)"),
    ("i9-13900K", 24, 89.6, 1.34, "Intel Core i9-13900K specifications (2 × DDR5-5600, AVX2)"),
    ("i9-14900K", 24, 89.6, 1.41, "Intel Core i9-14900K specifications (2 × DDR5-5600, AVX2)"),
    ("Ryzen 9 5950X", 16, 51.2, 1.74, "AMD Ryzen 9 5950X specifications (2 × DDR4-3200, AVX2)"),
    ("Ryzen 9 7950X", 16, 83.2, 2.30, "AMD Ryzen 9 7950X specifications (2 × DDR5-5200, AVX2)"),
    ("Ryzen 9 9950X", 16, 89.6, 4.40, "AMD Ryzen 9 9950X specifications (2 × DDR5-5600)"),
    ("Ryzen AI Max+ 395", 16, 256, 3.07, "AMD Ryzen AI Max+ 395 specifications"),
)
"""Name, cores, GB/s, TFLOPS, source."""


def lookup(name: str) -> DeviceConstants | None:
    """The constants of a GPU by the name that driver or engine gives it; None if not listed.

    The whole name has to agree: a laptop's RTX 4090 is another chip than the desktop's. Of a
    processor's name, the graphics core that it says it contains is looked up.
    """
    inside = _INSIDE.search(name)
    return _BY_NAME.get(_plain(inside[1] if inside else name))


def lookup_host(name: str) -> HostConstants | None:
    """The constants of a processor by its marketing name; None if not listed."""
    words = name.lower()
    return next((host for host in _BY_HOST if host.name.lower() in words), None)


def _plain(name: str) -> str:
    return " ".join(_MAKERS.sub(" ", name.lower()).split())


_BY_NAME: Mapping[str, DeviceConstants] = {
    _plain(name): DeviceConstants(
        name=name,
        read_bytes_per_s=bandwidth * GB,
        flops_per_s=None if tera is None else tera * TERA,
        source=source,
    )
    for name, bandwidth, tera, source in _TABLE
}
_BY_HOST = tuple(
    HostConstants(
        name=name,
        n_cores=n_cores,
        read_bytes_per_s=bandwidth * GB,
        flops_per_s=tera * TERA,
        source=source,
    )
    for name, n_cores, bandwidth, tera, source in _HOSTS
)


def bandwidth_spread() -> float:
    """Standard deviation of the natural logarithm of all published bandwidths.

    How little the name "a GPU" tells: most lie within a factor of three of each other.
    """
    return statistics.stdev(math.log(known.read_bytes_per_s) for known in _BY_NAME.values())
