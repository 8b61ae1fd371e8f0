"""A machine that is not here: this one with other cores, memory or GPUs.

What is said of it is what can be said: more cores of the same kind, on the same memory; a GPU of
which only its memory is known, so that its speed has a wide interval.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotune.domain.errors import UserError
from autotune.domain.machine import GPUFacts, MachineFacts, Probe
from autotune.domain.units import MIB
from autotune.integration.hardware import HARDWARE_KEYS, HardwareInfo, usable_cores
from autotune.integration.words import whole
from autotune.recommend.subject import Subject

_OTHERS = frozenset(f.name for f in dataclasses.fields(HardwareInfo)) | {"gpu_devices"}
"""Further keys that ``HardwareInfo.to_dict()`` has: they are no question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imagined:
    """A subject on such a machine."""

    subject: Subject
    is_here: bool
    """Whether it is this very machine."""
    notes: tuple[str, ...] = ()
    """What was assumed, a line each."""


def imagine(subject: Subject, hardware: Mapping[str, Any] | None) -> Imagined:
    """The subject on the machine that ``hardware`` describes; what it leaves out is as here.

    Keys are those of the guide, memory in MB. Raises UserError for another key or value.
    """
    wanted = _wanted(hardware or {})
    machine, probe = subject.machine, subject.probe
    notes: list[str] = []
    here = _described(machine)
    changed = {name: value for name, value in wanted.items() if value != here[name]}
    if "cpu_cores" in changed:
        cores = changed["cpu_cores"]
        probe = _with_cores(subject.probe, cores)
        machine = dataclasses.replace(machine, n_physical=cores, n_logical=cores, n_usable=cores)
        notes.append(f"{cores} cores like those of {machine.cpu}, on the same memory")
    if "total_ram" in changed:
        n_bytes = changed["total_ram"] * MIB
        machine = dataclasses.replace(machine, ram_bytes=n_bytes, ram_limit_bytes=None)
        notes.append(f"{changed['total_ram']} MB of memory, all of it free")
    if changed.keys() & {"gpu_count", "total_vram"}:
        gpus = _gpus(
            wanted.get("gpu_count", here["gpu_count"]), wanted.get("total_vram", here["total_vram"])
        )
        machine = dataclasses.replace(machine, gpus=gpus)
        notes.append(_gpu_note(gpus))
    if not changed:
        return Imagined(subject=subject, is_here=True)
    stranger = _is_stranger(subject, changed)
    return Imagined(
        subject=dataclasses.replace(
            subject,
            machine=machine,
            probe=probe,
            machine_id=_identity(subject, changed) if stranger else subject.machine_id,
        ),
        is_here=False,
        notes=tuple(notes),
    )


def _wanted(hardware: Mapping[str, Any]) -> dict[str, int]:
    unknown = [name for name in hardware if name not in HARDWARE_KEYS and name not in _OTHERS]
    if unknown:
        raise UserError(
            f"hardware_config[{unknown[0]!r}] is not known: give {', '.join(HARDWARE_KEYS)}"
        )
    least = {"cpu_cores": 1, "total_ram": 1}
    return {
        name: whole(hardware[name], f"hardware_config[{name!r}]", least=least.get(name, 0))
        for name in HARDWARE_KEYS
        if name in hardware
    }


def _described(machine: MachineFacts) -> dict[str, int]:
    """A machine by the guide's four numbers, as HardwareInfo has them."""
    return {
        "gpu_count": len(machine.gpus),
        "total_vram": sum((gpu.total_bytes or 0) // MIB for gpu in machine.gpus),
        "cpu_cores": usable_cores(machine),
        "total_ram": (machine.usable_ram_bytes or 0) // MIB,
    }


def _gpus(n_gpus: int, vram_mb: int) -> tuple[GPUFacts, ...]:
    if n_gpus and not vram_mb:
        raise UserError("hardware_config has GPUs without memory: give total_vram in MB")
    each = vram_mb * MIB // max(n_gpus, 1)
    return tuple(
        GPUFacts(name="GPU", total_bytes=each, free_bytes=each, device=f"CUDA{number}")
        for number in range(n_gpus)
    )


def _gpu_note(gpus: tuple[GPUFacts, ...]) -> str:
    if not gpus:
        return "no GPU"
    size_mb = sum(gpu.total_bytes or 0 for gpu in gpus) // MIB
    return f"{len(gpus)} GPU, {size_mb} MB of memory; how fast it is, nobody says: wide intervals"


def _with_cores(probe: Probe, n_cores: int) -> Probe:
    """More cores compute more; the memory is read as fast as all cores here read it."""
    if n_cores <= probe.n_threads[-1]:
        return probe
    more = n_cores / probe.n_threads[-1]
    return dataclasses.replace(
        probe,
        n_threads=(*probe.n_threads, n_cores),
        read_bytes_per_s=(*probe.read_bytes_per_s, probe.read_bytes_per_s[-1]),
        read_spread_ratio=(*probe.read_spread_ratio, probe.read_spread_ratio[-1]),
        flops_per_s=(*probe.flops_per_s, probe.flops_per_s[-1] * more),
        flops_spread_ratio=(*probe.flops_spread_ratio, probe.flops_spread_ratio[-1]),
    )


def _is_stranger(subject: Subject, changed: Mapping[str, int]) -> bool:
    """Fewer cores or other memory leave the machine what it is; the rest makes another one."""
    more_cores = changed.get("cpu_cores", 0) > usable_cores(subject.machine)
    return more_cores or bool(changed.keys() & {"gpu_count", "total_vram"})


def _identity(subject: Subject, changed: Mapping[str, int]) -> str:
    text = f"imagined|{subject.machine_id}|{sorted(changed.items())}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
