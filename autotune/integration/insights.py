"""What stored uses say that somebody could act on; each line has its number and what to do."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from autotune.domain import stats
from autotune.domain.units import human_bytes, human_rate, human_seconds
from autotune.integration.profiles import BackendPerformanceProfile, profiles_of
from autotune.store.usage import Usage

_SLOW_LOAD_S = 5.0
_SLOW_TPS = 10.0
"""About as fast as people read."""
_UNRELIABLE = 0.9
_FULL_RATIO = 0.8
_SPOILT_RATIO = 0.25
_CHANGE_RATIO = 0.10
"""Spread between processes on a busy small machine is about 7 %."""
_MIN_SERIES = 4
_FASTER_RATIO = 1.05
_REMEDIES = {
    "oom": "lower context_size or use a smaller quantisation",
    "unsupported": "use another backend for this model",
    "load_error": "check the file: autotune inspect MODEL",
    "timeout": "lower context_size or use a smaller model",
}
Key = tuple[str, str, str]


def find_insights(usages: Sequence[Usage], *, ram_bytes: int | None) -> dict[str, list[str]]:
    """The guide's lists by name; empty where nothing is known. The machine has ``ram_bytes``."""
    return {
        "recommendations": find_best_backends(usages),
        "performance_trends": find_trends(usages),
        "bottlenecks": find_bottlenecks(usages, ram_bytes=ram_bytes),
    }


def find_trends(usages: Sequence[Usage]) -> list[str]:
    """Series of one configuration whose later half differs from the earlier one by a tenth."""
    series: dict[Key, list[Usage]] = defaultdict(list)
    for usage in reversed(usages):  # oldest first
        if usage.decode_tps and not usage.is_reported and not usage.is_spoilt:
            series[usage.model_name, usage.backend, usage.config.config_id].append(usage)
    return [line for key, found in series.items() if (line := _trend(key, found))]


def _trend(key: Key, found: Sequence[Usage]) -> str:
    if len(found) < _MIN_SERIES:
        return ""
    rates = [usage.decode_tps or math.nan for usage in found]
    before, after = rates[: len(rates) // 2], rates[len(rates) // 2 :]
    was, now = stats.median(before), stats.median(after)
    change = now / was - 1
    if abs(change) < _CHANGE_RATIO:
        return ""
    act = "look for what changed: autotune runs" if change < 0 else "nothing to do"
    model, backend, _ = key
    return (
        f"{model} on {backend}: {change:+.0%}, from {human_rate(was)} to {human_rate(now)} "
        f"over {len(found)} runs of one configuration; {act}"
    )


def find_bottlenecks(usages: Sequence[Usage], *, ram_bytes: int | None) -> list[str]:
    """Slow loads, slow answers, failures, full memory and spoilt measurements."""
    lines: list[str] = []
    for model, found in by_model(usages).items():
        for profile in profiles_of(found).values():
            own = [usage for usage in found if usage.backend == profile.backend_name]
            place = f"{model} on {profile.backend_name}"
            lines.extend(f"{place}: {line}" for line in _problems(profile, own, ram_bytes))
    return lines


def _problems(
    profile: BackendPerformanceProfile, usages: Sequence[Usage], ram_bytes: int | None
) -> list[str]:
    load_s = (profile.load_time_ms or 0) / 1000
    tps, rate = profile.tokens_per_second, profile.success_rate
    memory_bytes = (profile.memory_usage_mb or 0) * 1024**2
    spoilt = [u for u in usages if u.is_spoilt and not u.is_reported]
    lines: list[str] = []
    if load_s > _SLOW_LOAD_S:
        lines.append(f"loads in {human_seconds(load_s)}; put the file on a faster disk")
    if tps is not None and tps < _SLOW_TPS:
        lines.append(f"{human_rate(tps)} generated; use a smaller quantisation of the model")
    if rate is not None and rate < _UNRELIABLE:
        lines.append(f"{1 - rate:.0%} of {len(usages)} uses failed; {_remedy(usages)}")
    if ram_bytes and memory_bytes > _FULL_RATIO * ram_bytes:
        share = memory_bytes / ram_bytes
        lines.append(
            f"{human_bytes(memory_bytes)} is {share:.0%} of the memory; lower context_size"
        )
    if len(spoilt) > _SPOILT_RATIO * len(usages):
        what = sorted({word for usage in spoilt for word in usage.contamination})
        told = f" ({', '.join(what)})" if what else ""
        lines.append(
            f"{len(spoilt)} of {len(usages)} runs were spoilt{told}; close what runs beside"
        )
    return lines


def _remedy(usages: Sequence[Usage]) -> str:
    reasons = Counter(u.reason for u in usages if u.reason is not None)
    if not reasons:
        return "use another backend"
    reason = reasons.most_common(1)[0][0]
    return f"mostly {reason}: {_REMEDIES.get(reason, 'autotune runs shows them')}"


def find_best_backends(usages: Sequence[Usage]) -> list[str]:
    """Models that several backends have run, and which of them was fastest."""
    lines = []
    for model, found in by_model(usages).items():
        rates = {
            name: profile.tokens_per_second
            for name, profile in profiles_of(found).items()
            if profile.tokens_per_second
        }
        if len(rates) < 2:
            continue
        best, second = sorted(rates, key=lambda name: -rates[name])[:2]
        ratio = rates[best] / rates[second]
        if ratio >= _FASTER_RATIO:
            lines.append(
                f"{model}: use {best}, {human_rate(rates[best])}, {ratio:.2f}× the rate of {second}"
            )
    return lines


def by_model(usages: Sequence[Usage]) -> Mapping[str, list[Usage]]:
    """Uses by the model's name, in the order given."""
    found: dict[str, list[Usage]] = defaultdict(list)
    for usage in usages:
        found[usage.model_name].append(usage)
    return found
