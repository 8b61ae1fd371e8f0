"""Under which conditions something was measured, and which of them spoil the measurement."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from autotune.domain import stats
from autotune.domain.units import MIB

FOREIGN_CPU_LIMIT_RATIO = 0.05
CLOCK_DROP_LIMIT_RATIO = 0.10
SWAP_LIMIT_BYTES = MIB
"""256 pages, read one by one from a disk in 0.1 ms each, cost 25 ms: 5 % of a short sample."""
SLOWDOWNS = frozenset({
    "cpu_thermal", "hw_slowdown", "hw_power_brake_slowdown", "hw_thermal_slowdown",
    "sw_thermal_slowdown",
})  # fmt: skip
"""Throttle reasons that come and go. A GPU's ordinary power cap (``sw_power_cap``) and clocks that
somebody set hold for every run alike: they are noted, and spoil nothing."""


class Contamination(enum.StrEnum):
    """What spoils a measurement: a closed set."""

    FOREIGN_CPU = "foreign_cpu"
    """Others used more than 5 % of the machine's processors."""
    THROTTLED = "throttled"
    """Processor or GPU held itself back, for heat or for want of power."""
    CLOCK_DROP = "clock_drop"
    """The clock was more than 10 % below the usual clock of the same run."""
    SWAP = "swap"
    """The machine moved more than a mebibyte between memory and swap."""
    REPORTED = "reported"
    """An application told the figures: nobody here saw how they were measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GPUState:
    """One look at one GPU."""

    device: str
    """The driver's identity (UUID) of the device."""
    used_bytes: int | None = None
    """Memory in use by everybody."""
    process_bytes: int | None = None
    """Memory in use by the observed process; None where the driver does not tell."""
    utilisation_ratio: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    """Counts up from when the driver was loaded."""
    clock_mhz: float | None = None
    """Clock of the arithmetic units."""
    temperature_celsius: float | None = None
    throttle: tuple[str, ...] | None = None
    """Names of the reasons for which it does not run at full clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What was seen of the machine over an interval. What the system does not tell is None."""

    foreign_cpu_ratio: float | None = None
    """Processor time of everybody else, stolen time included, as a share of the machine."""
    steal_ratio: float | None = None
    """Processor time that a hypervisor gave to others, as a share of the machine."""
    cpu_pressure_ratio: float | None = None
    """Share of the time in which some task waited for a processor, the engine's own included."""
    io_pressure_ratio: float | None = None
    memory_pressure_ratio: float | None = None
    swapped_bytes: int | None = None
    """Moved between memory and swap, both ways, by anybody."""
    cpu_mhz: float | None = None
    """Clock of the processor that ran fastest: the median of the looks at it."""
    cpu_mhz_min: float | None = None
    cpu_celsius_max: float | None = None
    gpu_utilisation_ratio: float | None = None
    """Mean over the looks and over the GPUs that the engine uses."""
    gpu_power_w: float | None = None
    """Mean over the looks, summed over the GPUs that the engine uses."""
    gpu_energy_j: float | None = None
    gpu_clock_mhz: float | None = None
    """Clock of the slowest GPU that the engine uses: the median of the looks at it."""
    gpu_clock_mhz_min: float | None = None
    gpu_celsius_max: float | None = None
    clock_ratio: float | None = None
    """The clock over the median clock of the run until then: of processor or GPU, the lower."""
    throttle: tuple[str, ...] | None = None
    """Every reason seen for holding back, sorted; None where no device tells."""
    load_1m: float | None = None
    on_ac: bool | None = None

    @property
    def contamination(self) -> tuple[Contamination, ...]:
        """What spoils a measurement made meanwhile; nothing for conditions that nobody saw."""
        found = {
            Contamination.FOREIGN_CPU: (self.foreign_cpu_ratio or 0) > FOREIGN_CPU_LIMIT_RATIO,
            Contamination.THROTTLED: not SLOWDOWNS.isdisjoint(self.throttle or ()),
            Contamination.CLOCK_DROP: (
                self.clock_ratio is not None and self.clock_ratio < 1 - CLOCK_DROP_LIMIT_RATIO
            ),
            Contamination.SWAP: (self.swapped_bytes or 0) > SWAP_LIMIT_BYTES,
        }
        return tuple(what for what, is_so in found.items() if is_so)

    def held_against(self, earlier: Sequence[Conditions]) -> Conditions:
        """The same with ``clock_ratio``, by the clocks of earlier intervals of the same work."""

        def ratio(name: str) -> float | None:
            clocks = [getattr(conditions, name) for conditions in (*earlier, self)]
            known = [clock for clock in clocks if clock]
            return clocks[-1] / stats.median(known) if clocks[-1] else None

        ratios = [ratio for ratio in (ratio("cpu_mhz"), ratio("gpu_clock_mhz")) if ratio]
        return replace(self, clock_ratio=min(ratios, default=None))
