"""Processors of recorded systems, and how much of one a process may use."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.facts.cpu import count_allowed, count_logical, read_processor, usable_processors
from autotune.facts.darwin_cpu import parse_sysctl
from autotune.facts.isa import normalise_isa
from autotune.facts.linux_cpu import read_linux_cpu
from autotune.facts.processor import Processor
from autotune.facts.text import parse_id_list
from autotune.facts.windows_cpu import parse_features, parse_registry_name
from tests.facts.conftest import recorded

KIB, MIB = 1024, 1024**2
Plant = Callable[[str], Path]


def test_an_epyc_guest_has_two_equal_cores(plant: Plant) -> None:
    """Name, cores, caches counted once and the AVX-512 extensions of a virtual machine."""
    assert read_linux_cpu(plant("linux_epyc_guest")) == Processor(
        name="AMD EPYC 9454P 48-Core Processor",
        n_physical=2,
        n_performance=None,
        isa=(
            *("avx", "avx2", "avx512_bf16", "avx512_vbmi", "avx512_vnni", "avx512bw", "avx512f"),
            *("bmi2", "f16c", "fma", "sse3", "ssse3"),
        ),
        cache_l2_bytes=2 * MIB,
        cache_l3_bytes=32 * MIB,
        n_numa_nodes=1,
    )


def test_an_intel_hybrid_has_two_performance_cores(plant: Plant) -> None:
    """Eight threads are six cores, two of them fast; the small ones share one L2."""
    cpu = read_linux_cpu(plant("linux_intel_hybrid"))
    assert cpu.name == "12th Gen Intel(R) Core(TM) i3-1215U"
    assert (cpu.n_physical, cpu.n_performance) == (6, 2)
    assert cpu.cache_l2_bytes == (2 * 1280 + 2048) * KIB
    assert cpu.cache_l3_bytes == 10240 * KIB
    assert "avx_vnni" in cpu.isa
    assert "avx512f" not in cpu.isa


def test_favoured_cores_are_not_another_kind(plant: Plant) -> None:
    """A boost limit that is 3 % higher makes no performance core."""
    cpu = read_linux_cpu(plant("linux_ryzen_favoured_cores"))
    assert (cpu.n_physical, cpu.n_performance) == (2, None)


def test_an_arm_board_has_big_and_small_cores(plant: Plant) -> None:
    """Names from part numbers, kinds from capacity, clusters told apart as sockets are."""
    assert read_linux_cpu(plant("linux_rk3588")) == Processor(
        name="Cortex-A55 + Cortex-A76",
        n_physical=8,
        n_performance=4,
        isa=("dotprod", "fp16", "neon"),
        cache_l2_bytes=(4 * 512 + 4 * 128) * KIB,
        cache_l3_bytes=3 * MIB,
        n_numa_nodes=None,
    )


def test_an_arm_server_has_its_extensions(plant: Plant) -> None:
    """``asimd`` and its relatives appear under the names of llama.cpp."""
    cpu = read_linux_cpu(plant("linux_graviton3"))
    assert cpu.name == "Neoverse-V1"
    assert cpu.isa == ("dotprod", "fp16", "i8mm", "neon", "sve")
    assert cpu.n_numa_nodes == 2


def test_what_a_system_hides_is_none(plant: Plant, tmp_path: Path) -> None:
    """A container without sysfs, and no file tree at all."""
    assert read_linux_cpu(plant("linux_bare")) == Processor()
    assert read_linux_cpu(tmp_path / "nowhere") == Processor()


def test_an_apple_processor_has_two_kinds_of_core() -> None:
    """Six fast cores in two clusters and four slow ones, each cluster with its L2."""
    assert parse_sysctl(recorded("darwin_m2_pro")) == Processor(
        name="Apple M2 Pro",
        n_physical=10,
        n_performance=6,
        isa=("dotprod", "fp16", "i8mm", "neon"),
        cache_l2_bytes=(2 * 16 + 4) * MIB,
        cache_l3_bytes=None,
    )


def test_an_intel_mac_lists_its_features_in_words() -> None:
    """An older Mac has one kind of core and an L3."""
    cpu = parse_sysctl(recorded("darwin_intel_i7"))
    assert cpu.name == "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz"
    assert (cpu.n_physical, cpu.n_performance) == (6, None)
    assert cpu.isa == ("avx", "avx2", "bmi2", "f16c", "fma", "sse3", "ssse3")
    assert (cpu.cache_l2_bytes, cpu.cache_l3_bytes) == (6 * 256 * KIB, 12 * MIB)


def test_windows_tells_name_and_features() -> None:
    """The registry pads the name; features are asked for by number."""
    assert (
        parse_registry_name(recorded("windows_reg_query")) == "AMD Ryzen 9 7950X 16-Core Processor"
    )
    assert parse_registry_name("ERROR: The system was unable to find the key") is None
    assert parse_features({13, 36, 39, 40, 41, 99}.__contains__) == (
        *("avx", "avx2", "avx512f", "sse3", "ssse3"),
    )


def test_extensions_have_one_name_everywhere() -> None:
    """Linux, macOS and llama.cpp spell them differently; unknown ones are left out."""
    assert normalise_isa(["pni", "SSE3", "AVX1.0", "avx512vbmi", "sse4_2"]) == (
        *("avx", "avx512_vbmi", "sse3"),
    )


def test_lists_of_ids_may_have_ranges() -> None:
    """The kernel's notation, with its newline; anything else is empty."""
    assert parse_id_list("0-2,8\n") == {0, 1, 2, 8}
    assert parse_id_list("") == parse_id_list("none") == frozenset()


@pytest.mark.parametrize(
    ("n_allowed", "quota", "usable"),
    [(8, None, 8), (8, 3.5, 3), (2, 16.0, 2), (4, 0.5, 1), (1, None, 1)],
)
def test_the_tighter_of_affinity_and_quota_holds(
    n_allowed: int, quota: float | None, usable: int
) -> None:
    """Rounded down, never below one."""
    assert usable_processors(n_allowed, quota) == usable


def test_this_process_may_use_what_its_affinity_says() -> None:
    """Between one and all processors; taking one away is noticed."""
    assert 1 <= count_allowed() <= count_logical()
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert count_allowed() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_this_machine_has_a_processor() -> None:
    """Whatever the system, reading it raises nothing; a foreign one is unknown."""
    assert isinstance(read_processor(), Processor)
    assert read_processor(system="Plan 9") == Processor()
    for system in {"Darwin", "Windows"} - {platform.system()}:
        assert read_processor(system=system).cache_l3_bytes is None
