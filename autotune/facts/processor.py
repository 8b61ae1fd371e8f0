"""The processor as one operating system describes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """What the system says of its processors; None where it says nothing."""

    name: str | None = None
    n_physical: int | None = None
    n_performance: int | None = None
    """Physical cores of the fastest kind; None where all are alike or nobody says."""
    isa: tuple[str, ...] = ()
    cache_l2_bytes: int | None = None
    """Of all cores together."""
    cache_l3_bytes: int | None = None
    """Of all sockets together."""
    n_numa_nodes: int | None = None
