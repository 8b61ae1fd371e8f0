"""Published constants of GPUs that cannot be probed from here.

Bandwidth is the memory's, arithmetic the dense half-precision matrix rate with float32
accumulation (without the factor 2 that sparsity gives on paper). Under each vendor stands where the
figures were published. Of boards that share a name the most common one is meant, and listed first;
what a vendor did not publish is None.
"""

from __future__ import annotations

import math
import re
import statistics
from dataclasses import dataclass
from functools import cache

from autotune.facts.device_names import ListedName, words_of

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
_LAPTOP = "NVIDIA GeForce laptop specifications (2 × FP32 rate at the highest boost clock)"
_PRO_BLACKWELL = "NVIDIA RTX PRO Blackwell datasheets (an eighth of the sparse FP4 rate)"
_M2 = "Apple M2 family press releases (bandwidth; 3.6 TFLOPS for 10 cores, times 19, 38 and 76)"
_TABLE: tuple[tuple[str, float, float | None, str], ...] = (
    ("GTX 1080 Ti", 484, 11.3, "NVIDIA GeForce GTX 1080 Ti specifications (FP32 rate)"),
    ("GTX 1050 Ti", 112, 2.1, "NVIDIA GeForce GTX 1050 Ti specifications (FP32 rate)"),
    ("GTX 1060 6GB", 192, 4.4, "NVIDIA GeForce GTX 1060 specifications (FP32 rate)"),
    ("GTX 1060 3GB", 192, 3.9, "NVIDIA GeForce GTX 1060 (3 GB) specifications (FP32 rate)"),
    ("GTX 1070", 256, 6.5, "NVIDIA GeForce GTX 1070 specifications (FP32 rate)"),
    ("GTX 1070 Ti", 256, 8.2, "NVIDIA GeForce GTX 1070 Ti specifications (FP32 rate)"),
    ("GTX 1080", 320, 8.9, "NVIDIA GeForce GTX 1080 specifications (FP32 rate)"),
    ("GTX 1650", 128, 6.0, "NVIDIA GeForce GTX 1650 (GDDR5) specifications (2 × FP32 rate)"),
    ("GTX 1660 SUPER", 336, 10.1, "NVIDIA GeForce GTX 1660 SUPER specifications (2 × FP32 rate)"),
    ("GTX 1660 Ti", 288, 10.9, "NVIDIA Turing TU116 launch material (2 × FP32 rate)"),
    ("M40", 288, 6.8, "NVIDIA Tesla M40 datasheet (FP32 rate)"),
    ("P40", 347, 11.8, "NVIDIA Tesla P40 datasheet (FP32 rate)"),
    # A P100 of which nobody says more is in a PCIe slot.
    ("P100-PCIE-16GB", 732, 18.7, "NVIDIA Tesla P100 datasheet"),
    ("P100-PCIE-12GB", 549, 18.7, "NVIDIA Tesla P100 datasheet"),
    ("P100-SXM2-16GB", 732, 21.2, "NVIDIA Tesla P100 datasheet"),
    ("RTX 2060", 336, 25.8, "NVIDIA Turing GPU Architecture whitepaper, appendix"),
    ("RTX 2070", 448, 29.9, "NVIDIA Turing GPU Architecture whitepaper, appendix"),
    ("RTX 2080", 448, 40.3, "NVIDIA Turing GPU Architecture whitepaper, appendix"),
    ("RTX 2080 Ti", 616, 53.8, "NVIDIA Turing GPU Architecture whitepaper, appendix"),
    ("RTX 2060 SUPER", 448, 28.7, "NVIDIA GeForce RTX 2060 SUPER specifications"),
    ("RTX 2070 SUPER", 448, 36.3, "NVIDIA GeForce RTX 2070 SUPER specifications"),
    ("RTX 2080 SUPER", 496, 44.6, "NVIDIA GeForce RTX 2080 SUPER specifications"),
    ("TITAN RTX", 672, 130.5, "NVIDIA TITAN RTX specifications"),
    ("TITAN V", 653, 110, "NVIDIA TITAN V specifications"),
    ("Quadro RTX 6000", 672, 130.5, "NVIDIA Turing GPU Architecture whitepaper, appendix"),
    ("Quadro RTX 8000", 672, 130.5, "NVIDIA Quadro RTX 8000 datasheet"),
    ("RTX 3050", 224, 18.2, "NVIDIA GeForce RTX 3050 specifications (2 × FP32 rate)"),
    ("RTX 3050 6GB", 168, 13.5, "NVIDIA GeForce RTX 3050 (6 GB) specifications (2 × FP32 rate)"),
    ("RTX 3060 Laptop GPU", 336, 26.2, _LAPTOP),
    ("RTX 3070 Laptop GPU", 448, 33.2, _LAPTOP),
    ("RTX 3080 Laptop GPU", 448, 42.0, _LAPTOP),
    ("RTX 4050 Laptop GPU", 192, 24.3, _LAPTOP),
    ("RTX 4060 Laptop GPU", 256, 29.1, _LAPTOP),
    ("RTX 4070 Laptop GPU", 256, 40.1, _LAPTOP),
    ("RTX 4080 Laptop GPU", 432, 67.7, _LAPTOP),
    ("RTX 4090 Laptop GPU", 576, 79.4, _LAPTOP),
    ("RTX 5070 Laptop GPU", 384, 43.3, _LAPTOP),
    ("RTX 5070 Ti Laptop GPU", 672, 52.3, _LAPTOP),
    ("RTX 5080 Laptop GPU", 896, 70.3, _LAPTOP),
    ("RTX 5090 Laptop GPU", 896, 90.7, _LAPTOP),
    ("RTX 3060", 360, 25.5, "NVIDIA GeForce RTX 3060 specifications (2 × FP32 rate)"),
    ("RTX 3060 8GB", 240, 25.5, "NVIDIA GeForce RTX 3060 (8 GB) specifications (2 × FP32 rate)"),
    ("RTX 3060 Ti", 448, 32.4, "NVIDIA GeForce RTX 3060 Ti specifications (2 × FP32 rate)"),
    ("RTX 3070", 448, 40.6, _AMPERE),
    ("RTX 3070 Ti", 608, 43.5, "NVIDIA GeForce RTX 3070 Ti specifications (2 × FP32 rate)"),
    ("RTX 3080", 760, 59.5, _AMPERE),
    ("RTX 3080 12GB", 912, 61.3, "NVIDIA GeForce RTX 3080 (12 GB) specifications (2 × FP32 rate)"),
    ("RTX 3080 Ti", 912, 68.2, "NVIDIA GeForce RTX 3080 Ti specifications (2 × FP32 rate)"),
    ("RTX 3090", 936, 71.2, _AMPERE),
    ("RTX 3090 Ti", 1008, 80.0, "NVIDIA GeForce RTX 3090 Ti specifications (2 × FP32 rate)"),
    ("RTX A2000", 288, 32.0, "NVIDIA RTX A2000 datasheet"),
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
    ("RTX 4000 Ada Generation", 360, 106.9, "NVIDIA RTX 4000 Ada Generation datasheet"),
    ("RTX 5000 Ada Generation", 576, 261, "NVIDIA RTX 5000 Ada Generation datasheet"),
    ("RTX 4090", 1008, 165.2, _ADA),
    ("RTX 6000 Ada Generation", 960, 364.2, _ADA),
    ("L4", 300, 121, "NVIDIA L4 datasheet"),
    ("L40S", 864, 362, "NVIDIA L40S datasheet"),
    ("L20", 864, 119.5, "NVIDIA L20 datasheet"),
    ("RTX 5060", 448, 38.4, "NVIDIA GeForce RTX 5060 specifications (2 × FP32 rate)"),
    ("RTX 5060 Ti", 448, 47.4, "NVIDIA GeForce RTX 5060 Ti specifications (2 × FP32 rate)"),
    ("RTX 5070", 672, 61.7, _BLACKWELL),
    ("RTX 5070 Ti", 896, 87.9, _BLACKWELL),
    ("RTX 5080", 960, 112.6, _BLACKWELL),
    ("RTX 5090", 1792, 209.5, _BLACKWELL),
    ("RTX PRO 6000 Blackwell Workstation Edition", 1792, 503.8, _PRO_BLACKWELL),
    ("RTX PRO 6000 Blackwell Server Edition", 1597, 462, _PRO_BLACKWELL),
    ("RTX PRO 6000 Blackwell Max-Q Workstation Edition", 1792, 438.9, _PRO_BLACKWELL),
    ("RTX PRO 5000 Blackwell", 1344, 258, _PRO_BLACKWELL),
    ("RTX PRO 4500 Blackwell", 896, 219.8, "NVIDIA RTX PRO 4500 Blackwell (4 × FP32 rate)"),
    ("RTX PRO 4000 Blackwell", 672, 147.3, _PRO_BLACKWELL),
    ("T4", 320, 65, "NVIDIA T4 datasheet"),
    # A bare V100 is in an SXM2 socket.
    ("V100-SXM2-16GB", 900, 125, "NVIDIA V100 datasheet"),
    ("V100-SXM2-32GB", 900, 125, "NVIDIA V100 datasheet"),
    ("V100-PCIE-16GB", 900, 112, "NVIDIA V100 datasheet"),
    ("V100-PCIE-32GB", 900, 112, "NVIDIA V100 datasheet"),
    ("V100S-PCIE-32GB", 1134, 130, "NVIDIA V100 datasheet"),
    ("A10", 600, 125, "NVIDIA A10 datasheet"),
    ("A10G", 600, 70, "NVIDIA A10 datasheet; Amazon EC2 G5 instances"),
    ("A30", 933, 165, "NVIDIA A30 datasheet"),
    ("A40", 696, 149.7, "NVIDIA A40 datasheet"),
    ("L40", 864, 181, "NVIDIA L40 datasheet"),
    # A bare A100, or one of 80 GB, is in an SXM4 socket; a bare A100 PCIe has 80 GB. A bare H100 or
    # H800 is in an SXM5 socket.
    ("A100-SXM4-80GB", 2039, 312, "NVIDIA A100 datasheet"),
    ("A100-PCIE-80GB", 1935, 312, "NVIDIA A100 datasheet"),
    ("A100-SXM4-40GB", 1555, 312, "NVIDIA A100 datasheet"),
    ("A100-PCIE-40GB", 1555, 312, "NVIDIA A100 datasheet"),
    ("H100 SXM5 80GB HBM3", 3350, 989, "NVIDIA H100 datasheet (SXM)"),
    ("H100 PCIe", 2000, 756, "NVIDIA H100 datasheet"),
    ("H100 NVL", 3900, 835, "NVIDIA H100 datasheet (NVL)"),
    ("H800 SXM5 80GB", 3350, 989, "NVIDIA H800 (an H100 but for its links and FP64)"),
    ("H800 PCIe", 2000, 756, "NVIDIA H800 (an H100 but for its links and FP64)"),
    ("H20 96GB", 4000, 148, "NVIDIA H20 datasheet"),
    ("GH200 480GB", 4000, 989, "NVIDIA GH200 Grace Hopper Superchip datasheet (96 GB HBM3)"),
    ("B200 SXM", 8000, 2250, "NVIDIA DGX B200 datasheet (dense FP16)"),
    ("B300 SXM", 8000, 2250, "NVIDIA HGX B300 specifications (an eighth of its dense FP16)"),
    ("H200 SXM", 4800, 989, "NVIDIA H200 datasheet"),
    ("Orin", 204.8, None, "NVIDIA Jetson AGX Orin datasheet"),
    ("Instinct MI250X", 1638, 191.5, "AMD Instinct MI250X datasheet (one of its two dies)"),
    ("Instinct MI300X", 5300, 1307.4, "AMD Instinct MI300X datasheet"),
    ("Instinct MI300A", 5300, 980.6, "AMD Instinct MI300A datasheet"),
    ("Instinct MI325X", 6000, 1307.4, "AMD Instinct MI325X datasheet"),
    ("Instinct MI50", 1024, 26.5, "AMD Radeon Instinct MI50 datasheet"),
    ("Instinct MI60", 1024, 29.5, "AMD Radeon Instinct MI60 datasheet"),
    ("Radeon VII", 1024, 26.9, "AMD Radeon VII specifications"),
    ("Radeon Pro VII", 1024, 26.1, "AMD Radeon Pro VII specifications"),
    ("RX Vega 64", 484, 25.3, "AMD Radeon RX Vega 64 specifications"),
    ("RX Vega 56", 410, 21.1, "AMD Radeon RX Vega 56 specifications"),
    ("RX 580", 256, 6.2, "AMD Radeon RX 580 specifications (FP32 rate)"),
    ("RX 5700 XT", 448, 19.5, "AMD Radeon RX 5700 XT specifications"),
    ("RX 6600", 224, 17.9, "AMD Radeon RX 6600 specifications"),
    ("RX 6600 XT", 256, 21.2, "AMD Radeon RX 6600 XT specifications"),
    ("RX 6650 XT", 280, 21.6, "AMD Radeon RX 6650 XT specifications"),
    ("RX 6750 XT", 432, 26.6, "AMD Radeon RX 6750 XT specifications"),
    ("RX 6950 XT", 576, 47.3, "AMD Radeon RX 6950 XT specifications"),
    ("Instinct MI100", 1228.8, 184.6, "AMD Instinct MI100 datasheet"),
    ("Instinct MI210", 1638, 181, "AMD Instinct MI210 datasheet"),
    ("RX 6700 XT", 384, 26.4, "AMD Radeon RX 6700 XT specifications"),
    ("RX 6800", 512, 32.3, "AMD Radeon RX 6800 specifications"),
    ("RX 6800 XT", 512, 41.5, "AMD Radeon RX 6800 XT specifications"),
    ("RX 6900 XT", 512, 46.1, "AMD Radeon RX 6900 XT specifications"),
    ("RX 7600", 288, 43.5, "AMD Radeon RX 7600 specifications"),
    ("RX 7600 XT", 288, 45.1, "AMD Radeon RX 7600 XT specifications"),
    ("RX 7700 XT", 432, 70.3, "AMD Radeon RX 7700 XT specifications"),
    ("RX 7900 GRE", 576, 91.9, "AMD Radeon RX 7900 GRE specifications"),
    ("PRO W6800", 512, 35.7, "AMD Radeon PRO W6800 specifications"),
    ("PRO W7800", 576, 90.5, "AMD Radeon PRO W7800 specifications"),
    ("PRO W7800 48GB", 864, 90.5, "AMD Radeon PRO W7800 48GB specifications"),
    ("PRO W7900", 864, 122.6, "AMD Radeon PRO W7900 specifications"),
    ("RX 7800 XT", 624, 74.7, "AMD Radeon RX 7800 XT specifications"),
    ("RX 7900 XT", 800, 103, "AMD Radeon RX 7900 XT specifications"),
    ("RX 9060 XT", 320, 103, "AMD Radeon RX 9060 XT specifications"),
    ("RX 9070", 640, 145, "AMD Radeon RX 9070 specifications"),
    ("RX 9070 XT", 640, 195, "AMD Radeon RX 9070 XT specifications"),
    ("AI PRO R9700", 640, 191, "AMD Radeon AI PRO R9700 specifications"),
    ("8060S", 256, 59.4, "AMD Ryzen AI Max+ 395 specifications (256-bit LPDDR5X-8000)"),
    ("8050S", 256, 46, "AMD Ryzen AI Max 390 specifications (256-bit LPDDR5X-8000)"),
    ("Arc A770", 560, 137.6, "Intel Arc A770 specifications"),
    ("Arc A770 8GB", 512, 137.6, "Intel Arc A770 (8 GB) specifications"),
    ("Arc A750", 512, 117.4, "Intel Arc A750 specifications"),
    ("Arc A380", 186, 32.8, "Intel Arc A380 specifications"),
    ("Arc B570", 380, 101.5, "Intel Arc B570 specifications"),
    ("Arc B580", 456, 116.7, "Intel Arc B580 specifications"),
    ("Arc Pro B50", 224, 85.2, "Intel Arc Pro B50 specifications"),
    ("Arc Pro B60", 456, 98.3, "Intel Arc Pro B60 specifications"),
    ("GB10", 273, 125, "NVIDIA DGX Spark specifications (dense FP16)"),
    ("RX 7900 XTX", 960, 122.8, "AMD Radeon RX 7900 XTX specifications"),
    ("Apple M1", 68.25, 2.6, "Apple M1 press release and MacBook Air (M1) specifications"),
    ("Apple M1 Pro", 200, 5.2, "Apple M1 Pro and M1 Max press release"),
    ("Apple M1 Max", 400, 10.4, "Apple M1 Pro and M1 Max press release"),
    ("Apple M1 Ultra", 800, 21, "Apple M1 Ultra press release"),
    ("Apple M2", 100, 3.6, "Apple M2 press release"),
    ("Apple M2 Pro", 200, 6.8, _M2),
    ("Apple M2 Max", 400, 13.7, _M2),
    ("Apple M2 Ultra", 800, 27.4, _M2),
    ("Apple M3", 100, None, "Apple MacBook Air (M3) specifications"),
    ("Apple M3 Pro", 150, None, "Apple MacBook Pro (M3 Pro) specifications"),
    ("Apple M3 Max", 400, None, "Apple MacBook Pro (M3 Max) specifications"),
    ("Apple M3 Max 30-core GPU", 300, None, "Apple MacBook Pro (M3 Max) specifications"),
    ("Apple M3 Ultra", 819, None, "Apple Mac Studio (M3 Ultra) specifications"),
    ("Apple M4 Max", 546, None, "Apple M4 Pro and M4 Max press release"),
    ("Apple M4", 120, None, "Apple M4 press release"),
    ("Apple M4 Max 32-core GPU", 410, None, "Apple MacBook Pro (M4 Max) specifications"),
    ("Apple M4 Pro", 273, None, "Apple M4 Pro and M4 Max press release"),
    ("Apple M5", 153, None, "Apple M5 press release"),
    ("Apple M5 Pro", 307, None, "Apple M5 Pro and M5 Max press release"),
    ("Apple M5 Max", 614, None, "Apple M5 Pro and M5 Max press release"),
)
"""Name without the maker's, GB/s, TFLOPS, source."""

