"""The machine: what stays true of it, what changes from minute to minute, and who it is."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
from pathlib import Path

import psutil

from autotune.domain.machine import MachineFacts, MachineState
from autotune.domain.units import GIB
from autotune.facts.cgroup import CgroupLimits, read_cgroup
from autotune.facts.cpu import count_allowed, count_logical, read_processor, usable_processors
from autotune.facts.gpu import read_gpus
from autotune.facts.text import read_text

_GENERATIONS = frozenset(
    (
        *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"),
        *("dotprod", "i8mm", "sve", "sme"),
    )
)
"""Extensions that tell generations of processors apart. Never to be changed: every machine would be
a stranger to its own runs."""


def read_machine(root: Path = Path("/")) -> MachineFacts:
    """The facts of this machine; ``root`` is where a Linux file tree begins."""
    system = platform.system()
    processor = read_processor(root, system=system)
    limits = _limits(root, system)
    return MachineFacts(
        cpu=processor.name or platform.processor() or platform.machine(),
        n_logical=count_logical(),
        n_physical=processor.n_physical or psutil.cpu_count(logical=False),
        n_performance=processor.n_performance,
        n_usable=usable_processors(count_allowed(), limits.cpu_quota),
        cpu_quota=limits.cpu_quota,
        isa=processor.isa,
        cache_l2_bytes=processor.cache_l2_bytes,
        cache_l3_bytes=processor.cache_l3_bytes,
        n_numa_nodes=processor.n_numa_nodes,
        ram_bytes=psutil.virtual_memory().total,
        ram_limit_bytes=limits.memory_limit_bytes,
        system=system,
        os_version=_os_version(root, system),
        kernel=platform.release(),
        gpus=read_gpus(),
    )


def read_state(root: Path = Path("/")) -> MachineState:
    """Free memory, power and load right now."""
    left = _limits(root, platform.system()).memory_left_bytes
    available = psutil.virtual_memory().available
    return MachineState(
        ram_available_bytes=available if left is None else min(available, left),
        on_ac=_on_ac(),
        load_1m=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def machine_id(facts: MachineFacts) -> str:
    """16 hexadecimal digits that stay the same as long as the hardware does.

    Left out is what an update or a neighbour changes: kernel, quota, limits, driver, free memory,
    and single bytes of installed memory, which firmware and kernels count differently. Virtual
    machines call processors of several generations by one name; what these can do differs.
    """
    gpus = sorted(gpu.uuid or f"{gpu.name} {_gib(gpu.total_bytes)}" for gpu in facts.gpus)
    identity = [
        *(facts.system, facts.cpu, facts.n_logical, facts.n_physical),
        *(_gib(facts.ram_bytes), gpus, sorted(_GENERATIONS.intersection(facts.isa))),
    ]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _limits(root: Path, system: str) -> CgroupLimits:
    return read_cgroup(root) if system == "Linux" else CgroupLimits()


def _gib(n_bytes: int | None) -> int | None:
    return None if n_bytes is None else round(n_bytes / GIB)


def _on_ac() -> bool | None:
    """Whether the machine is plugged in; None where no battery is seen."""
    read_battery = getattr(psutil, "sensors_battery", None)
    battery = read_battery() if read_battery else None
    return None if battery is None else battery.power_plugged


def _os_version(root: Path, system: str) -> str:
    """The name that people know the system by, such as ``Debian GNU/Linux 12 (bookworm)``."""
    if system == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    if system == "Windows":
        return f"Windows {platform.win32_ver()[1]}"
    release = read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release") or ""
    return parse_os_release(release) or platform.version()


def parse_os_release(text: str) -> str | None:
    """``PRETTY_NAME`` of an ``os-release`` file, its quotes removed."""
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "PRETTY_NAME":
            return " ".join(shlex.split(value)) or None
    return None
