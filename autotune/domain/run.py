"""Runs, generations and what is said of them: one model load, the generate calls inside it."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from autotune.domain import stats
from autotune.domain.conditions import Conditions, Contamination
from autotune.domain.config import Config
from autotune.domain.machine import Build
from autotune.domain.workload import Workload

MEASURE_VERSION = 1
"""Number of the measuring procedure. Results of different versions are shown, never mixed."""


class Purpose(enum.StrEnum):
    """Why a run was made."""

    PROBE = "probe"
    """First contact with a model: the newcomer's default."""
    EXPLORE = "explore"
    """A strategy asked for it."""
    CONFIRM = "confirm"
    """Winner or default re-measured at the end of a study."""
    BENCH = "bench"
    """Somebody asked for this configuration."""
    REBENCH = "rebench"
    USER = "user"
    IMPORT = "import"


class Reason(enum.StrEnum):
    """Why a run failed: a closed set."""

    TIMEOUT = "timeout"
    OOM = "oom"
    LOAD_ERROR = "load_error"
    UNSUPPORTED = "unsupported"
    """The engine does not know the model's architecture or file version, or what it is asked."""
    CRASH = "crash"
    CONSTRAINT = "constraint"
    """The engine refused the combination of knobs."""
    INCORRECT = "incorrect"
    INTERRUPTED = "interrupted"
    """The measuring process went away."""
    CANCELLED = "cancelled"
    """Somebody stopped it. Censored: says nothing about the configuration."""

    @property
    def is_label(self) -> bool:
        """Whether the reason tells that the configuration cannot run."""
        return self not in (Reason.CANCELLED, Reason.INTERRUPTED)


