"""Studies and observations: a tuning question, and what past runs taught."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from autotune.domain.config import Config
from autotune.domain.machine import DiskProbe, MachineFacts, Probe
from autotune.domain.model import ModelFacts
from autotune.domain.prediction import Hardware, Target
from autotune.domain.run import LoadTime, Purpose, Reason
from autotune.domain.workload import Workload


class StudyState(enum.StrEnum):
    """How far a study got."""

    RUNNING = "running"
    COMPLETE = "complete"
    STOPPED = "stopped"
    """Somebody stopped it; what was measured stays."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One tuning question: which configuration serves this workload best?"""

    backend: str
    target: Target
    hardware: Hardware
    workload: Workload
    default: Config
    """The newcomer's default: what the answer is compared with."""
    max_trials: int
    time_limit_s: float
    seed: int = 0
    question_id: str = ""
    """Identity of candidates and limits: two studies that share it ask the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One stored run with everything a predictor learns from. Rates are medians of its samples."""

    run_id: int
    machine_id: str
    machine: MachineFacts
    probe: Probe | None
    model: ModelFacts
    backend: str
    build: str
    """Version and commit of the engine, as one word."""
    api: str = "CPU"
    """What the engine computes with: ``CPU``, ``CUDA``, ``ROCm``, ``Vulkan`` or ``Metal``."""
    config: Config
    workload: Workload | None
    """None for a run that measured no generation."""
    purpose: Purpose
    started_at: datetime
    reason: Reason | None = None
    load: LoadTime | None = None
    cached_ratio: float | None = None
    disk: DiskProbe | None = None
    """How fast the model's file was read where it lay."""
    peak_anon_bytes: int | None = None
    peak_file_bytes: int | None = None
    peak_rss_bytes: int | None = None
    peak_vram_bytes: int | None = None
    """Over all GPUs."""
    prefill_tps: float | None = None
    decode_tps: float | None = None
    ttft_s: float | None = None
    foreign_cpu_ratio: float | None = None
    cpu_celsius_max: float | None = None
    on_ac: bool | None = None
    contaminated: bool = False
    """Whether something spoils its rates: they must not teach at full weight."""
    load_contaminated: bool = False
    """Whether something spoils its load time."""
    counts: bool = True
    """Whether it stands for its run. Of a run with several workloads, the largest does: load,
    memory and outcome are told once, and the others tell of their rates alone."""

    @property
    def is_hearsay(self) -> bool:
        """Whether an application told of it: of that, nobody knows how it was measured."""
        return self.purpose is Purpose.IMPORT and self.contaminated

    @property
    def temperature_bucket(self) -> int | None:
        """Highest temperature of the processor in whole steps of 10 °C: 70 is 70 to 80 °C."""
        return None if self.cpu_celsius_max is None else int(self.cpu_celsius_max // 10) * 10
