"""A configuration: one setting of every knob that changes speed or memory.

Knobs carry the names that llama-bench prints (its ``no_kv_offload`` is our ``offload_kqv``, as in
llama-cpp-python, so that no knob is a negation). Each backend translates them into its own
library's words, ``recommend/export`` into those of other programs, and nothing else does.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autotune.domain.errors import ConfigError

FLASH_ATTN = ("off", "on", "auto")
SPLIT_MODES = ("none", "layer", "row", "tensor")
KV_BYTES_PER_ELEMENT: Mapping[str, float] = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes per element of each KV-cache type (ggml block bytes over block elements)."""

LOSSLESS_KV_TYPES = frozenset({"f32", "f16", "bf16"})
KV_BLOCK_ELEMENTS = 32
"""A quantised cache stores blocks of 32 elements, so 32 must divide the head dimension."""

_COUNTS = ("n_ctx", "n_batch", "n_ubatch", "n_threads", "n_threads_batch", "n_parallel")
_LARGEST = 2**31 - 1
"""Engines keep a knob in 32 bits: of a larger number they would take what is left of it."""
MOST_THREADS = 512
"""GGML_MAX_N_THREADS of ``ggml.h``: with more the engine dies."""
_WORDS = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One setting of all knobs. Values that contradict each other raise ConfigError."""

    n_ctx: int = 4096
    """Context window in tokens, shared by the parallel sequences."""
    n_batch: int = 512
    """Logical batch: tokens handed to the engine at once during prefill."""
    n_ubatch: int = 512
    """Physical batch: tokens computed at once; sizes the compute buffer."""
    n_threads: int = 1
    """Threads of decode."""
    n_threads_batch: int = 1
    """Threads of prefill."""
    flash_attn: str = "off"
    """``off``, ``on`` or ``auto`` (the engine decides)."""
    type_k: str = "f16"
    """Element type of the key cache."""
    type_v: str = "f16"
    """Element type of the value cache; a quantised one needs flash attention."""
    use_mmap: bool = True
    """Map the weights from the file instead of copying them."""
    use_mlock: bool = False
    """Forbid the system to page the weights out."""
    n_gpu_layers: int = 0
    """Layers placed on GPUs, the output layer included; −1 means all."""
    offload_kqv: bool = True
    """Keep the KV cache of offloaded layers on the GPU."""
    op_offload: bool = True
    """Copy host weights to the GPU for large batches."""
    split_mode: str = "layer"
    """How a model is spread over several GPUs."""
    main_gpu: int = 0
    """The GPU that holds what is not split."""
    tensor_split: tuple[float, ...] | None = None
    """Share of each GPU; None lets the engine split by free memory."""
    swa_full: bool = True
    """Full-size cache for sliding-window layers."""
    n_parallel: int = 1
    """Sequences decoded together."""

    def __post_init__(self) -> None:
        for problem in _contradictions(self):
            raise ConfigError(problem)

    def replace(self, **changes: Any) -> Config:
        """A copy with some knobs changed. Raises ConfigError as the constructor does."""
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Every knob by name, JSON-ready."""
        values = dataclasses.asdict(self)
        values["tensor_split"] = None if self.tensor_split is None else list(self.tensor_split)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The inverse of :meth:`as_dict`. Raises ConfigError for an unknown knob."""
        known = dict(values)
        for name in known:
            _require_knob(name)
        if known.get("tensor_split") is not None:
            known["tensor_split"] = tuple(float(share) for share in known["tensor_split"])
        return cls(**known)

    def canonical_json(self) -> str:
        """The same text for equal configurations, whatever made them."""
        return json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))

    @property
    def config_id(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]

    @property
    def is_lossy(self) -> bool:
        """Whether the answers change, if ever so little: a quantised cache."""
        return not {self.type_k, self.type_v} <= LOSSLESS_KV_TYPES

    @property
    def layer_split(self) -> tuple[int, str, int, tuple[float, ...] | None]:
        """The knobs that decide on which device each layer lives."""
        return self.n_gpu_layers, self.split_mode, self.main_gpu, self.tensor_split

    def differences(self, other: Config) -> dict[str, tuple[Any, Any]]:
        """The knobs on which two configurations differ: name → (ours, theirs)."""
        ours, theirs = self.as_dict(), other.as_dict()
        return {name: (ours[name], theirs[name]) for name in ours if ours[name] != theirs[name]}


KNOBS = tuple(field.name for field in dataclasses.fields(Config))


def parse_changes(assignments: Iterable[str], base: Config) -> Config:
    """``base`` with ``["n_ctx=8192", "type_k=q8_0"]`` applied.

    Raises ConfigError with one line that names the knob, the value and what would be accepted.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"--set {assignment!r} has no value: write {assignment}=VALUE")
        _require_knob(name.strip())
        changes[name.strip()] = _parse_value(name.strip(), text.strip())
    return base.replace(**_follow(changes, base))


