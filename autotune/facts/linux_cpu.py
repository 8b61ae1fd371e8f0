"""The processor as Linux describes it: ``/proc/cpuinfo`` and ``/sys/devices/system``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from autotune.facts.isa import normalise_isa
from autotune.facts.processor import Processor
from autotune.facts.text import parse_id_list, read_int, read_text

_CPUS = Path("sys/devices/system/cpu")
_NODES = Path("sys/devices/system/node/online")
_SUFFIXES = {"K": 1024, "M": 1024**2, "G": 1024**3}
_ALIKE = 0.9
"""Boost limits of equal cores differ by a few percent; those of slower kinds by much more."""

_ARM_PART = re.compile(r"CPU implementer\s*: (0x\w+)(?:\n.+)*?\nCPU part\s*: (0x\w+)")
_ARM_PARTS: Mapping[tuple[int, int], str] = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4",
    (0x51, 0x001): "Oryon",
    (0xC0, 0xAC3): "Ampere-1",
}
"""Implementer and part number, from the "Main ID Register" of each core's reference manual."""


def read_linux_cpu(root: Path = Path("/")) -> Processor:
    """The processor of the Linux system whose file tree is at ``root``."""
    cpuinfo = read_text(root / "proc/cpuinfo") or ""
    cores = _cores(root / _CPUS)
    caches = tuple(_caches(root / _CPUS))
    return Processor(
        name=parse_cpu_name(cpuinfo),
        n_physical=len(set(cores.values())) or None,
        n_performance=_n_performance(root, cores),
        isa=parse_cpu_isa(cpuinfo),
        cache_l2_bytes=_cache_bytes(caches, 2),
        cache_l3_bytes=_cache_bytes(caches, 3),
        n_numa_nodes=len(parse_id_list(read_text(root / _NODES) or "")) or None,
    )


def parse_cpu_name(cpuinfo: str) -> str | None:
    """Marketing name in ``/proc/cpuinfo``; of an ARM core the name its part number stands for."""
    fields = _fields(cpuinfo)
    named = (fields.get(key) for key in ("model name", "cpu model", "cpu", "uarch"))
    name = next(filter(None, named), None) or _arm_name(cpuinfo) or fields.get("hardware")
    return " ".join(name.split()) if name else None


def parse_cpu_isa(cpuinfo: str) -> tuple[str, ...]:
    """Extensions in ``/proc/cpuinfo``: ``flags`` on x86, ``Features`` on ARM."""
    fields = _fields(cpuinfo)
    return normalise_isa((fields.get("flags") or fields.get("features") or "").split())


def _arm_name(cpuinfo: str) -> str | None:
    """The kinds of core in order of appearance, such as ``Cortex-A55 + Cortex-A76``."""
    parts = [(int(maker, 16), int(part, 16)) for maker, part in _ARM_PART.findall(cpuinfo)]
    return " + ".join(dict.fromkeys(filter(None, map(_ARM_PARTS.get, parts)))) or None


def _fields(cpuinfo: str) -> Mapping[str, str]:
    """The first value of every key, keys in lower case."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _cores(cpus: Path) -> Mapping[int, tuple[int, int]]:
    """Physical core of each online processor: number → (socket, core)."""
    cores = {}
    for cpu in sorted(cpus.glob("cpu[0-9]*/topology")):
        core = read_int(cpu / "core_id")
        if core is not None:
            socket = read_int(cpu / "physical_package_id")
            cores[int(cpu.parent.name[3:])] = (socket or 0, core)
    return cores


def _n_performance(root: Path, cores: Mapping[int, tuple[int, int]]) -> int | None:
    """Cores of the fastest kind, by Intel's list of kinds, ARM's capacity or the highest clock."""
    fast = parse_id_list(read_text(root / "sys/devices/cpu_core/cpus") or "")
    if not fast or not read_text(root / "sys/devices/cpu_atom/cpus"):
        fast = _fastest(root / _CPUS, cores, "cpu_capacity") or _fastest(
            root / _CPUS, cores, "cpufreq/cpuinfo_max_freq"
        )
    return len({cores[cpu] for cpu in fast if cpu in cores}) or None


def _fastest(cpus: Path, numbers: Iterable[int], file: str) -> frozenset[int]:
    """The processors that a file rates highest; empty where all are alike or nobody rates them."""
    ratings = {number: read_int(cpus / f"cpu{number}" / file) for number in numbers}
    known = {number: rating for number, rating in ratings.items() if rating}
    threshold = _ALIKE * max(known.values(), default=0)
    fast = frozenset(number for number, rating in known.items() if rating >= threshold)
    return fast if len(fast) < len(known) else frozenset()


def _caches(cpus: Path) -> Iterator[tuple[int, str, int]]:
    """(level, the processors that share it, bytes) of each cache, as often as it is listed."""
    for index in cpus.glob("cpu[0-9]*/cache/index[0-9]*"):
        size = (read_text(index / "size") or "").strip()
        level, shared = read_int(index / "level"), read_text(index / "shared_cpu_list")
        if level and size[:-1].isdigit() and size[-1] in _SUFFIXES:
            yield level, shared or "", int(size[:-1]) * _SUFFIXES[size[-1]]


def _cache_bytes(caches: Iterable[tuple[int, str, int]], level: int) -> int | None:
    """Bytes of one level, each cache counted once whoever shares it."""
    return sum({shared: size for at, shared, size in caches if at == level}.values()) or None
