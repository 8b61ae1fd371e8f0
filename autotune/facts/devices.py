"""Published constants of GPUs that cannot be probed from here.

Bandwidth is the memory's, arithmetic the dense half-precision matrix rate with float32
accumulation (without the factor 2 that sparsity gives on paper). Under each vendor stands where the
figures were published. Of boards that share a name the most common one is meant; what a vendor did
not publish is None.
"""

from __future__ import annotations

import re
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
    ("RTX 3060", 360, 25.5, "NVIDIA GeForce RTX 3060 specifications (2 × FP32 rate)"),
    ("RTX 3070", 448, 40.6, _AMPERE),
    ("RTX 3080", 760, 59.5, _AMPERE),
    ("RTX 3090", 936, 71.2, _AMPERE),
    ("RTX A6000", 768, 154.8, _AMPERE),
    ("RTX 4060", 272, 30.2, "NVIDIA GeForce RTX 4060 specifications (2 × FP32 rate)"),
    ("RTX 4070", 504, 58.3, "NVIDIA GeForce RTX 4070 specifications (2 × FP32 rate)"),
    ("RTX 4070 Ti", 504, 80.2, "NVIDIA GeForce RTX 4070 Ti specifications (2 × FP32 rate)"),
    ("RTX 4080", 716.8, 97.5, _ADA),
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
    ("A100-SXM4-40GB", 1555, 312, "NVIDIA A100 datasheet"),
    ("A100-SXM4-80GB", 2039, 312, "NVIDIA A100 datasheet"),
    ("A100 80GB PCIe", 1935, 312, "NVIDIA A100 datasheet"),
    ("H100 PCIe", 2000, 756, "NVIDIA H100 datasheet"),
    ("H100 80GB HBM3", 3350, 989, "NVIDIA H100 datasheet (SXM)"),
    ("H200", 4800, 989, "NVIDIA H200 datasheet"),
    ("Instinct MI300X", 5300, 1307.4, "AMD Instinct MI300X datasheet"),
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
    ("Apple M4", 120, None, "Apple M4 press release"),
    ("Apple M4 Pro", 273, None, "Apple M4 Pro and M4 Max press release"),
)
"""Name without the maker's, GB/s, TFLOPS, source."""

_MAKERS = re.compile(r"\b(nvidia|amd|geforce|radeon|tesla)\b|\(.*?\)")


def lookup(name: str) -> DeviceConstants | None:
    """The constants of a GPU by the name that driver or engine gives it; None if not listed.

    The whole name has to agree: a laptop's RTX 4090 is another chip than the desktop's.
    """
    return _BY_NAME.get(_plain(name))


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
