"""Names that people, shops and drivers give to GPUs, and the boards that they mean."""

from __future__ import annotations

import pytest

from autotune.facts.device_names import words_of
from autotune.facts.devices import _CONSTANTS, lookup


@pytest.mark.parametrize(
    ("name", "board"),
    [
        ("NVIDIA A100", "A100-SXM4-80GB"),
        ("A100 80GB", "A100-SXM4-80GB"),
        ("A100 SXM 80GB", "A100-SXM4-80GB"),
        ("8x NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("A100 PCIe 80GB", "A100-PCIE-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIE-80GB"),
        ("A100 PCIe", "A100-PCIE-80GB"),
        ("A100 40GB", "A100-SXM4-40GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-PCIE-40GB"),
        ("NVIDIA H100", "H100 SXM5 80GB HBM3"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM5 80GB HBM3"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("H100 NVL 94GB", "H100 NVL"),
        ("H200 SXM 141GB", "H200 SXM"),
        ("V100", "V100-SXM2-16GB"),
        ("Tesla V100 32GB", "V100-SXM2-32GB"),
        ("P100", "P100-PCIE-16GB"),
        ("Tesla P40", "P40"),
        ("NVIDIA T4", "T4"),
        ("MI50", "Instinct MI50"),
        ("AMD Radeon Instinct MI50 32GB", "Instinct MI50"),
    ],
)
def test_a_board_of_a_data_centre_is_found_without_its_form_and_its_memory(
    name: str, board: str
) -> None:
    """Of what nobody says, the most common one is meant."""
    found = lookup(name)

    assert found is not None
    assert found.name == board


@pytest.mark.parametrize(
    ("name", "board"),
    [
        ("4090", "RTX 4090"),
        ("RTX4090", "RTX 4090"),
        ("rtx_4090", "RTX 4090"),
        ("GeForce RTX 4090 24 GB", "RTX 4090"),
        ("RTX 3090 x2", "RTX 3090"),
        ("RTX 3090 × 2", "RTX 3090"),
        ("2x RTX 3090", "RTX 3090"),
        ("4xRTX3090", "RTX 3090"),
        ("RTX 3090 (x2)", "RTX 3090"),
        ("1060", "GTX 1060 6GB"),
        ("GTX 1060 3GB", "GTX 1060 3GB"),
        ("RTX 3080 (12GB)", "RTX 3080 12GB"),
        ("3060", "RTX 3060"),
        ("RTX 3060 12GB", "RTX 3060"),
        ("RTX 3060 Mobile", "RTX 3060 Laptop GPU"),
        ("RTX 4090 (Laptop)", "RTX 4090 Laptop GPU"),
        ("4070TI Super", "RTX 4070 Ti SUPER"),
        ("GeForce RTX 4070 Ti SUPER", "RTX 4070 Ti SUPER"),
        ("RTX 6000 Ada", "RTX 6000 Ada Generation"),
        ("RTX 4000 Ada", "RTX 4000 Ada Generation"),
        ("A6000", "RTX A6000"),
        ("RTX PRO 6000", "RTX PRO 6000 Blackwell Workstation Edition"),
        ("RTX PRO 6000 Max-Q", "RTX PRO 6000 Blackwell Max-Q Workstation Edition"),
        ("Radeon RX 7900 XTX (RADV NAVI31)", "RX 7900 XTX"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("7900XTX", "RX 7900 XTX"),
        ("Intel(R) Arc(TM) A770 Graphics (DG2)", "Arc A770"),
        ("Apple M4 Max 32-core GPU 36GB", "Apple M4 Max 32-core GPU"),
        ("2x M2 Ultra", "Apple M2 Ultra"),
    ],
)
def test_a_card_is_found_by_what_people_write(name: str, board: str) -> None:
    """Without its family, glued together, counted at either end."""
    found = lookup(name)

    assert found is not None
    assert found.name == board


@pytest.mark.parametrize(
    "name",
    [
        "RTX 4000",
        "RTX 6000",
        "Quadro RTX 4000",
        "RTX 4000 SFF Ada Generation",
        "RTX 4000 Ada Generation Laptop GPU",
        "NVIDIA RTX PRO 5000 Blackwell Generation Laptop GPU",
        "RTX 4090 D",
        "RTX 2080 with Max-Q Design",
        "RTX 3050 Laptop GPU",
        "RTX 1060",
        "TITAN",
        "GTX 580",
        "580",
        "GeForce 6800 XT",
        "Radeon RX 6600M",
        "NVIDIA A100 MIG 1g.10gb",
        "A100-SXM-64GB",
        "Tesla V100-SXM3-32GB",
        "H200 PCIe",
        "Arc Pro A40",
        "Radeon Vega 8 Graphics",
        "AMD Ryzen 7 5700X 8-Core Processor",
        "AMD Ryzen 7 7840HS w/ Radeon 780M Graphics",
        "Intel(R) Core(TM) i9-9900K CPU @ 3.60GHz",
        "NVIDIA",
        "RTX",
        "80GB",
    ],
)
def test_another_board_finds_nothing(name: str) -> None:
    """A word that nobody expects tells of one that is not listed."""
    assert lookup(name) is None


@pytest.mark.parametrize("name", [known.name for known in _CONSTANTS])
def test_every_listed_name_is_its_own(name: str) -> None:
    """In capitals, in small letters, with its maker's, and two of them."""
    for spelling in (name, name.upper(), name.lower(), f"NVIDIA {name}", f"2x {name}"):
        found = lookup(spelling)

        assert found is not None
        assert found.name == name


def test_a_name_of_makers_alone_has_no_words() -> None:
    """Sizes are written together, in whatever way they were."""
    assert words_of("AMD Radeon(TM) Graphics") == ()
    assert words_of("NVIDIA A100-SXM4-80 GiB") == ("a100", "sxm", "80gb")
