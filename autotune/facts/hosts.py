"""Published constants of processors that cannot be probed from here.

Bandwidth is that of all memory channels at the fastest speed that the vendor supports; arithmetic
is cores × base clock × single-precision operations per cycle (two fused multiply-adds of 256 bits:
32; of 512 bits: 64; an efficiency core of Intel's: 16).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

GB, TERA = 1e9, 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConstants:
    """The ceilings of one processor on paper."""

    name: str
    n_cores: int
    read_bytes_per_s: float
    flops_per_s: float
    source: str


_I12, _I13 = "2 × DDR5-4800, AVX2", "2 × DDR5-5600, AVX2"
_ZEN23, _ZEN4, _ZEN5 = "2 × DDR4-3200, AVX2", "2 × DDR5-5200", "2 × DDR5-5600, AVX-512"
_QUAD4, _QUAD5 = "4 × DDR4-3200, AVX2", "4 × DDR5-5200"
_HOSTS: tuple[tuple[str, int, float, float, str], ...] = (
    ("i7-8700K", 6, 42.7, 0.71, "Intel Core i7-8700K specifications (2 × DDR4-2666, AVX2)"),
    ("i9-9900K", 8, 42.7, 0.92, "Intel Core i9-9900K specifications (2 × DDR4-2666, AVX2)"),
    ("i7-10700K", 8, 45.8, 0.97, "Intel Core i7-10700K specifications (2 × DDR4-2933, AVX2)"),
    ("i9-10900K", 10, 46.9, 1.18, "Intel Core i9-10900K specifications (2 × DDR4-2933, AVX2)"),
    ("i5-12400", 6, 76.8, 0.48, f"Intel Core i5-12400 specifications ({_I12})"),
    ("i5-12600K", 10, 76.8, 0.89, f"Intel Core i5-12600K specifications ({_I12})"),
    ("i7-12700K", 12, 76.8, 1.09, f"Intel Core i7-12700K specifications ({_I12})"),
    ("i9-12900K", 16, 76.8, 1.13, f"Intel Core i9-12900K specifications ({_I12})"),
    ("i5-13600K", 14, 89.6, 1.00, f"Intel Core i5-13600K specifications ({_I13})"),
    ("i7-13700K", 16, 89.6, 1.19, f"Intel Core i7-13700K specifications ({_I13})"),
    ("i9-13900K", 24, 89.6, 1.34, f"Intel Core i9-13900K specifications ({_I13})"),
    ("i5-14600K", 14, 89.6, 1.00, f"Intel Core i5-14600K specifications ({_I13})"),
    ("i7-14700K", 20, 89.6, 1.35, f"Intel Core i7-14700K specifications ({_I13})"),
    ("i9-14900K", 24, 89.6, 1.41, f"Intel Core i9-14900K specifications ({_I13})"),
    ("E5-2680 v4", 14, 76.8, 1.08, "Intel Xeon E5-2680 v4 specifications (4 × DDR4-2400, AVX2)"),
    ("E5-2690 v4", 14, 76.8, 1.16, "Intel Xeon E5-2690 v4 specifications (4 × DDR4-2400, AVX2)"),
    ("E5-2699 v4", 22, 76.8, 1.55, "Intel Xeon E5-2699 v4 specifications (4 × DDR4-2400, AVX2)"),
    ("Platinum 8380", 40, 204.8, 5.89, "Intel Xeon Platinum 8380 specifications (8 × DDR4-3200)"),
    ("Platinum 8480+", 56, 307.2, 7.17, "Intel Xeon Platinum 8480+ specifications (8 × DDR5-4800)"),
    ("Ryzen 5 3600", 6, 51.2, 0.69, f"AMD Ryzen 5 3600 specifications ({_ZEN23})"),
    ("Ryzen 7 3700X", 8, 51.2, 0.92, f"AMD Ryzen 7 3700X specifications ({_ZEN23})"),
    ("Ryzen 9 3900X", 12, 51.2, 1.46, f"AMD Ryzen 9 3900X specifications ({_ZEN23})"),
    ("Ryzen 9 3950X", 16, 51.2, 1.79, f"AMD Ryzen 9 3950X specifications ({_ZEN23})"),
    ("Ryzen 5 5600X", 6, 51.2, 0.71, f"AMD Ryzen 5 5600X specifications ({_ZEN23})"),
    ("Ryzen 7 5800X3D", 8, 51.2, 0.87, f"AMD Ryzen 7 5800X3D specifications ({_ZEN23})"),
    ("Ryzen 7 5800X", 8, 51.2, 0.97, f"AMD Ryzen 7 5800X specifications ({_ZEN23})"),
    ("Ryzen 9 5900X", 12, 51.2, 1.42, f"AMD Ryzen 9 5900X specifications ({_ZEN23})"),
    ("Ryzen 9 5950X", 16, 51.2, 1.74, f"AMD Ryzen 9 5950X specifications ({_ZEN23})"),
    ("Ryzen 5 7600X", 6, 83.2, 0.90, f"AMD Ryzen 5 7600X specifications ({_ZEN4})"),
    ("Ryzen 7 7700X", 8, 83.2, 1.15, f"AMD Ryzen 7 7700X specifications ({_ZEN4})"),
    ("Ryzen 7 7800X3D", 8, 83.2, 1.08, f"AMD Ryzen 7 7800X3D specifications ({_ZEN4})"),
    ("Ryzen 9 7900X", 12, 83.2, 1.80, f"AMD Ryzen 9 7900X specifications ({_ZEN4})"),
    ("Ryzen 9 7950X", 16, 83.2, 2.30, f"AMD Ryzen 9 7950X specifications ({_ZEN4})"),
    ("Ryzen 7 7840HS", 8, 89.6, 0.97, "AMD Ryzen 7 7840HS specifications (2 × DDR5-5600)"),
    ("Ryzen 5 9600X", 6, 89.6, 1.50, f"AMD Ryzen 5 9600X specifications ({_ZEN5})"),
    ("Ryzen 7 9700X", 8, 89.6, 1.95, f"AMD Ryzen 7 9700X specifications ({_ZEN5})"),
    ("Ryzen 7 9800X3D", 8, 89.6, 2.41, f"AMD Ryzen 7 9800X3D specifications ({_ZEN5})"),
    ("Ryzen 9 9900X", 12, 89.6, 3.38, f"AMD Ryzen 9 9900X specifications ({_ZEN5})"),
    ("Ryzen 9 9950X", 16, 89.6, 4.40, f"AMD Ryzen 9 9950X specifications ({_ZEN5})"),
    ("Ryzen AI Max+ 395", 16, 256, 3.07, "AMD Ryzen AI Max+ 395 specifications"),
    (
        "Threadripper 3970X",
        32,
        102.4,
        3.79,
        f"AMD Threadripper 3970X specifications ({_QUAD4})",
    ),
    (
        "Threadripper 3990X",
        64,
        102.4,
        5.94,
        f"AMD Threadripper 3990X specifications ({_QUAD4})",
    ),
    (
        "Threadripper 7970X",
        32,
        166.4,
        4.10,
        f"AMD Threadripper 7970X specifications ({_QUAD5})",
    ),
    (
        "Threadripper 7980X",
        64,
        166.4,
        6.55,
        f"AMD Threadripper 7980X specifications ({_QUAD5})",
    ),
    ("PRO 5975WX", 32, 204.8, 3.69, "AMD Threadripper PRO 5975WX specifications (8 × DDR4-3200)"),
    ("PRO 5995WX", 64, 204.8, 5.53, "AMD Threadripper PRO 5995WX specifications (8 × DDR4-3200)"),
    ("PRO 7995WX", 96, 332.8, 7.68, "AMD Threadripper PRO 7995WX specifications (8 × DDR5-5200)"),
    ("EPYC 7543", 32, 204.8, 2.87, "AMD EPYC 7543 specifications (8 × DDR4-3200)"),
    ("EPYC 7742", 64, 204.8, 4.61, "AMD EPYC 7742 specifications (8 × DDR4-3200)"),
    ("EPYC 7763", 64, 204.8, 5.02, "AMD EPYC 7763 specifications (8 × DDR4-3200)"),
    ("EPYC 9354", 32, 460.8, 3.33, "AMD EPYC 9354 specifications (12 × DDR5-4800)"),
    ("EPYC 9554", 64, 460.8, 6.35, "AMD EPYC 9554 specifications (12 × DDR5-4800)"),
    ("EPYC 9654", 96, 460.8, 7.37, "AMD EPYC 9654 specifications (12 × DDR5-4800)"),
)
"""Name, cores, GB/s, TFLOPS, source."""


def lookup_host(name: str) -> HostConstants | None:
    """The constants of a processor by its marketing name; None if not listed."""
    words = name.lower()
    # Suffixes of Intel's change neither cores nor memory; "5900XT" is another chip than "5900X".
    return next(
        (
            h
            for h in _BY_NAME
            if re.search(rf"{re.escape(h.name.lower())}[fks]{{0,2}}(?!\w)", words)
        ),
        None,
    )


_BY_NAME = tuple(
    HostConstants(
        name=name,
        n_cores=n_cores,
        read_bytes_per_s=bandwidth * GB,
        flops_per_s=tera * TERA,
        source=source,
    )
    for name, n_cores, bandwidth, tera, source in _HOSTS
)