def _follow(changes: dict[str, Any], base: Config) -> dict[str, Any]:
    """Batch sizes that were not named follow the ones that were: n_ubatch ≤ n_batch ≤ n_ctx."""
    n_ctx = changes.get("n_ctx", base.n_ctx)
    if "n_batch" not in changes:
        changes["n_batch"] = min(max(base.n_batch, changes.get("n_ubatch", 1)), n_ctx)
    if "n_ubatch" not in changes:
        changes["n_ubatch"] = min(base.n_ubatch, changes["n_batch"])
    return changes


def _require_knob(name: str) -> None:
    if name in KNOBS:
        return
    close = difflib.get_close_matches(name, KNOBS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"knobs are {', '.join(KNOBS)}"
    raise ConfigError(f"unknown knob {name!r}: {hint}")


def _parse_value(name: str, text: str) -> Any:
    field = next(field for field in dataclasses.fields(Config) if field.name == name)
    try:
        if field.type == "int":
            return int(text)
        if field.type == "bool":
            return {"1": True, "0": False, **_WORDS}[text.lower()]
        if name == "tensor_split":
            return None if text.lower() == "none" else tuple(float(s) for s in text.split("/"))
    except (ValueError, KeyError):
        wanted = {"int": "a whole number", "bool": "true or false"}.get(
            str(field.type), "shares such as 3/1"
        )
        raise ConfigError(f"{name}={text!r} is not valid: give {wanted}") from None
    return {"1": "on", "0": "off", "-1": "auto", "true": "on", "false": "off"}.get(
        text.lower(), text.lower()
    )


def _contradictions(config: Config) -> Iterable[str]:
    """One line for each thing that is wrong whatever the model and the machine."""
    for name in _COUNTS:
        if getattr(config, name) < 1:
            yield f"{name}={getattr(config, name)} is not valid: give a whole number above 0"
    for name in (*_COUNTS, "n_gpu_layers", "main_gpu"):
        most = MOST_THREADS if name.startswith("n_threads") else _LARGEST
        if getattr(config, name) > most:
            yield f"{name}={getattr(config, name)} is not valid: give at most {most}"
    for name, allowed in (
        ("flash_attn", FLASH_ATTN),
        ("split_mode", SPLIT_MODES),
        ("type_k", tuple(KV_BYTES_PER_ELEMENT)),
        ("type_v", tuple(KV_BYTES_PER_ELEMENT)),
    ):
        if getattr(config, name) not in allowed:
            yield f"{name}={getattr(config, name)!r} is not valid: give one of {', '.join(allowed)}"
    if config.n_gpu_layers < -1:
        yield f"n_gpu_layers={config.n_gpu_layers} is not valid: give −1 (all), 0 or a layer count"
    if config.main_gpu < 0:
        yield f"main_gpu={config.main_gpu} is not valid: give the number of a GPU, from 0"
    if config.n_batch > config.n_ctx:
        yield f"n_batch={config.n_batch} is above n_ctx={config.n_ctx}: lower n_batch"
    if config.n_ubatch > config.n_batch:
        yield f"n_ubatch={config.n_ubatch} is above n_batch={config.n_batch}: lower n_ubatch"
    if config.type_v not in LOSSLESS_KV_TYPES and config.flash_attn == "off":
        yield (
            f"type_v={config.type_v} needs flash attention: add flash_attn=on, or use type_v=f16"
        )
