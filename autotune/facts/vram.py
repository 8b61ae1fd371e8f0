"""Does a plan fit into what the GPUs have free?"""

from __future__ import annotations

from autotune.domain.machine import GPUFacts, MachineFacts
from autotune.domain.plan import MemoryPlan
from autotune.domain.units import MIB

RESERVE_BYTES = 512 * MIB
"""Of each GPU: the driver's own context takes 200 to 500 MiB, and no plan names it."""


def usable_gpus(machine: MachineFacts) -> tuple[GPUFacts, ...]:
    """The GPUs that the engine can use, in its own order."""
    return tuple(gpu for gpu in machine.gpus if gpu.device is not None)


def vram_ratio(plan: MemoryPlan, machine: MachineFacts) -> float:
    """Planned bytes over free bytes less the reserve, of the fullest GPU; 0 where none is used.

    A GPU of which nobody knows how much is free has nothing to say.
    """
    ratios = [0.0]
    for gpu in usable_gpus(machine):
        planned = plan.total_bytes(device=gpu.device)
        if planned and gpu.free_bytes is not None:
            ratios.append(planned / max(gpu.free_bytes - RESERVE_BYTES, 1))
    return max(ratios)


def fits_gpus(plan: MemoryPlan, machine: MachineFacts) -> bool:
    """Whether every GPU can hold its part of a plan."""
    return vram_ratio(plan, machine) <= 1
