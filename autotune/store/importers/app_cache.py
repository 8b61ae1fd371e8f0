"""``model_performance_cache.json`` of the GGUF Loader App, which this program takes over from.

It keeps running means by model, backend and hardware. What they teach is little: load times were
measured, but a mean over several calls has zeros in it; memory is an estimate from the file's
size; tokens per second are words, prompt included. Such a rate belongs to no phase, so its
workload is the smallest that has both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from autotune.domain.units import MIB
from autotune.domain.workload import Workload
from autotune.store.importers.rows import Problem, Row

CACHE_WORKLOAD = Workload(n_prompt=1, n_gen=1)
_MARKS = frozenset({"load_time_ms", "memory_usage_mb", "tokens_per_second"})
_DEPTH = 4
_MOST = 2**62
"""No number in a cache is larger."""
_KNOBS = {
    "n_gpu_layers": ("n_gpu_layers", "gpu_layers"),
    "n_threads": ("n_threads", "threads"),
    "n_batch": ("n_batch", "batch_size"),
}


def recognises(text: str) -> bool:
    """Whether it is a mapping with records of load time, memory and rate in it."""
    return next(_records(_parse(text)), None) is not None


def read_rows(text: str) -> Iterator[Row | Problem]:
    """Every record: of each model, backend and hardware the means."""
    document = _parse(text)
    profiles = document.get("model_profiles") if isinstance(document, dict) else None
    models = profiles if isinstance(profiles, dict) else {}
    for number, (keys, record) in enumerate(_records(document), start=1):
        place = f"entry {number}"
        model_hash = str(record.get("model_hash") or next(reversed(keys[:-1]), ""))
        profile = models.get(model_hash)
        known = {**(profile if isinstance(profile, dict) else {}), **record}
        model = known.get("model_path") or known.get("model_name") or known.get("model")
        if not model:
            yield Problem(
                place=place, cause=f"no model: {model_hash or 'nothing'} is not described"
            )
        else:
            yield Row(place=place, cells=_cells(str(model), known))


def _cells(model: str, known: Mapping[str, Any]) -> dict[str, object]:
    hardware = known.get("hardware_config")
    knobs = {**known, **(hardware if isinstance(hardware, dict) else {})}
    is_mean = _number(known.get("usage_count")) > 1
    size_mb = _number(known.get("size_mb"))
    return {
        "engine": known.get("backend_name") or known.get("backend"),
        "model": model,
        "quant": known.get("quantization"),
        "model_type": known.get("architecture"),
        "n_params": known.get("parameter_count"),
        "size_bytes": round(size_mb * MIB) if size_mb > 0 else None,
        "n_prompt": CACHE_WORKLOAD.n_prompt,
        "n_gen": CACHE_WORKLOAD.n_gen,
        "ts": known.get("tokens_per_second"),
        "load_ms": None if is_mean else known.get("load_time_ms"),
        "ram_mib": known.get("memory_usage_mb"),
        "reps": known.get("usage_count"),
        "status": "ok" if _succeeded(known) else "failed",
        "test_time": _instant(known.get("last_updated")),
        "is_hearsay": "yes",
        **{name: _first(knobs, names) for name, names in _KNOBS.items()},
    }


def _succeeded(known: Mapping[str, Any]) -> bool:
    told = known.get("success", known.get("success_rate"))
    return told is None or _number(told) > 0


def _first(knobs: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (knobs.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and not isinstance(v, bool)), None)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) < _MOST else 0.0


def _instant(value: object) -> str | None:
    """The app's seconds since 1970 as ISO; text as it is."""
    if not isinstance(value, int | float):
        return value if isinstance(value, str) else None
    try:
        return datetime.fromtimestamp(value, UTC).isoformat()
    except (OverflowError, OSError, ValueError):
        return None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _records(
    value: Any, keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Every record with the keys that lead to it."""
    if len(keys) > _DEPTH or not isinstance(value, dict | list):
        return
    if isinstance(value, dict) and len(_MARKS & value.keys()) > 1:
        yield keys, value
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield from _records(item, (*keys, str(key)))