MAX_REPS = 8
"""Repetitions after which a measurement that stays noisy is taken as it is."""
SAMPLING_S = 60.0
"""Time to spend on the repetitions of one run, unless somebody is in a hurry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run to make: what to load and what to measure in it."""

    model_path: Path
    config: Config
    workload: Workload
    n_reps: int = 3
    """Fewest repetitions to measure after the warm-up."""
    max_reps: int = MAX_REPS
    """Most repetitions: more than ``n_reps`` are made while the samples disagree."""
    sampling_s: float = SAMPLING_S
    """Time after which no repetition is added beyond ``n_reps``."""
    timeout_s: float = 600.0
    """Time after which the run is stopped."""
    memory_limit_bytes: int | None = None
    """Resident bytes at which the run is stopped before the machine swaps."""
    purpose: Purpose = Purpose.BENCH


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTime:
    """Seconds from nothing to ready, by our own clock."""

    model_s: float
    """Reading the file into tensors."""
    context_s: float
    """Allocating KV cache and compute buffers."""
    first_eval_s: float
    """The first evaluation: page faults, repacking left over, thread start."""

    @property
    def total_s(self) -> float:
        """Model, context and first evaluation."""
        return self.model_s + self.context_s + self.first_eval_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """One buffer that the engine said it allocated."""

    device: str
    """Engine's name of the buffer's home, such as ``CPU_Mapped`` or ``CUDA0``."""
    kind: str
    """``model``, ``kv``, ``recurrent``, ``compute`` or ``output``."""
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """What the engine said it did, read from its log: asked for is not the same as done."""

    buffers: tuple[Buffer, ...] = ()
    layers_offloaded: int | None = None
    layers_total: int | None = None
    flash_attn: bool | None = None
    """What ``auto`` became; None where the log does not say."""
    n_ctx: int | None = None
    """Context really allocated (rounded up by the engine)."""

    def total_bytes(self, kind: str) -> int | None:
        """Sum of the buffers of one kind; None where the engine named none."""
        sizes = [buffer.n_bytes for buffer in self.buffers if buffer.kind == kind]
        return sum(sizes) if sizes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One generate call: a prompt computed, tokens decoded after it."""

    workload: Workload
    repetition: int
    """0, 1, 2 … in the order measured; warm-ups are not kept."""
    prefill_ns: int | None
    """Wall time of the prompt; None for a workload without one."""
    ttft_ns: int | None = None
    """Wall time of the prompt and of the first token sampled from it."""
    token_ns: tuple[int, ...] = ()
    """Wall time of each decoded token, sampling included; empty where only the sum is known."""
    decode_ns: int | None = None
    """Wall time of all generated tokens; left out, it is the sum of ``token_ns``."""
    prefill_cpu_ns: int | None = None
    """Processor time that the engine used for the prompt, all threads together."""
    decode_cpu_ns: int | None = None
    """Processor time that the engine used for the generated tokens, all threads together."""
    conditions: Conditions = field(default_factory=Conditions)
    """What was seen of the machine during the call."""
    n_drafted: int = 0
    """Tokens that were guessed from what was said before: where there are any, the time of a token
    depends on the text."""
    n_accepted: int = 0
    """Those of them that came true."""

    def __post_init__(self) -> None:
        if self.decode_ns is None and self.token_ns:
            object.__setattr__(self, "decode_ns", sum(self.token_ns))

    @property
    def n_gen(self) -> int:
        """Tokens really generated."""
        if self.token_ns:
            return len(self.token_ns)
        return self.workload.n_gen if self.decode_ns else 0

    @property
    def prefill_tps(self) -> float | None:
        """Prompt tokens per second."""
        if not self.prefill_ns:
            return None
        return self.workload.n_prompt * 1e9 / self.prefill_ns

    @property
    def decode_tps(self) -> float | None:
        """Generated tokens per second."""
        return self.n_gen * 1e9 / self.decode_ns if self.decode_ns else None

    @property
    def ttft_s(self) -> float | None:
        """Prompt computed and the first token out, in seconds."""
        return self.ttft_ns / 1e9 if self.ttft_ns else None

    @property
    def request_s(self) -> float:
        """The whole call, in seconds."""
        return ((self.prefill_ns or 0) + (self.decode_ns or 0)) / 1e9

    @property
    def itl_p50_s(self) -> float | None:
        """Median time between two generated tokens."""
        return _gap_s((self,), 0.5)

    @property
    def itl_p95_s(self) -> float | None:
        """95 % quantile of the time between two generated tokens."""
        return _gap_s((self,), 0.95)

    @property
    def contamination(self) -> tuple[Contamination, ...]:
        """What spoils it; empty for a clean sample."""
        return self.conditions.contamination


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePeak:
    """The most that a run held of one GPU's memory."""

    device: str
    """The driver's identity (UUID) of the device."""
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One model load in a process of its own, and every generation inside it."""

    trial: Trial
    backend: str
    build: Build | None
    """None where the engine died before it could say."""
    started_at: datetime
    """Aware, UTC."""
    elapsed_s: float
    reason: Reason | None = None
    """Why it failed; None when it succeeded."""
    message: str = ""
    """The failure in one line, the engine's own words where it had any."""
    log_excerpt: str = ""
    """The engine's last warnings and errors."""
    load: LoadTime | None = None
    cached_ratio: float | None = None
    """Share of the model file in the page cache before the load."""
    peak_anon_bytes: int | None = None
    """Highest resident anonymous memory (heap, KV cache, compute buffers)."""
    peak_file_bytes: int | None = None
    """Highest resident file-backed memory (mapped weights, libraries)."""
    peak_rss_bytes: int | None = None
    """Highest resident memory of the process, anonymous and file-backed together."""
    peak_pss_bytes: int | None = None
    """Highest proportional memory: what is shared with others counts by its share."""
    peak_vram: tuple[DevicePeak, ...] = ()
    """Of the GPUs that it used."""
    conditions: Conditions = field(default_factory=Conditions)
    """What was seen of the machine from start to end."""
    load_contamination: tuple[Contamination, ...] = ()
    """What spoils the load time."""
    report: EngineReport = field(default_factory=EngineReport)
    generations: tuple[Generation, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the run gave what was asked."""
        return self.reason is None

    @property
    def peak_vram_bytes(self) -> int | None:
        """Over all GPUs; None for a run that used none."""
        return sum(peak.n_bytes for peak in self.peak_vram) if self.peak_vram else None

    @property
    def contamination(self) -> tuple[Contamination, ...]:
        """What spoils its summary; empty with as many clean samples as were asked for."""
        if len([g for g in self.generations if not g.contamination]) >= self.trial.n_reps:
            return ()
        return tuple(sorted({what for g in self.generations for what in g.contamination}))

    @property
    def is_contaminated(self) -> bool:
        """Whether its summary may not be taken at face value."""
        return bool(self.contamination)

    @property
    def measurement(self) -> Measurement | None:
        """Summary of the generations; None for a failed run."""
        return summarise(self.load, self.peak_rss_bytes, self.generations) if self.ok else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A sample's median with its spread."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        """Median, minimum and maximum; None for no values."""
        if not values:
            return None
        return cls(median=stats.median(values), low=min(values), high=max(values), n=len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The summary of a run's samples: medians over repetitions, each with its range."""

    load_s: float | None
    peak_memory_bytes: int | None
    prefill_tps: Spread | None
    decode_tps: Spread | None
    ttft_s: Spread | None
    ttft_p95_s: float | None
    request_s: Spread
    itl_p50_s: float | None
    """Median time between two generated tokens, all repetitions pooled."""
    itl_p95_s: float | None


def summarise(
    load: LoadTime | None, peak_bytes: int | None, generations: tuple[Generation, ...]
) -> Measurement | None:
    """Medians and ranges over the clean repetitions, over all where none is clean; None without."""
    generations = clean_or_all(generations)
    request = Spread.of([generation.request_s for generation in generations])
    if request is None:
        return None

    def values(name: str) -> list[float]:
        found = [getattr(generation, name) for generation in generations]
        return [value for value in found if value is not None]

    ttft_s = values("ttft_s")
    return Measurement(
        load_s=load.total_s if load else None,
        peak_memory_bytes=peak_bytes,
        prefill_tps=Spread.of(values("prefill_tps")),
        decode_tps=Spread.of(values("decode_tps")),
        ttft_s=Spread.of(ttft_s),
        ttft_p95_s=stats.quantile(ttft_s, 0.95) if ttft_s else None,
        request_s=request,
        itl_p50_s=_gap_s(generations, 0.5),
        itl_p95_s=_gap_s(generations, 0.95),
    )


def clean_or_all(generations: tuple[Generation, ...]) -> tuple[Generation, ...]:
    """The clean ones; where there is none, the contaminated ones are all that is known."""
    return tuple(g for g in generations if not g.contamination) or generations


def _gap_s(generations: tuple[Generation, ...], quantile: float) -> float | None:
    """Quantile of the time between two tokens; the first follows the prompt, not a token."""
    gaps = [ns / 1e9 for generation in generations for ns in generation.token_ns[1:]]
    return stats.quantile(gaps, quantile) if gaps else None
