"""Limits of control groups, both versions, tightest level first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.domain.units import GIB
from autotune.facts.cgroup import CgroupLimits, read_cgroup

Plant = Callable[[str], Path]


def test_the_tightest_level_of_version_2_holds(plant: Plant) -> None:
    """A pod in a slice: time is limited in the middle, memory left is least at the top.

    The slice has 32 GiB, 28 of them used, 4 of those droppable: 8 left. The pod has 16 GiB with 2
    in use that cannot be dropped: 14 left.
    """
    assert read_cgroup(plant("cgroup_v2_pod")) == CgroupLimits(
        cpu_quota=3.5, memory_limit_bytes=16 * GIB, memory_left_bytes=8 * GIB
    )


def test_a_container_sees_its_limits_at_the_root_of_version_1(plant: Plant) -> None:
    """The path that the process is told is the host's, and does not exist inside."""
    assert read_cgroup(plant("cgroup_v1_docker")) == CgroupLimits(
        cpu_quota=1.5, memory_limit_bytes=4 * GIB, memory_left_bytes=int(2.5 * GIB)
    )


@pytest.mark.parametrize("system", ["cgroup_v1_unlimited", "linux_bare"])
def test_no_limit_is_none(plant: Plant, system: str) -> None:
    """Version 1 writes −1 and a number close to 2⁶³; other systems have no such files."""
    assert read_cgroup(plant(system)) == CgroupLimits()


def test_a_group_that_is_over_its_limit_has_nothing_left(plant: Plant) -> None:
    """A limit lowered below the use is not a negative amount."""
    root = plant("cgroup_v1_docker")
    (root / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("1000")
    assert read_cgroup(root).memory_left_bytes == 0


@pytest.mark.parametrize("text", ["", "max", "0 100000", "many 100000", "100000 0"])
def test_an_odd_quota_is_no_quota(plant: Plant, text: str) -> None:
    """A file that says nothing sensible limits nothing."""
    root = plant("cgroup_v2_pod")
    (root / "sys/fs/cgroup/kubepods.slice/pod1.slice/cpu.max").write_text(text)
    assert read_cgroup(root).cpu_quota is None


def test_this_process_can_be_asked() -> None:
    """On any system: limits are positive or None."""
    limits = read_cgroup()
    assert limits.cpu_quota is None or limits.cpu_quota > 0
