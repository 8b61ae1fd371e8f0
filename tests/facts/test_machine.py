"""The machine as a whole: facts, state and identity."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from autotune.domain.machine import GPUFacts
from autotune.domain.units import GIB, MIB
from autotune.facts.machine import machine_id, parse_os_release, read_machine, read_state
from tests.factories import make_machine

GPU = GPUFacts(name="NVIDIA L4", total_bytes=24 * GIB, uuid="GPU-1")


def test_this_machine_is_read() -> None:
    """Counts and sizes are plausible and the same from call to call."""
    facts = read_machine()
    assert 1 <= facts.n_usable <= facts.n_logical
    assert facts.n_physical is None or 1 <= facts.n_physical <= facts.n_logical
    assert facts.ram_bytes == psutil.virtual_memory().total
    assert facts.cpu
    assert facts.os_version
    assert machine_id(read_machine()) == machine_id(facts)


@pytest.mark.skipif(not psutil.LINUX, reason="recorded on Linux")
def test_a_recorded_machine_is_read(plant: Callable[[str], Path]) -> None:
    """A root elsewhere: the file tree counts, not this machine's."""
    facts = read_machine(plant("linux_epyc_guest"))
    assert facts.cpu == "AMD EPYC 9454P 48-Core Processor"
    assert facts.os_version == "Debian GNU/Linux 12 (bookworm)"
    assert facts.cpu_quota is None


@pytest.mark.skipif(not psutil.LINUX, reason="control groups are Linux's")
def test_a_limit_makes_memory_scarce(plant: Callable[[str], Path]) -> None:
    """Free memory is what both the machine and the control group still allow."""
    root = plant("cgroup_v1_docker")
    assert read_machine(root).usable_ram_bytes == min(4 * GIB, psutil.virtual_memory().total)
    assert read_state(root).ram_available_bytes <= 2.5 * GIB
    assert read_state().ram_available_bytes > 0


@pytest.mark.parametrize(("plugged", "on_ac"), [(True, True), (False, False), (None, None)])
def test_a_battery_tells_the_power(
    monkeypatch: pytest.MonkeyPatch, plugged: bool | None, on_ac: bool | None
) -> None:
    """Without a battery nobody knows."""
    battery = None if plugged is None else type("Battery", (), {"power_plugged": plugged})()
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    assert read_state().on_ac is on_ac


def test_the_identity_is_sixteen_digits() -> None:
    """Hexadecimal, and a constant for constant hardware."""
    assert re.fullmatch(r"[0-9a-f]{16}", machine_id(make_machine()))
    assert machine_id(make_machine()) == machine_id(make_machine())


@pytest.mark.parametrize(
    "changes",
    [
        {"kernel": "7.0"},
        {"os_version": "Debian GNU/Linux 13"},
        {"n_usable": 1, "cpu_quota": 1.0},
        {"ram_limit_bytes": GIB},
        {"ram_bytes": 8 * GIB - 100 * MIB},
        {"isa": ("avx2", "fma", "an extension that a later version reads")},
        {"gpus": (replace(GPU, free_bytes=1, driver="2", temperature_celsius=80.0),)},
        {"gpus": (replace(GPU, device="CUDA0"),)},
    ],
)
def test_updates_and_neighbours_do_not_change_the_identity(changes: dict[str, Any]) -> None:
    """Kernel, quota, limits, driver, and single bytes of memory."""
    machine = make_machine(gpus=(GPU,))
    assert machine_id(replace(machine, **changes)) == machine_id(machine)


@pytest.mark.parametrize(
    "changes",
    [
        {"cpu": "Imaginary 4-Core"},
        {"isa": ("avx2", "avx_vnni", "fma")},
        {"n_logical": 4},
        {"ram_bytes": 16 * GIB},
        {"system": "Windows"},
        {"gpus": ()},
        {"gpus": (replace(GPU, uuid="GPU-2"),)},
        {"gpus": (GPU, GPU)},
    ],
)
def test_other_hardware_has_another_identity(changes: dict[str, Any]) -> None:
    """Processor, whatever it is called, memory, system and GPUs."""
    machine = make_machine(gpus=(GPU,))
    assert machine_id(replace(machine, **changes)) != machine_id(machine)


def test_the_order_of_gpus_does_not_matter() -> None:
    """A driver may number them anew at every start."""
    other = replace(GPU, uuid=None, name="NVIDIA T4")
    forward, backward = make_machine(gpus=(GPU, other)), make_machine(gpus=(other, GPU))
    assert machine_id(forward) == machine_id(backward)


def test_the_name_of_a_distribution_loses_its_quotes() -> None:
    """Quoted, bare or absent."""
    assert (
        parse_os_release('ID=x\nPRETTY_NAME="Fedora Linux 42 (KDE)"\n') == "Fedora Linux 42 (KDE)"
    )
    assert parse_os_release("PRETTY_NAME=Gentoo") == "Gentoo"
    assert parse_os_release("ID=void") is None
