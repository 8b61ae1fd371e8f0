"""Graphics cores that share their processor's memory: what they compute, by their names.

They read as fast as their processor's memory is, whichever machine they are in. Arithmetic is
units × half-precision operations per unit and cycle × highest clock, as vendors publish it of their
cards: 512 operations of AMD's compute units from RDNA 3 on, 256 of earlier ones, 32 of Intel's
execution units, 2,048 of Intel's cores with matrix units. Where a name stands for many chips it is
that of a common one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TERA = 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCore:
    """What a graphics core computes, on paper."""

    flops_per_s: float
    """Dense FP16 multiply-add operations, each counted as two."""
    source: str


_RADEON = r"(?:^|\bamd |\bradeon )"
"""Before numbers that are NVIDIA's as well: a GeForce 840M is a card."""
_RYZEN_7840 = "AMD Ryzen 7 7840HS specifications (12 units, 2.7 GHz)"
_RYZEN_6800 = "AMD Ryzen 7 6800HS specifications (12 units, 2.2 GHz)"
_RYZEN_5700 = "AMD Ryzen 7 5700G specifications (8 units, 2 GHz)"
_I9_12900 = "Intel Core i9-12900K specifications (32 units, 1.55 GHz)"
_TABLE: tuple[tuple[str, float, str], ...] = (
    (_RADEON + "890m", 23.8, "AMD Ryzen AI 9 HX 370 specifications (16 units, 2.9 GHz)"),
    (_RADEON + "880m", 17.8, "AMD Ryzen AI 9 365 specifications (12 units, 2.9 GHz)"),
    (_RADEON + "860m", 12.3, "AMD Ryzen AI 7 350 specifications (8 units, 3 GHz)"),
    (_RADEON + "840m", 5.9, "AMD Ryzen AI 5 340 specifications (4 units, 2.9 GHz)"),
    (_RADEON + "780m", 16.6, _RYZEN_7840),
    (_RADEON + "760m", 10.6, "AMD Ryzen 5 7640HS specifications (8 units, 2.6 GHz)"),
    (_RADEON + "740m", 5.1, "AMD Ryzen 3 7440U specifications (4 units, 2.5 GHz)"),
    (_RADEON + "680m", 6.8, _RYZEN_6800),
    (_RADEON + "660m", 2.9, "AMD Ryzen 5 6600H specifications (6 units, 1.9 GHz)"),
    (_RADEON + "610m", 1.0, "AMD Ryzen 5 7520U specifications (2 units, 1.9 GHz)"),
    (r"\bradeon (?:rx )?vega (?:3|[6-9]|1[01])", 4.1, _RYZEN_5700),
    # Of a core without a number, Mesa tells the chip; that it is one, the processor's name.
    (r"\(radv (?:phoenix|gfx1103)\w*", 16.6, _RYZEN_7840),
    (r"\(radv rembrandt", 6.8, _RYZEN_6800),
    (r"\(radv (?:raven|renoir)\w*", 4.1, _RYZEN_5700),
    (r"\(radv raphael\w*", 1.1, "AMD Ryzen 9 7950X specifications (2 units, 2.2 GHz)"),
    (r"\bwith radeon", 4.1, _RYZEN_5700),
    (r"\barc 140[vt]", 33.6, "Intel Core Ultra 9 288V specifications (8 cores, 2.05 GHz)"),
    (r"\barc graphics", 9.2, "Intel Core Ultra 7 155H specifications (128 units, 2.25 GHz)"),
    # An Iris Xe MAX is a card.
    (r"\biris(?! xe max)", 4.0, "Intel Core i7-1165G7 specifications (96 units, 1.3 GHz)"),
    (r"\buhd", 1.6, _I9_12900),
    (r"\bintel hd graphics", 0.9, "Intel Core i7-8700K specifications (24 units, 1.2 GHz)"),
    (r"\bintel graphics(?= \((?:adl|rpl)\b)", 1.6, _I9_12900),
)
"""What a name has in it, TFLOPS, source; the first that fits."""


def shared_core(name: str) -> SharedCore | None:
    """The graphics core that a GPU's or its processor's name tells; None for any other name.

    ``AMD Radeon Graphics`` alone tells nothing: ROCm calls cards so, too.
    """
    words = " ".join(re.sub(r"\((?:r|tm)\)", " ", name.lower()).split())
    return next((core for pattern, core in _CORES if pattern.search(words)), None)


_CORES = tuple(
    (re.compile(rf"{pattern}\b"), SharedCore(flops_per_s=tera * TERA, source=source))
    for pattern, tera, source in _TABLE
)
