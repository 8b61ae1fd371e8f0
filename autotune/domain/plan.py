"""A memory plan: what a configuration will allocate, by component and device."""

from __future__ import annotations

from dataclasses import dataclass

COMPONENTS = ("weights", "repack", "kv", "recurrent", "compute", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """One component on one device."""

    component: str
    """One of :data:`COMPONENTS`."""
    device: str
    """``CPU``, ``CUDA0`` …"""
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes by component and device, and where the figures come from."""

    entries: tuple[PlanEntry, ...]
    source: str
    """``analytic`` (our formulas) or ``engine`` (the engine's own dry run)."""

    def total_bytes(self, *, component: str | None = None, device: str | None = None) -> int:
        """Sum over the entries of a component and/or a device; all of them by default."""
        return sum(
            entry.n_bytes
            for entry in self.entries
            if component in (None, entry.component) and device in (None, entry.device)
        )

    @property
    def host_bytes(self) -> int:
        """Bytes in the machine's own memory."""
        return self.total_bytes(device="CPU")

    @property
    def vram_bytes(self) -> int:
        """Bytes on GPUs."""
        return self.total_bytes() - self.host_bytes
