"""Graphics cores by the names of drivers and processors."""

from __future__ import annotations

import pytest

from autotune.facts.devices import lookup
from autotune.facts.integrated import shared_core


@pytest.mark.parametrize(
    ("name", "tera"),
    [
        ("AMD Radeon 890M Graphics (RADV GFX1150)", 23.8),
        ("Radeon 780M", 16.6),
        ("780M", 16.6),
        ("AMD Radeon(TM) 780M Graphics", 16.6),
        ("AMD Radeon 760M (RADV PHOENIX)", 10.6),
        ("AMD Radeon Graphics (RADV GFX1103_R1)", 16.6),
        ("Radeon Graphics (RADV RENOIR)", 4.1),
        ("AMD Radeon Graphics (RADV RAPHAEL_MENDOCINO)", 1.1),
        ("AMD Radeon(TM) RX Vega 11 Graphics", 4.1),
        ("AMD Ryzen 7 7840HS w/ Radeon 780M Graphics", 16.6),
        ("AMD Ryzen 7 5700G with Radeon Graphics", 4.1),
        ("Intel(R) UHD Graphics 770 (ADL-S GT1)", 1.6),
        ("Intel UHD 770", 1.6),
        ("Intel(R) Iris(R) Xe Graphics", 4.0),
        ("Iris Xe", 4.0),
        ("Intel(R) HD Graphics 630", 0.9),
        ("Intel(R) Arc(TM) 140V GPU (16GB)", 33.6),
        ("Intel(R) Arc(TM) Graphics", 9.2),
        ("Intel(R) Graphics (ADL GT2)", 1.6),
    ],
)
def test_a_core_inside_a_processor_is_known_by_all_its_names(name: str, tera: float) -> None:
    """None of them is a listed card's: its memory is the machine's."""
    core = shared_core(name)

    assert core is not None
    assert core.flops_per_s == tera * 1e12
    assert lookup(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "AMD Radeon Graphics",
        "AMD Radeon Graphics (RADV GFX1201)",
        "AMD Radeon RX 7900 XTX (RADV NAVI31)",
        "Radeon RX Vega 64",
        "Radeon Pro Vega 16",
        "Radeon RX 6800M",
        "Radeon HD 6750M",
        "NVIDIA GeForce 840M",
        "NVIDIA GeForce GTX 680M",
        "Intel(R) Iris(R) Xe MAX Graphics",
        "Intel(R) Arc(TM) A770 Graphics (DG2)",
        "Intel(R) Graphics (BMG G21)",
        "Intel(R) Graphics [0xe20b]",
        "AMD Ryzen 9 5950X 16-Core Processor",
        "Apple M2 Ultra",
        "",
    ],
)
def test_a_card_shares_no_memory(name: str) -> None:
    """Neither does what may be one."""
    assert shared_core(name) is None
