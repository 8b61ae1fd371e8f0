"""Constants of GPUs and processors by the names that drivers give them."""

from __future__ import annotations

import pytest

from autotune.facts.devices import lookup, typical_intensity
from autotune.facts.hosts import lookup_host


@pytest.mark.parametrize(
    "name",
    [
        "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S",
        "Radeon 8060S Graphics",
        "Radeon 8060S Graphics (RADV STRIX_HALO)",
        "Radeon 8060S Graphics (RADV GFX1151)",
    ],
)
def test_a_graphics_core_inside_a_processor_is_found_by_all_its_names(name: str) -> None:
    """Also by the processor's, which says what it contains."""
    core = lookup(name)

    assert core is not None
    assert core.name == "8060S"
    assert core.read_bytes_per_s == 256e9


@pytest.mark.parametrize(
    ("name", "bandwidth"),
    [
        ("NVIDIA GeForce RTX 4090", 1008e9),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 576e9),
        ("NVIDIA GeForce RTX 4060 Ti 16GB", 288e9),
        ("2x RTX 3090", 936e9),
        ("NVIDIA A100-SXM4-40GB", 1555e9),
        ("NVIDIA A100-SXM4-80GB", 2039e9),
        ("M2 Ultra", 800e9),
        ("Apple M3 Max (MTL)", 400e9),
        ("M3 Max 40-core GPU", 400e9),
        ("Apple M3 Max 30-core GPU", 300e9),
        ("NVIDIA GeForce RTX 3080 12GB", 912e9),
        ("2x NVIDIA GeForce RTX 3080", 760e9),
        ("AMD Radeon VII (RADV VEGA20)", 1024e9),
        ("NVIDIA GeForce GTX 1650", 128e9),
        ("NVIDIA GeForce RTX 5070 Ti Laptop GPU", 672e9),
        ("NVIDIA RTX PRO 4500 Blackwell", 896e9),
        ("NVIDIA H20", 4000e9),
        ("AMD Radeon PRO W7800 48GB", 864e9),
        ("AMD Radeon AI PRO R9700 (RADV GFX1201)", 640e9),
        ("Intel(R) Arc(TM) Pro B60 Graphics", 456e9),
        ("Apple M5 Max", 614e9),
    ],
)
def test_a_gpu_is_found_by_the_words_people_use(name: str, bandwidth: float) -> None:
    """With or without the maker, how many there are, cores and memory; a laptop's is another."""
    found = lookup(name)

    assert found is not None
    assert found.read_bytes_per_s == bandwidth


def test_what_apple_does_not_publish_is_like_what_it_does() -> None:
    """A GPU beside fast memory does less arithmetic per byte than one with memory of its own."""
    known = lookup("Apple M1 Max")

    assert known is not None
    assert known.flops_per_s is not None
    published = known.flops_per_s / known.read_bytes_per_s
    assert typical_intensity("Apple M3 Max") == pytest.approx(published, rel=0.5)
    assert typical_intensity("Arc") > 2 * published


def test_a_name_that_tells_no_chip_finds_nothing() -> None:
    """ROCm calls every graphics core the same."""
    assert lookup("AMD Radeon Graphics") is None
    assert lookup("") is None
    assert lookup("Tesla M4") is None


@pytest.mark.parametrize(
    ("name", "n_cores"),
    [
        ("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", 16),
        ("Intel i7-10700K", 8),
        ("AMD Ryzen 7 5800X3D 8-Core Processor", 8),
        ("AMD EPYC 9654 96-Core Processor", 96),
        ("13th Gen Intel(R) Core(TM) i9-13900KF", 24),
        ("Intel(R) Core(TM) i7-10700K CPU @ 3.80GHz", 8),
    ],
)
def test_a_processor_is_found_inside_its_marketing_name(name: str, n_cores: int) -> None:
    """Makers wrap the number in words."""
    host = lookup_host(name)

    assert host is not None
    assert host.n_cores == n_cores


def test_an_unlisted_processor_is_none() -> None:
    """An engineering sample says nothing, and a longer number is another chip."""
    assert lookup_host("AMD Ryzen 9 5900XT 16-Core Processor") is None
    assert lookup_host("AMD Eng Sample: 100-000001243-50_Y") is None
