"""Constants of GPUs and processors by the names that drivers give them."""

from __future__ import annotations

import pytest

from autotune.facts.devices import lookup, lookup_host


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


def test_a_name_that_tells_no_chip_finds_nothing() -> None:
    """ROCm calls every graphics core the same."""
    assert lookup("AMD Radeon Graphics") is None
    assert lookup("") is None


@pytest.mark.parametrize(
    ("name", "n_cores"),
    [
        ("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", 16),
        ("Intel i7-10700K", 8),
        ("Intel(R) Core(TM) i7-10700K CPU @ 3.80GHz", 8),
    ],
)
def test_a_processor_is_found_inside_its_marketing_name(name: str, n_cores: int) -> None:
    """Makers wrap the number in words."""
    host = lookup_host(name)

    assert host is not None
    assert host.n_cores == n_cores


def test_an_unlisted_processor_is_none() -> None:
    """An engineering sample says nothing."""
    assert lookup_host("AMD Eng Sample: 100-000001243-50_Y") is None