_INSIDE = re.compile(r"\bw/\s*(.+)$")
"""How a processor names the graphics core that it contains."""


@cache
def lookup(name: str) -> DeviceConstants | None:
    """The constants of a GPU by the name that driver, engine or people give it; None if not listed.

    Every word that tells a board has to agree: a laptop's RTX 4090 is another chip than the
    desktop's. How many there are, the maker, the family before a number, the form of a board and
    the sizes that a chip comes in may be said or not. Of a processor's name, the graphics core that
    it says it contains is looked up.
    """
    inside = _INSIDE.search(name)
    said = frozenset(words_of(inside[1] if inside else name))
    meant = [listed for listed in _LISTED if listed[0].is_meant(said)]
    best = max(meant, key=lambda listed: len(said & listed[0].words), default=None)
    return best[1] if best else None


_CONSTANTS = tuple(
    DeviceConstants(
        name=name,
        read_bytes_per_s=bandwidth * GB,
        flops_per_s=None if tera is None else tera * TERA,
        source=source,
    )
    for name, bandwidth, tera, source in _TABLE
)
_LISTED = tuple((ListedName.of(known.name), known) for known in _CONSTANTS)


def bandwidth_spread() -> float:
    """Standard deviation of the natural logarithm of all published bandwidths.

    How little the name "a GPU" tells: most lie within a factor of three of each other.
    """
    return statistics.stdev(math.log(known.read_bytes_per_s) for known in _CONSTANTS)


@cache
def typical_intensity(name: str) -> float:
    """FLOPs per byte of a GPU whose arithmetic nobody published: the median of its kind."""
    is_apple = name.startswith("Apple ")
    return statistics.median(
        known.flops_per_s / known.read_bytes_per_s
        for known in _CONSTANTS
        if known.flops_per_s and known.name.startswith("Apple ") == is_apple
    )
