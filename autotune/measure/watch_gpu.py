"""What looks at GPUs say of an interval, and of the memory that a run held on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from autotune.domain import stats
from autotune.domain.conditions import Conditions, GPUState
from autotune.domain.run import DevicePeak
from autotune.domain.units import MIB
from autotune.measure.observe import Series, Span

Look = tuple[GPUState, ...]
"""GPUs at one moment, always in the same order."""
_CONTEXT_BYTES = 64 * MIB
"""Less than an engine takes of a GPU that it uses, more than a desktop takes meanwhile."""


def peak_vram(looks: Sequence[Look]) -> tuple[DevicePeak, ...]:
    """The most that was held of each GPU in use, in bytes.

    That is what the driver books to the process; where it does not tell (containers, Windows), by
    how much the memory in use rose above the first look.
    """
    peaks = [(states[0].device, _peak_bytes(states)) for states in zip(*looks, strict=True)]
    return tuple(DevicePeak(device=device, n_bytes=peak) for device, peak in peaks if peak)


def telling_looks(looks: Sequence[Look]) -> Sequence[Look]:
    """The few looks from which :func:`peak_vram` reads the same: the first, and the highest."""
    devices = range(len(looks[0]))
    return [
        looks[0],
        *(max(looks, key=lambda look: look[i].process_bytes or 0) for i in devices),
        *(max(looks, key=lambda look: look[i].used_bytes or 0) for i in devices),
    ]


def _peak_bytes(states: Look) -> int:
    if own := _known(state.process_bytes for state in states):
        return int(max(own))
    used = _known(state.used_bytes for state in states)
    rise = int(max(used) - used[0]) if used else 0
    return rise if rise >= _CONTEXT_BYTES else 0


def add_gpus(seen: Conditions, series: Series[Look], since: float) -> Conditions:
    """With what the GPUs in use did from a moment on; unchanged where none is in use."""
    used = {peak.device for peak in peak_vram(series.values)}
    looks = [tuple(gpu for gpu in look if gpu.device in used) for look in series.since(since)]
    if not used or not looks:
        return seen
    gpus = [gpu for look in looks for gpu in look]
    clocks = [min(known) for look in looks if (known := _known(gpu.clock_mhz for gpu in look))]
    utilisation = _known(gpu.utilisation_ratio for gpu in gpus)
    watts = [sum(known) for look in looks if (known := _known(gpu.power_w for gpu in look))]
    power_w = stats.mean(watts) if watts else None
    return replace(
        seen,
        gpu_utilisation_ratio=stats.mean(utilisation) if utilisation else None,
        gpu_power_w=power_w,
        gpu_energy_j=_energy_j(series.span(since), used, power_w),
        gpu_clock_mhz=stats.median(clocks) if clocks else None,
        gpu_clock_mhz_min=min(clocks, default=None),
        gpu_celsius_max=max(_known(gpu.temperature_celsius for gpu in gpus), default=None),
        throttle=_union([seen.throttle, *(gpu.throttle for gpu in gpus)]),
    )


def _energy_j(span: Span[Look] | None, used: set[str], power_w: float | None) -> float | None:
    """By the driver's counters; where there are none (before Volta), power times time."""
    if span is None:
        return None
    before, after = (
        [gpu.energy_j for gpu in look if gpu.device in used] for look in (span.first, span.last)
    )
    if None not in (*before, *after):
        return sum(_known(after)) - sum(_known(before))
    return None if power_w is None else power_w * span.elapsed_s


def _union(told: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Every reason that was told; None where nobody told any or none."""
    known = [names for names in told if names is not None]
    return tuple(sorted({name for names in known for name in names})) if known else None


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
